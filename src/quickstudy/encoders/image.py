"""Images: the frozen front and the augmentation that image encoders share."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from quickstudy.config import ImageInput, Inputs
from quickstudy.data.dataset import Modality
from quickstudy.data.media import decode_image
from quickstudy.encoders.encoder import Encoder


class ImageEncoder(Encoder):
    """All of an image encoder but its network."""

    def __init__(self, inputs: ImageInput):
        super().__init__()
        self.inputs = inputs

    @classmethod
    def sees(cls, modality: Modality, inputs: Inputs, name: str) -> str:
        size, tone = inputs.image.size, "grey" if inputs.image.channels == 1 else "colour"
        return f"Images become {size} × {size} pixels of {tone}: finer detail is lost."

    @property
    def front(self) -> str:
        return repr(self.inputs)

    def prepare(self, raw: Sequence[bytes]) -> np.ndarray:
        """Frozen front: image files → uint8 [n, C, S, S]."""
        return self.arrays([self.decoded(data) for data in raw])

    def decoded(self, raw: bytes) -> np.ndarray:
        """Return an image file as uint8 [C, S, S]."""
        return _prepare(decode_image(raw), self.inputs)

    def arrays(self, decoded: Sequence[np.ndarray]) -> np.ndarray:
        """Return images as uint8 [n, C, S, S]."""
        return np.stack(decoded)

    def augment(self, images: Tensor, generator: torch.Generator, way: int | None = None) -> Tensor:
        """uint8 [n, C, S, S] → float in [0, 1]: a small random affine map of each image.

        Args:
            way: where given, rows come class by class, and each class is turned by a multiple of 90°, which makes a
                class of its own of it (Santoro et al. 2016).
        """
        n = len(images)

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(n, generator=generator, device=images.device) * (high - low) + low

        angle = uniform(-0.15, 0.15)
        if way is not None:
            turns = torch.randint(0, 4, (way,), generator=generator, device=images.device)
            angle = angle + turns.repeat_interleave(n // way) * (torch.pi / 2)
        scale_x, scale_y, shear = uniform(0.85, 1.2), uniform(0.85, 1.2), uniform(-0.2, 0.2)
        cos, sin = angle.cos(), angle.sin()
        row_x = torch.stack([cos * scale_x, -sin * scale_y + shear, uniform(-0.12, 0.12)], dim=1)
        row_y = torch.stack([sin * scale_x, cos * scale_y, uniform(-0.12, 0.12)], dim=1)
        grid = F.affine_grid(torch.stack([row_x, row_y], dim=1), list(images.shape), align_corners=False)
        return F.grid_sample(images.float().div(255), grid, align_corners=False)


def _prepare(image: np.ndarray, inputs: ImageInput) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] → uint8 [C, S, S]; grey images come out light on dark, at full contrast."""
    size = (inputs.size, inputs.size)
    if inputs.channels == 3:
        colour = Image.fromarray(image).convert("RGB")
        return np.asarray(colour.resize(size, Image.Resampling.BOX)).transpose(2, 0, 1)
    grey = image if image.ndim == 2 else np.asarray(Image.fromarray(image).convert("L"))
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    light = np.count_nonzero(border > 127) * 2 - len(border)
    if light > 0 or (light == 0 and np.median(border) > 127):  # dark on light: the background touches the border
        grey = 255 - grey
    resample = Image.Resampling.BOX if min(grey.shape) >= inputs.size else Image.Resampling.BICUBIC
    small = np.asarray(Image.fromarray(grey).resize(size, resample), dtype=np.float32)
    low, high = small.min(), small.max()
    return ((small - low) * (255 / max(high - low, 1.0))).round().astype(np.uint8)[None]


def as_fractions(images: Tensor) -> Tensor:
    """uint8 [n, C, S, S], or float in [0, 1] → float in [0, 1], laid out as convolutions like it."""
    x = images.float().div(255) if images.dtype == torch.uint8 else images
    return x.contiguous(memory_format=torch.channels_last)


def rgb(data: bytes) -> Image.Image:
    """An image file → its pixels in colour, which grey ones have three times, as pretrained models were shown them."""
    return Image.fromarray(decode_image(data)).convert("RGB")
