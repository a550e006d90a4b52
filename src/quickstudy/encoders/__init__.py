"""Encoders: f_θ, chosen for each modality by `model.encoders` in params.yaml. ``MODALITY.py`` holds what the encoders
of a modality share, ``MODALITY_*.py`` each of them, ``pretrained*.py`` any model of another library by its name."""

from functools import partial
from typing import Any, cast

from quickstudy.config import Inputs, Model
from quickstudy.data.dataset import Modality
from quickstudy.encoders.audio_cnn import SpectrogramCnn
from quickstudy.encoders.audio_recurrent import SpectrogramRecurrent
from quickstudy.encoders.encoder import Encoder
from quickstudy.encoders.image_conv4 import Conv4
from quickstudy.encoders.image_resnet12 import ResNet12
from quickstudy.encoders.pretrained import Pretrained
from quickstudy.encoders.text_minilm import MiniLM
from quickstudy.encoders.text_minilm_layers import LayeredMiniLM
from quickstudy.encoders.text_minilm_tuned import TunedMiniLM
from quickstudy.encoders.text_tokens import TokenEncoder

__all__ = ["Encoder", "encoder_class", "make_encoder"]


def make_encoder(modality: Modality, inputs: Inputs, shape: Model) -> Encoder:
    """Return an untrained encoder of a modality."""
    return _encoder(modality, inputs, shape)()


def encoder_class(modality: Modality, inputs: Inputs, shape: Model) -> type[Encoder]:
    """Return the class of what `make_encoder` makes. Neither weights nor another library are asked for it."""
    return cast(type[Encoder], _encoder(modality, inputs, shape).func)


def _encoder(modality: Modality, inputs: Inputs, shape: Model) -> partial[Any]:
    """Return the class that `model.encoders` names, with what it is made of."""
    sizes = (shape.width, shape.dimension)
    match modality, dict(shape.encoders)[modality]:
        case _, name if ":" in name:
            return partial(Pretrained, modality, name, inputs, shape.dimension)
        case "image", "conv4":
            return partial(Conv4, inputs.image, *sizes)
        case "image", "resnet12":
            return partial(ResNet12, inputs.image, *sizes)
        case "audio", "cnn":
            return partial(SpectrogramCnn, inputs.audio, *sizes)
        case "audio", ("gru" | "lstm") as cell:
            return partial(SpectrogramRecurrent, inputs.audio, cell, *sizes)
        case "text", "minilm":
            return partial(MiniLM, inputs.text, shape.dimension)
        case "text", "minilm-layers":
            return partial(LayeredMiniLM, inputs.text, shape.dimension)
        case "text", "minilm-tuned":
            return partial(TunedMiniLM, inputs.text, shape.dimension)
        case "text", name:
            unit, network = name.split("-")
            return partial(TokenEncoder, inputs.text, unit, network, *sizes, shape.heads)
    raise AssertionError(modality)
