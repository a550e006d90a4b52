"""An example as a small picture, for the figures of every kind of task."""

from collections.abc import Callable

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image

from quickstudy.config import AudioInput
from quickstudy.data.dataset import Modality
from quickstudy.data.media import decode_image
from quickstudy.encoders.audio import AudioEncoder

PIXELS = 64  # a side of an image, at most

See = Callable[[bytes], np.ndarray]
"""The bytes of a file → uint8 [H, W] or [H, W, 3]."""


def eye(modality: Modality, audio: AudioInput) -> See | None:
    """Return what makes a picture of an example; None for texts, of which there is none."""
    match modality:
        case "image":
            return _whole
        case "audio":
            return _ear(audio)
        case "text":
            return None


def _whole(data: bytes) -> np.ndarray:
    """Return all of an image, small, on a square."""
    image = Image.fromarray(decode_image(data))
    image.thumbnail((PIXELS, PIXELS), Image.Resampling.BOX)
    side = max(image.size)
    square = Image.new(image.mode, (side, side), "black" if image.mode == "L" else "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(square)


class _Front(AudioEncoder):
    """The frozen front and no network."""

    def forward(self, arrays: torch.Tensor) -> torch.Tensor:
        return arrays


def _ear(inputs: AudioInput) -> See:
    """Return what makes the log-mel spectrogram of a recording that an audio encoder is given, low tones below."""
    front = _Front(inputs)

    def hear(data: bytes) -> np.ndarray:
        mels = front.prepare([data])[0, 0, ::-1].astype(np.float32)
        return np.asarray(colormaps["magma"]((mels - mels.min()) / max(np.ptp(mels), 1e-6), bytes=True))[..., :3]

    return hear
