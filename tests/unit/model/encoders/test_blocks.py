"""The convolution block beside torch's own layers, one after the other, in the order of the paper."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quickstudy.encoders.blocks import ConvBlock, ConvBlocks, channels_last, statistics_of_patches


def made_blocks(inside: int, training: bool) -> ConvBlocks:
    """Some gains negative, where pooling before the batch norm would choose another element."""
    torch.manual_seed(0)
    blocks = ConvBlocks(ConvBlock(inside, 6), ConvBlock(6, 5), ConvBlock(5, 4, pool=False)).double().train(training)
    for module in blocks.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return blocks


def plain(blocks: ConvBlocks, x: Tensor, modulation: list[tuple[Tensor, Tensor]] | None) -> Tensor:
    for i, block in enumerate(blocks):
        conv, norm = block[0], block[1]
        x = norm(F.conv2d(x, conv.weight, padding=1))
        if modulation is not None:
            x = modulation[i][0][:, :, None, None] * x + modulation[i][1][:, :, None, None]
        x = x.relu()
        x = F.max_pool2d(x, 2) if len(block) == 4 else x
    return x


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize("inside", [1, 3])
@pytest.mark.parametrize("size", [(12, 16), (9, 11)])
def test_it_is_what_the_layers_are(inside: int, size: tuple[int, int], modulated: bool, training: bool) -> None:
    blocks = made_blocks(inside, training)
    other = copy.deepcopy(blocks)
    x = torch.rand(7, inside, *size, dtype=torch.float64) + 3  # far from 0, where a variance is easily lost
    modulation = [(torch.randn(7, c).double(), torch.randn(7, c).double()) for c in blocks.channels]
    for _ in range(2):
        found = blocks(x, modulation if modulated else None)
        expected = plain(other, x, modulation if modulated else None)
        assert (found - expected).abs().max() < 1e-10
    direction = torch.randn_like(expected)
    gradients = torch.autograd.grad((found * direction).sum(), list(blocks.parameters()))
    theirs = torch.autograd.grad((expected * direction).sum(), list(other.parameters()))
    for mine, their in zip(gradients, theirs, strict=True):
        assert (mine - their).abs().max() < 1e-9 * max(1.0, float(their.abs().max()))
    for (name, mine), their in zip(blocks.named_buffers(), other.buffers(), strict=True):
        assert (mine - their).abs().max() < 1e-10, name
    assert int(blocks[0][1].num_batches_tracked) == (2 if training else 0)


def test_running_averages_may_be_means_over_all_batches() -> None:
    blocks = made_blocks(1, True)
    for module in blocks.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # as torch has it
    other = copy.deepcopy(blocks)
    for x in torch.rand(3, 5, 1, 8, 8, dtype=torch.float64):
        blocks(x), plain(other, x, None)
    for (name, mine), their in zip(blocks.named_buffers(), other.buffers(), strict=True):
        assert (mine - their).abs().max() < 1e-10, name


@pytest.mark.parametrize("inside", [1, 3])
def test_a_gradient_of_a_gradient(inside: int) -> None:
    blocks = made_blocks(inside, True)
    other = copy.deepcopy(blocks)
    x = torch.rand(4, inside, 8, 8, dtype=torch.float64)
    found = []
    for each, y in ((blocks, blocks(x)), (other, plain(other, x, None))):
        weights = list(each.parameters())
        slopes = torch.autograd.grad(y.square().sum(), weights, create_graph=True)
        found.append(torch.autograd.grad(sum(slope.square().sum() for slope in slopes), weights))
    for mine, their in zip(*found, strict=True):
        assert (mine - their).abs().max() < 1e-9 * max(1.0, float(their.abs().max()))


def test_in_float32_it_is_as_exact_as_the_layers() -> None:
    """Beside the layers in float64, for images that are light nearly everywhere."""
    blocks = made_blocks(1, True)
    x = 1 - 0.01 * torch.rand(64, 1, 28, 28, dtype=torch.float64)
    exact = plain(copy.deepcopy(blocks), x, None)
    blocks = blocks.float()
    layers = plain(copy.deepcopy(blocks), x.float(), None)
    worst = max((layers - exact).abs().max().item(), 1e-5)
    assert (blocks(x.float()) - exact).abs().max() < 2 * worst


def test_the_statistics_of_patches_are_those_of_the_convolution() -> None:
    torch.manual_seed(0)
    x, weight = torch.rand(5, 2, 6, 7, dtype=torch.float64), torch.randn(3, 2, 3, 3, dtype=torch.float64)
    columns = F.conv2d(x, weight, padding=1).transpose(0, 1).flatten(1)
    mean, var = statistics_of_patches(x, weight)
    assert (mean - columns.mean(1)).abs().max() < 1e-12
    assert (var - columns.var(1, correction=0)).abs().max() < 1e-12


@pytest.mark.parametrize("inside", [1, 3])
def test_the_channels_stay_last_from_the_input_on(inside: int) -> None:
    x = torch.rand(5, inside, 8, 9)
    assert torch.equal(channels_last(x), x)
    assert channels_last(channels_last(x)).stride() == channels_last(x).stride() == (72 * inside, 1, 9 * inside, inside)
    blocks = ConvBlocks(ConvBlock(inside, 6), ConvBlock(6, 4)).to(memory_format=torch.channels_last)
    assert blocks[0](channels_last(x)).is_contiguous(memory_format=torch.channels_last)


def test_half_precision_reaches_the_convolutions() -> None:
    blocks = ConvBlocks(ConvBlock(1, 6), ConvBlock(6, 4))
    x = torch.rand(9, 1, 8, 8)
    exact = plain(copy.deepcopy(blocks), x, None)
    with torch.autocast("cpu", torch.bfloat16):
        found = blocks(x)
        assert blocks[1][0](x.expand(-1, 6, -1, -1)).dtype == torch.bfloat16
    assert (found - exact).abs().max() < 0.05 * exact.abs().max()
    found.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in blocks.parameters())
