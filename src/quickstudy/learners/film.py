"""Task-conditioned modulation: each channel of the encoder times γ = 1 + α · g_γ, plus β = α · g_β.

CNAPs (Requeima et al. 2019, https://arxiv.org/abs/1906.07697) with FiLM layers (Perez et al. 2018,
https://arxiv.org/abs/1709.07871): g reads the support set as a whole and says how the encoder should look at this task.
A class is then the mean of its support vectors (Snell et al. 2017) in place of the paper's generated linear classifier,
so that the start, α = 0, is a prototypical network.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from quickstudy.encoders.blocks import Modulated
from quickstudy.errors import QuickstudyError
from quickstudy.learners.learner import State, WeightLearner, class_sums, nearest

TASK = 64  # numbers that describe a task, as in the paper
TAU = 10.0  # at the start
CHUNK = 64  # rows


class FilmLearner(WeightLearner):
    """Prototypes by an encoder whose channels the task scales and shifts.

    Args:
        dimension: D of the encoders' vectors.
        encoders: by modality. Every modulated layer gets a generator of its own; the set encoder is one for all.

    Raises:
        QuickstudyError: an encoder that cannot be modulated.
    """

    def __init__(self, dimension: int, encoders: nn.ModuleDict):
        super().__init__()
        self.set_encoder = nn.Sequential(nn.Linear(dimension, TASK), nn.ReLU(), nn.Linear(TASK, TASK))
        self.generators = nn.ModuleDict()
        for modality, encoder in encoders.items():
            if not isinstance(encoder, Modulated):
                raise QuickstudyError(
                    f"the {modality} encoder {type(encoder).__name__} has no channels that a task could modulate",
                    where="model.learner = film",
                    fix="Choose another learner, or another encoder",
                )
            self.generators[modality] = Generators(encoder.channels)
        # τ of each modality: how sharply its vectors tell classes apart, in the squared length of the vectors.
        self.log_tau = nn.ParameterDict({m: nn.Parameter(torch.tensor(math.log(TAU))) for m in encoders})
        self.alpha = nn.Parameter(torch.zeros(()))
        self._encoders = dict(encoders.items())  # to know them again; being in a plain dict they do not become ours

    def adapt(self, encoder: nn.Module, support: Tensor, targets: Tensor, way: int) -> State:
        """prototypes: [B, N, D]; gamma and beta: [B, C], C the channels of all modulated layers, one after the other"""
        g_gamma, g_beta = self.generators[self._modality(encoder)](self._describe(encoder, support))
        gamma, beta = 1 + self.alpha * g_gamma, self.alpha * g_beta
        vectors = self._encode(encoder, support, gamma, beta)
        _, sums, count = class_sums(vectors, targets, way)
        return {"prototypes": sums / count[..., None], "gamma": gamma, "beta": beta}

    def score(self, encoder: nn.Module, state: State, query: Tensor) -> Tensor:
        return nearest(state["prototypes"], self._encode(encoder, query, state["gamma"], state["beta"]))

    def _modality(self, encoder: nn.Module) -> str:
        return next(modality for modality, own in self._encoders.items() if own is encoder)

    def _describe(self, encoder: nn.Module, support: Tensor) -> Tensor:
        """Tasks in numbers, [B, 64]: the mean over the support set [B, S, ...] of a network on its plain vectors."""
        vectors = _plain(encoder, support.flatten(0, 1)).unflatten(0, support.shape[:2])
        each = F.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5  # entries of about 1
        return self.set_encoder(each).mean(1)

    def _encode(self, encoder: nn.Module, arrays: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Arrays [B, n, ...], each as the modulation [B, C] of its task has it seen → [B, n, D], all of length √τ"""
        assert isinstance(encoder, Modulated)
        rows = arrays.flatten(0, 1)
        g, b = (each.repeat_interleave(arrays.shape[1], dim=0) for each in (gamma, beta))
        chunk, vectors = _chunk(rows), []
        for part, own_g, own_b in zip(rows.split(chunk), g.split(chunk), b.split(chunk), strict=True):
            layers = zip(own_g.split(encoder.channels, -1), own_b.split(encoder.channels, -1), strict=True)
            vectors.append(encoder(part, list(layers)))
        length = (self.log_tau[self._modality(encoder)] / 2).exp()
        return (F.normalize(torch.cat(vectors), dim=-1) * length).unflatten(0, arrays.shape[:2])


class Generators(nn.ModuleList):
    """A small network for each modulated layer. A task in numbers [B, 64] → g_γ and g_β [B, C]"""

    def __init__(self, channels: Sequence[int]):
        super().__init__(nn.Sequential(nn.Linear(TASK, TASK), nn.ReLU(), nn.Linear(TASK, 2 * n)) for n in channels)

    def forward(self, task: Tensor) -> tuple[Tensor, Tensor]:
        gammas, betas = zip(*(layer(task).chunk(2, dim=-1) for layer in self), strict=True)
        return torch.cat(gammas, dim=-1), torch.cat(betas, dim=-1)


def _plain(encoder: nn.Module, rows: Tensor) -> Tensor:
    """f_θ of arrays [n, ...] without a modulation, [n, D]; in training too by the running averages of the encoder.

    The statistics of a batch would take away what tells one task from another, and give them back when the model is
    asked; and the running averages, which are for modulated passes, would mix with those of plain ones.
    """
    if not encoder.training:
        return torch.cat([encoder(part) for part in rows.split(_chunk(rows))])
    # The gradient needs them as they are now: modulated passes write over them, and autograd does not notice.
    averages = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    encoder.eval()
    try:
        return functional_call(encoder, averages, (rows,))
    finally:
        encoder.train()


def _chunk(rows: Tensor) -> int:
    # Without gradients nothing is kept, and what fits the processor's cache is much faster.
    return len(rows) if torch.is_grad_enabled() else CHUNK
