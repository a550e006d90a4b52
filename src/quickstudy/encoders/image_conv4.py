"""conv4: four convolution blocks over images."""

import torch
from torch import Tensor

from quickstudy.config import ImageInput
from quickstudy.encoders.blocks import ConvBlock, ConvBlocks, Modulation
from quickstudy.encoders.image import ImageEncoder, as_fractions


class Conv4(ImageEncoder):
    """Conv4 (Vinyals et al. 2016; Snell et al. 2017) with two wider blocks on top and global pooling."""

    def __init__(self, inputs: ImageInput, width: int, dimension: int):
        super().__init__(inputs)
        self.blocks = ConvBlocks(
            ConvBlock(inputs.channels, width // 2),
            ConvBlock(width // 2, width),
            ConvBlock(width, 2 * width),
            ConvBlock(2 * width, dimension, pool=False),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def channels(self) -> tuple[int, ...]:
        """of each block, which a task may modulate"""
        return self.blocks.channels

    def forward(self, images: Tensor, modulation: Modulation | None = None) -> Tensor:
        """uint8 [n, C, S, S], or float in [0, 1] → [n, D]"""
        return self.blocks(as_fractions(images), modulation).mean(dim=(2, 3))
