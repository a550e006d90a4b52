"""Prototypes and a transformer that reads the whole task: f + α · g, α learned from 0.

g reads the support vectors with their targets and a query, and answers in one forward pass: nothing is fitted (CAML,
Fifty et al. 2024, https://arxiv.org/abs/2310.10971; TabPFN, Hollmann et al. 2023, https://arxiv.org/abs/2207.01848). A
target is read as the code of its class, and the answer is the code that comes out. A class has no weights of its own,
so that a task may have any number of ways.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quickstudy.learners.learner import State, VectorLearner, class_sums, nearest

LAYERS = 2
HEED = 0.1  # α that g learns by, at least
LAST = torch.iinfo(torch.int64).max


class InContextLearner(VectorLearner):
    """Nearest class mean, plus α times how well what a query became agrees with the code of each class.

    While it trains, the codes of a task are drawn; afterwards class n has code n. No code means more than another, so
    that only chance can tell one assignment from another.

    Args:
        dimension: D of the encoders' vectors, and the width of g.
        heads: attention heads of g.
    """

    codes: Tensor
    """[D, D]: orthonormal rows, not learned. The same on every machine, so that a model need not carry them."""

    def __init__(self, dimension: int, heads: int):
        super().__init__()
        codes = torch.linalg.qr(_noise(0, dimension, dimension)).Q
        self.scale = dimension**0.5  # of a token: what a layer adds to it is of that size
        self.register_buffer("codes", codes.to(torch.get_default_dtype()), persistent=False)
        self.read = nn.Linear(dimension, dimension, bias=False)  # vectors
        self.embed = nn.Linear(dimension, dimension, bias=False)  # codes, where they enter and where they come out
        # Begin with vectors in one half of a token and codes in the other: where they overlap, g has first to learn to
        # tell them apart, and learns little else (CAML sets them side by side, in a wider token).
        half = dimension // 2
        for weight, own in ((self.read.weight, slice(half)), (self.embed.weight, slice(half, None))):
            nn.init.zeros_(weight)
            nn.init.orthogonal_(weight[own], gain=2**0.5)
        self.unknown = nn.Parameter(torch.zeros(dimension))  # stands where a query has no code
        self.layers = nn.ModuleList(Layer(dimension, heads) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(dimension)
        self.alpha = nn.Parameter(torch.zeros(()))

    def adapt(self, support: Tensor, targets: Tensor, way: int) -> State:
        """prototypes: [B, N, D]; codes: [B, N, D], embedded; keys, values: [B, layers, S, D], what queries read; real:
        bool [B, S], false where a row is padding."""
        onehot, sums, count = class_sums(support, targets, way)
        prototypes = (sums / count.clamp(min=1)[..., None]).masked_fill((count == 0)[..., None], torch.nan)

        table = self._table(way)
        codes = self.embed(table[_draw(support, onehot, len(self.codes))] if self.training else table[:way])
        codes = codes.expand(len(support), way, -1)
        real = targets >= 0
        tokens = self._tokens(support) + onehot @ codes * self.scale
        keys, values = [], []
        for i, layer in enumerate(self.layers):
            k, v = cast(Layer, layer).keys_values(tokens)
            keys.append(k)
            values.append(v)
            if i + 1 < LAYERS:  # what the last layer makes of the support set, nobody reads
                tokens = layer(tokens, k, v, real, itself=False)
        return {
            "prototypes": prototypes,
            "codes": codes,
            "keys": torch.stack(keys, 1),
            "values": torch.stack(values, 1),
            "real": real,
        }

    def effort(self, examples: int, way: int, dimension: int) -> float:
        """S²·D and S·D² for each layer, S·N·D for the codes."""
        return LAYERS * float(examples) * dimension * (2 * examples + 12 * dimension) + 2.0 * examples * way * dimension

    def score(self, state: State, query: Tensor) -> Tensor:
        tokens = self._tokens(query) + self.unknown
        for i, layer in enumerate(self.layers):
            tokens = layer(tokens, state["keys"][:, i], state["values"][:, i], state["real"], itself=True)
        g = self.norm(tokens) @ state["codes"].transpose(1, 2)
        logits = nearest(state["prototypes"], query) + self.alpha * g
        # That adds 0, but has a gradient: α = 0 would keep g from learning, and a first step of α that goes below 0 by
        # chance would teach it the wrong way round.
        return logits + (HEED - self.alpha).clamp(min=0).detach() * (g - g.detach())

    def _tokens(self, vectors: Tensor) -> Tensor:
        return self.read(F.normalize(vectors, dim=-1)) * self.scale

    def _table(self, way: int) -> Tensor:
        """[max(N, D), D]: the codes; those beyond D are random unit vectors, nearly orthogonal to each other."""
        dimension = len(self.codes)
        if way <= dimension:
            return self.codes
        return torch.cat([self.codes, F.normalize(_noise(dimension, way, dimension), dim=1).to(self.codes)])


class Layer(nn.Module):
    """A transformer layer, normalised before attention and before its network. Tokens read the support set; a query
    reads itself besides, never another query."""

    def __init__(self, dimension: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(dimension)
        self.query = nn.Linear(dimension, dimension, bias=False)
        self.key = nn.Linear(dimension, dimension, bias=False)
        self.value = nn.Linear(dimension, dimension, bias=False)
        self.out = nn.Linear(dimension, dimension, bias=False)
        self.network = nn.Sequential(
            nn.LayerNorm(dimension), nn.Linear(dimension, dimension), nn.GELU(), nn.Linear(dimension, dimension)
        )
        # Attention begins by handing on what it finds as it is. So codes come out as they went in, and an answer says
        # which attention would have been the right one.
        nn.init.xavier_uniform_(self.query.weight)
        nn.init.xavier_uniform_(self.key.weight)
        nn.init.orthogonal_(self.value.weight)
        with torch.no_grad():
            self.out.weight.copy_(self.value.weight.T)

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S, D] → two of [B, S, D]"""
        tokens = self.before(tokens)
        return self.key(tokens), self.value(tokens)

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, real: Tensor, itself: bool) -> Tensor:
        """Tokens [B, T, D] read the support set's keys and values [B, S, D] where ``real`` [B, S] is true, and each
        itself if so told."""
        normal = self.before(tokens)
        query, keys, values = self._split(self.query(normal)), self._split(keys), self._split(values)
        scores = (query @ keys.transpose(2, 3)).masked_fill(~real[:, None, None], -torch.inf)  # [B, heads, T, S]
        scale = query.shape[-1] ** -0.5
        if itself:
            own_key, own_value = self._split(self.key(normal)), self._split(self.value(normal))
            own = (query * own_key).sum(-1, keepdim=True)
            weights = (torch.cat([scores, own], -1) * scale).softmax(-1)
            mixed = weights[..., :-1] @ values + weights[..., -1:] * own_value
        else:
            mixed = (scores * scale).softmax(-1) @ values
        tokens = tokens + self.out(mixed.transpose(1, 2).flatten(2))
        return tokens + self.network(tokens)

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, D] → [B, heads, T, D / heads]"""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def _draw(support: Tensor, onehot: Tensor, dimension: int) -> Tensor:
    """int64 [B, N]: which code each class has, drawn at random from D codes, or from as many as the task has classes.

    A draw is a hash of the task's own support vectors, bit by bit. So it needs no generator whose place in its stream a
    resumed run would have to know, and a task has the same codes whatever its batch, the order of its rows and the
    names of its classes.
    """
    rows = support.detach().double().view(torch.int64).sum(-1)  # [B, S]; integers add up alike in any order
    classes = (rows[..., None] * onehot.long()).sum(1)  # [B, N]
    present = onehot.any(1)
    rank = classes.masked_fill(~present, LAST).argsort(1).argsort(1)
    code = torch.arange(max(dimension, onehot.shape[2]), device=support.device)
    shuffled = _mix(rows.sum(1)[:, None] + code)
    shuffled = shuffled.masked_fill(code >= present.sum(1).clamp(min=dimension)[:, None], LAST).argsort(1)
    return shuffled.gather(1, rank)


def _noise(start: int, stop: int, dimension: int) -> Tensor:
    """float64 [stop - start, D], from -1 to 1: rows of an endless table of random numbers, alike in every torch."""
    return (_mix(torch.arange(start * dimension, stop * dimension)).double() / 2**62 - 1).view(-1, dimension)


def _mix(x: Tensor) -> Tensor:
    """A hash, int64 → int64, never below 0: the last step of MurmurHash3 with the numbers of Stafford's Mix01."""
    x = (x ^ (x >> 31)) * 0x7FB5D329728EA185
    x = (x ^ (x >> 27)) * (0x81DADEF4BC2DD44D - 2**64)
    return x ^ (x >> 33)  # >> repeats the sign, ^ clears it
