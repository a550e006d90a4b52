"""resnet12: four residual blocks over images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quickstudy.config import ImageInput
from quickstudy.encoders.blocks import Modulation
from quickstudy.encoders.image import ImageEncoder, as_fractions


class ResNet12(ImageEncoder):
    """ResNet-12 of TADAM (Oreshkin et al. 2018, https://arxiv.org/abs/1805.10123) and MetaOptNet (Lee et al. 2019,
    https://arxiv.org/abs/1904.03758), in the widths of Conv4 and without DropBlock.

    The last block keeps its size: pooled four times, a small image would lose its border.
    """

    def __init__(self, inputs: ImageInput, width: int, dimension: int):
        super().__init__(inputs)
        self.channels = (width // 2, width, 2 * width, dimension)  # of each block, which a task may modulate
        self.blocks = nn.Sequential(
            ResidualBlock(inputs.channels, width // 2),
            ResidualBlock(width // 2, width),
            ResidualBlock(width, 2 * width),
            ResidualBlock(2 * width, dimension, pool=False),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor, modulation: Modulation | None = None) -> Tensor:
        """uint8 [n, C, S, S], or float in [0, 1] → [n, D]"""
        x = as_fractions(images)
        each: Sequence[tuple[Tensor, Tensor] | None] = [None] * len(self.blocks) if modulation is None else modulation
        for block, modulated in zip(self.blocks, each, strict=True):
            x = block(x, modulated)
        return x.mean(dim=(2, 3))


class ResidualBlock(nn.Module):
    """Three 3×3 convolutions beside a 1×1 one, each with batch norm; LeakyReLU between them and over their sum, which
    is pooled first: the result is the same, and LeakyReLU has a quarter of the work.

    [B, inside, H, W] → [B, outside, H/2, W/2], or with the size kept where ``pool`` is false.
    """

    def __init__(self, inside: int, outside: int, pool: bool = True):
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside))
        self.pool = pool

    def forward(self, x: Tensor, modulated: tuple[Tensor, Tensor] | None = None) -> Tensor:
        total = self.path(x) + self.shortcut(x)
        if modulated is not None:
            gamma, beta = modulated
            total = gamma[:, :, None, None] * total + beta[:, :, None, None]
        return F.leaky_relu(F.max_pool2d(total, 2) if self.pool else total, 0.1)
