"""Encoders: one file a modality. Each has a frozen front (file bytes or text → array, computed once and cached)
and a trainable network (array → vectors in the D-dimensional space that all modalities share)."""

from quickstudy.config import Inputs, Model
from quickstudy.data.dataset import Modality
from quickstudy.model.encoders.audio import AudioEncoder
from quickstudy.model.encoders.image import ImageEncoder
from quickstudy.model.encoders.text import TextEncoder

Encoder = ImageEncoder | AudioEncoder | TextEncoder


def make_encoder(modality: Modality, inputs: Inputs, shape: Model) -> Encoder:
    """An untrained encoder of a modality."""
    if modality == "image":
        return ImageEncoder(inputs.image, shape.width, shape.dimension)
    if modality == "audio":
        return AudioEncoder(inputs.audio, shape.width, shape.dimension)
    return TextEncoder(inputs.text, shape.dimension)
