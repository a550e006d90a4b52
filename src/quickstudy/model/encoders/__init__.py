"""Encoders: one file a modality. Each has a frozen front (file bytes or text → array, computed once and cached)
and a trainable network (array → vectors in the D-dimensional space that all modalities share)."""

from quickstudy.config import Settings
from quickstudy.data.dataset import Modality
from quickstudy.model.encoders.audio import AudioEncoder
from quickstudy.model.encoders.image import ImageEncoder
from quickstudy.model.encoders.text import TextEncoder

Encoder = ImageEncoder | AudioEncoder | TextEncoder


def make_encoder(modality: Modality, settings: Settings) -> Encoder:
    """An untrained encoder of a modality, as the settings describe it."""
    model, inputs = settings.model, settings.inputs
    if modality == "image":
        return ImageEncoder(inputs.image, model.width, model.dimension)
    if modality == "audio":
        return AudioEncoder(inputs.audio, model.width, model.dimension)
    return TextEncoder(inputs.text, model.dimension)
