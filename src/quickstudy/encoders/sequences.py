"""Networks over sequences of unlike length: vectors [n, L, C], and a mask [n, L] of what is real, padding last.

How much padding there is changes nothing. All is made of plain tensor operations, because gradient learners map over
tasks and differentiate twice: torch's GRU cannot be mapped and its attention not differentiated twice. On a processor
the recurrent layers here take the time of torch's.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Cell = Literal["gru", "lstm"]


def pool(x: Tensor, real: Tensor) -> Tensor:
    """Mean and maximum over what is real: [n, L, C], [n, L] → [n, 2C]; 0 where nothing is."""
    count = real.sum(1)[:, None]
    mean = x.masked_fill(~real[..., None], 0.0).sum(1) / count.clamp(min=1)
    highest = x.masked_fill(~real[..., None], -torch.inf).amax(1)
    return torch.cat([mean, highest.masked_fill(count == 0, 0.0)], dim=1)


class Summary(nn.Module):
    """A sequence as one vector: `pool`, projected. [n, L, C], [n, L] → [n, D]

    Batch norm takes away what all examples have in common. Without it their vectors are nearly parallel at first: after
    60 steps on spoken words an LSTM reached 0.44, with it 0.80 (5-way 1-shot).
    """

    def __init__(self, channels: int, dimension: int):
        super().__init__()
        self.project = nn.Linear(2 * channels, dimension, bias=False)
        self.norm = nn.BatchNorm1d(dimension)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        return self.norm(self.project(pool(x, real)))


class Convolutions(nn.Module):
    """Residual convolutions of three places, twice as far apart in each layer as in the one before (ByteNet,
    Kalchbrenner et al. 2016, https://arxiv.org/abs/1610.10099): four layers see 31 places. [n, L, C] → [n, L, C]"""

    def __init__(self, channels: int, layers: int = 4):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(layers))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=2**i, dilation=2**i) for i in range(layers)
        )

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            inside = norm(x).masked_fill(~real[..., None], 0.0)  # as beyond the end
            x = x + convolution(inside.transpose(1, 2)).transpose(1, 2).relu()
        return x


class Recurrent(nn.Module):
    """A GRU (Cho et al. 2014, https://arxiv.org/abs/1406.1078) or an LSTM whose forget gates begin open (Jozefowicz et
    al. 2015, https://proceedings.mlr.press/v37/jozefowicz15.html), read forwards and backwards:
    [n, L, inside] → [n, L, 2·hidden]. The equations and the order of the gates are those of torch's layers.
    """

    def __init__(self, cell: Cell, inside: int, hidden: int):
        super().__init__()
        self.step: Callable[..., tuple[Tensor, ...]] = gru_step if cell == "gru" else lstm_step
        self.memories = 1 if cell == "gru" else 2
        gates = (3 if cell == "gru" else 4) * hidden
        # The first dimension is the direction.
        self.weight_in = nn.Parameter(torch.empty(2, inside, gates).uniform_(-(hidden**-0.5), hidden**-0.5))
        self.weight_again = nn.Parameter(torch.empty(2, hidden, gates).uniform_(-(hidden**-0.5), hidden**-0.5))
        self.bias_in = nn.Parameter(torch.zeros(2, gates))
        self.bias_again = nn.Parameter(torch.zeros(2, gates))
        if cell == "lstm":
            with torch.no_grad():
                self.bias_in[:, hidden : 2 * hidden] = 1.0

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        n, length, _ = x.shape
        # Turning round what is real leaves the padding last. Done twice, all is as before.
        place = torch.arange(length, device=x.device)
        turn = torch.where(real, real.sum(1, keepdim=True) - 1 - place, place)[..., None]
        both = torch.stack([x, torch.take_along_dim(x, turn, 1)])  # [2, n, L, inside]
        given = torch.baddbmm(self.bias_in[:, None], both.flatten(1, 2), self.weight_in).unflatten(1, (n, length))
        state = (x.new_zeros(2, n, self.weight_again.shape[1]),) * self.memories
        outputs = []
        for now in given.unbind(2):
            state = self.step(now, torch.baddbmm(self.bias_again[:, None], state[0], self.weight_again), *state)
            outputs.append(state[0])
        forwards, backwards = torch.stack(outputs, 2)  # [n, L, hidden] each
        return torch.cat([forwards, torch.take_along_dim(backwards, turn, 1)], dim=2)


def gru_step(given: Tensor, again: Tensor, hidden: Tensor) -> tuple[Tensor]:
    """What the input and the hidden state say, [..., 3H] each, and the hidden state → the next one [..., H]."""
    (r_in, z_in, new_in), (r, z, new) = given.chunk(3, -1), again.chunk(3, -1)
    new = torch.tanh(new_in + torch.sigmoid(r_in + r) * new)
    return (torch.lerp(new, hidden, torch.sigmoid(z_in + z)),)


def lstm_step(given: Tensor, again: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """What the input and the hidden state say, [..., 4H] each, and the state → the next state [..., H] twice."""
    enter, forget, new, leave = (given + again).chunk(4, -1)
    memory = torch.sigmoid(forget) * memory + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(memory), memory


class Transformer(nn.Module):
    """A transformer encoder (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), normalised before each part
    (Xiong et al. 2020, https://arxiv.org/abs/2002.04745). [n, L, C] → [n, L, C]"""

    def __init__(self, channels: int, heads: int, layers: int = 2):
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(channels, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        first = torch.arange(x.shape[1], device=x.device) == 0
        seen = real | first  # so that what looks at nothing but padding looks at something: a softmax of nothing is NaN
        x = x + positions(x.shape[1], x.shape[2]).to(x)
        for layer in self.layers:
            x = layer(x, seen)
        return self.norm(x)


class TransformerLayer(nn.Module):
    """Attention, then a network of two layers at each place; both are added to what came in."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        size = max(channels // heads, 1)
        self.heads = (3, heads, size)
        self.norm_attention = nn.LayerNorm(channels)
        self.ask = nn.Linear(channels, 3 * heads * size)
        self.answer = nn.Linear(heads * size, channels)
        self.norm_places = nn.LayerNorm(channels)
        self.places = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        query, key, value = self.ask(self.norm_attention(x)).unflatten(2, self.heads).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(2, 3) * self.heads[2] ** -0.5  # [n, heads, L, L]
        weights = scores.masked_fill(~seen[:, None, None], -torch.inf).softmax(-1)
        x = x + self.answer((weights @ value).transpose(1, 2).flatten(2))
        return x + self.places(self.norm_places(x))


def positions(length: int, channels: int) -> Tensor:
    """[L, C]: sines and cosines of Vaswani et al. 2017, section 3.5, the sines first."""
    half = (channels + 1) // 2
    rate = 10_000 ** (-torch.arange(half) / half)
    angle = torch.arange(length)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :channels]
