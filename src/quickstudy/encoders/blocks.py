"""The convolution block that the image and the audio encoder are made of, and how a task modulates an encoder."""

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

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


class ConvBlock(nn.Sequential):
    """3×3 convolution, batch norm, 2×2 max pooling and ReLU: the block of Vinyals et al. 2016 (Matching Networks).

    The two last ones are the other way round in the paper. The result is the same, and ReLU has a quarter of the work.
    So is it where batch norm's statistics are known before the convolution: its scale becomes a part of the
    convolution's weight, and its shift is added to what pooling leaves.

    [B, inside, H, W] → [B, outside, H/2, W/2], or with the size kept where ``pool`` is false.
    """

    def __init__(self, inside: int, outside: int, pool: bool = True):
        conv = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
        norm = nn.BatchNorm2d(outside)
        super().__init__(conv, norm, *([nn.MaxPool2d(2)] if pool else []), nn.ReLU(inplace=True))

    def forward(self, x: Tensor, modulated: tuple[Tensor, Tensor] | None = None) -> Tensor:
        conv, norm = cast(nn.Conv2d, self[0]), cast(nn.BatchNorm2d, self[1])
        known = known_statistics(x, conv.weight, norm)
        if known is None:
            x, shift = norm(conv(x)), None
        else:
            mean, var = known
            scale = norm.weight.flatten() * (var + norm.eps).rsqrt()
            shift = norm.bias.flatten() - mean * scale
            x = F.conv2d(x, conv.weight * scale.view(*norm.weight.shape, 1, 1, 1), None, padding=1)
        if modulated is not None:
            gamma, beta = modulated
            x = gamma[:, :, None, None] * x
            shift = beta if shift is None else gamma * shift + beta
        *pool, relu = list(self)[2:]
        for layer in pool:
            x = layer(x)
        return relu(x if shift is None else x + shift[..., None, None])


class ConvBlocks(nn.Sequential):
    """`ConvBlock`s, one after the other, each modulated after its batch norm."""

    @property
    def channels(self) -> tuple[int, ...]:
        return tuple(layer.num_features for layer in self.modules() if isinstance(layer, nn.BatchNorm2d))

    def forward(self, x: Tensor, modulation: Modulation | None = None) -> Tensor:
        each: Sequence[tuple[Tensor, Tensor] | None] = [None] * len(self) if modulation is None else modulation
        x = channels_last(x)
        for block, modulated in zip(self, each, strict=True):
            x = block(x, modulated)
        return x


def channels_last(x: Tensor) -> Tensor:
    """[B, C, H, W], laid out as convolutions like it.

    An image of one channel is laid out so whatever its strides say; but torch goes by them, and ``contiguous`` leaves
    them as they are. All that follows the convolution then takes twice the time.
    """
    b, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).flatten().view(b, h, w, c).permute(0, 3, 1, 2)


def known_statistics(x: Tensor, weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor] | None:
    """Mean and variance [C] by which ``norm`` normalises the 3×3 convolution of x, as far as they are known without it.

    In use they are the running averages. In training those of the batch, which follow from its patches where there is
    one input channel: the output is linear in 9 numbers, whose covariances are less work than a pass over the output
    and one back. (With three channels they are more.)

    A `TorchFunctionMode` may answer in its place.
    """
    if has_torch_function((x, weight)):
        return handle_torch_function(known_statistics, (x, weight), x, weight, norm)  # type: ignore[no-any-return]
    if not norm.training:
        return cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    if x.shape[1] > 1:
        return None
    mean, var = statistics_of_patches(x, weight)
    with torch.no_grad():
        count = x.numel()
        met = cast(Tensor, norm.num_batches_tracked).add_(1)
        momentum = 1 / met.item() if norm.momentum is None else norm.momentum  # None: a mean over all batches
        cast(Tensor, norm.running_mean).lerp_(mean, momentum)
        cast(Tensor, norm.running_var).lerp_(var * (count / (count - 1)), momentum)
    return mean, var


def statistics_of_patches(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance, both [O], of the 3×3 convolution of x [B, C, H, W] by a weight [O, C, 3, 3], without it."""
    # In float32 a small variance would drown in the rounding of a large one; Apple's GPUs know nothing finer.
    precise = torch.float32 if x.device.type == "mps" else torch.float64
    patches = F.unfold(x, 3, padding=1).to(precise)
    count = patches.shape[0] * patches.shape[2]
    mean = patches.sum((0, 2)) / count
    covariance = (patches @ patches.mT).sum(0) / count - mean[:, None] * mean
    rows = weight.flatten(1).to(precise)
    return (rows @ mean).to(weight.dtype), ((rows @ covariance) * rows).sum(1).to(weight.dtype)
