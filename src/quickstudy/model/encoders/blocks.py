"""The convolution block that the image and the audio encoder are made of."""

from torch import nn


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
