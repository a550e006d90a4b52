"""The convolution block that the image and the audio encoder are made of, and how a task modulates an encoder."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

Modulation = Sequence[tuple[Tensor, Tensor]]
"""Of each modulated layer γ and β, both [n, channels]: each example has its own."""


@runtime_checkable
class Modulated(Protocol):
    """An encoder with layers whose channels x a task can turn into γ · x + β (FiLM, Perez et al. 2018,
    https://arxiv.org/abs/1709.07871)."""

    @property
    def channels(self) -> tuple[int, ...]:
        """of each of these layers"""

    def __call__(self, arrays: Tensor, modulation: Modulation | None = None, /) -> Tensor:
        """[n, ...] → [n, D]"""


def conv_block(inside: int, outside: int, stride: int = 1, pool: bool = True) -> nn.Sequential:
    """3×3 convolution, batch norm, 2×2 max pooling and ReLU: the block of Vinyals et al. 2016 (Matching Networks).

    The two last ones are the other way round in the paper. The result is the same, and ReLU has a quarter of the work.

    [B, inside, H, W] → [B, outside, H/2, W/2], or with the size kept where ``pool`` is false.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outside),
    ]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []), nn.ReLU(inplace=True))


class ConvBlocks(nn.Sequential):
    """`conv_block`s, one after the other, each modulated after its batch norm."""

    @property
    def channels(self) -> tuple[int, ...]:
        return tuple(layer.num_features for layer in self.modules() if isinstance(layer, nn.BatchNorm2d))

    def forward(self, x: Tensor, modulation: Modulation | None = None) -> Tensor:
        if modulation is None:
            return super().forward(x)
        for block, (gamma, beta) in zip(self, modulation, strict=True):
            for layer in block.children():
                x = layer(x)
                if isinstance(layer, nn.BatchNorm2d):
                    x = gamma[:, :, None, None] * x + beta[:, :, None, None]
        return x
