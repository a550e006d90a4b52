"""The residual block, beside sums over patches."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.config import Settings
from quickstudy.encoders.image_resnet12 import ResidualBlock, ResNet12


@pytest.mark.parametrize("training", [True, False])
def test_a_task_may_modulate_each_block(tiny: Settings, training: bool) -> None:
    torch.manual_seed(0)
    encoder = ResNet12(tiny.inputs.image, 8, 16).train(training)
    x = torch.rand(5, 1, 16, 16)
    plain = [(torch.ones(5, c), torch.zeros(5, c)) for c in encoder.channels]
    assert encoder.channels == (4, 8, 16, 16) and torch.equal(encoder(x, plain), encoder(x))
    gamma, beta = torch.rand(5, 16) + 0.5, torch.randn(5, 16)
    seen = []
    encoder.blocks[3].register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    found = encoder(x, [*plain[:3], (gamma, beta)])
    last = encoder.blocks[3]
    total = (last.path(seen[0]) + last.shortcut(seen[0])).movedim(1, -1)
    expected = leaky(gamma[:, None, None] * total + beta[:, None, None]).mean((1, 2))
    assert (found - expected).abs().max() < 1e-5


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    side = weight.shape[2]
    patches = F.pad(x, [side // 2] * 4).unfold(2, side, 1).unfold(3, side, 1)  # [B, C, H, W, side, side]
    return torch.einsum("bchwij,ocij->bohw", patches, weight)


def normalise(x: Tensor, norm: torch.nn.BatchNorm2d, training: bool) -> Tensor:
    mean, variance = norm.running_mean, norm.running_var
    if training:
        flat = x.transpose(0, 1).flatten(1)
        mean, variance = flat.mean(1), flat.var(1, unbiased=False)
    unit = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    return unit * norm.weight[:, None, None] + norm.bias[:, None, None]


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.1 * x)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pool", [True, False])
def test_a_block_is_that_of_the_paper(training: bool, pool: bool) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(3, 5, pool).double()
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # some gains negative, where pooling early must not hurt
            for tensor in (module.weight, module.bias, module.running_mean):
                torch.nn.init.normal_(tensor)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    block.train(training)
    x = torch.randn(4, 3, 7, 6, dtype=torch.float64)
    one, norm_one, _, two, norm_two, _, three, norm_three = block.path
    with torch.no_grad():
        y = leaky(normalise(convolve(x, one.weight), norm_one, training))
        y = leaky(normalise(convolve(y, two.weight), norm_two, training))
        y = normalise(convolve(y, three.weight), norm_three, training)
        y = leaky(y + normalise(convolve(x, block.shortcut[0].weight), block.shortcut[1], training))
        if pool:  # the last row has no partner
            y = torch.stack([y[:, :, i:6:2, j:6:2] for i in (0, 1) for j in (0, 1)]).amax(0)
        assert (block(x) - y).abs().max() < 1e-10


def test_there_are_four_blocks_of_three_convolutions(tiny: Settings) -> None:
    encoder = ResNet12(tiny.inputs.image, 8, 16)
    sides = [tuple(p.shape) for name, p in encoder.named_parameters() if p.ndim == 4 and p.shape[2] == 3]
    assert [side[0] for side in sides] == [4] * 3 + [8] * 3 + [16] * 3 + [16] * 3
    assert encoder(torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)).shape == (3, 16)
