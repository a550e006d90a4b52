"""Is a query of none of a task's classes? Open-set recognition from the support set alone.

A query is known as far as one class claims it, by two measures added up: 1 − its squared distance to the mean of the
class (Snell et al. 2017, prototypes), and what least squares with a Gaussian kernel answers, 1 at the examples of a
class and 0 far from all (Rifkin et al. 2003, regularized least-squares classification). The first tells what is far,
the second what lies between classes.

The threshold is a quantile of the scores of the examples themselves, each left out in turn: in closed form, as both
measures are linear in the labels (Rifkin & Lippert 2007, Notes on regularized least squares). Which quantile is that of
split conformal prediction (Vovk et al. 2005), used with examples that are left out as the jackknife does (Barber et al.
2021, https://arxiv.org/abs/1905.02928). A query meets one example more than an example that is left out, so that fewer
queries are refused than was asked for, the fewer the shots: from about 10 on the two rates agree.
"""

import math
from dataclasses import dataclass

import torch
from scipy.stats import t as student_t
from torch import Tensor
from torch.nn import functional as F

from quickstudy.learners.kernel import RIDGE, SHARPNESS, gaussian
from quickstudy.system.turns import give_way

AT_ONCE = 768
"""Examples whose kernel matrix is inverted by one call; of more it is done block by block."""
BLOCK = 256
FEWEST = 4  # examples that can be left out; fewer say nothing of a rate


@dataclass(frozen=True)
class OpenSet:
    """What a support set says of queries that belong to it."""

    vectors: Tensor
    """float32 [S, D], of length 1"""
    targets: Tensor
    """int64 [S]"""
    threshold: float
    """of `unknown`; ∞ where too few classes have a second example: then nothing is refused, as no rate can be known"""
    prototypes: Tensor
    """float32 [N, D]"""
    weights: Tensor
    """float32 [S, N], of the examples in what least squares answers"""


def fit(support: Tensor, targets: Tensor, false_alarm: float) -> OpenSet:
    """Choose the threshold.

    Args:
        support: [S, D]
        targets: int64 [S], 0 … way - 1
        false_alarm: share of queries of the task's own classes that may be called unknown.
    """
    vectors = F.normalize(support, dim=-1)
    x = vectors.double()
    y = F.one_hot(targets).double()  # [S, N]
    count = y.sum(0)
    prototypes = y.T @ x / count[:, None]
    give_way()
    diagonal, weights = _inverted(x, y)
    give_way()
    left_out = _left_out(x, y, prototypes, diagonal, weights)
    threshold = _quantile(left_out[(count > 1)[targets]], false_alarm)
    return OpenSet(vectors, targets, threshold, prototypes.float(), weights.float())


def effort(examples: int, way: int, dimension: int) -> float:
    """Return about how many products `fit` adds up, of S examples, N classes and D: two of single precision for one of
    double."""
    return 2.0 * examples**2 * (examples / 3 + dimension + way)


def least_squares(openset: OpenSet, query: Tensor) -> Tensor:
    """What each class claims of each query, about 0 … 1: [Q, D] → [Q, N]"""
    return _claims(openset, F.normalize(query, dim=-1))


def unknown(openset: OpenSet, query: Tensor) -> Tensor:
    """How unlike all classes each query is: [Q, D] → [Q], about 0 … 2, larger for less known."""
    unit = F.normalize(query, dim=-1)
    return 2 - (_closeness(unit, openset.prototypes) + _claims(openset, unit)).amax(-1)


def _claims(openset: OpenSet, query: Tensor) -> Tensor:
    """`least_squares` of queries of length 1."""
    return gaussian(query, openset.vectors, SHARPNESS) @ openset.weights


def _closeness(query: Tensor, prototypes: Tensor) -> Tensor:
    """1 − squared distance, of queries of length 1: [Q, D], [N, D] → [Q, N]"""
    return 2 * query @ prototypes.T - prototypes.square().sum(-1)


def _inverted(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Of the inverse of the kernel matrix of examples [S, D] the diagonal [S], and its product with y, [S, N]."""
    if len(x) <= AT_ONCE:
        inverse = torch.linalg.inv(gaussian(x, x, SHARPNESS) + RIDGE * torch.eye(len(x), dtype=x.dtype))
        return inverse.diagonal(), inverse @ y
    factor = _inverse_factor(x)
    diagonal = torch.zeros(len(x), dtype=x.dtype)
    half, weights = torch.empty_like(y), torch.zeros_like(y)
    for rows in _blocks(len(x)):
        own = factor[rows, : rows.stop]
        diagonal[: rows.stop] += own.square().sum(0)
        half[rows] = own @ y[: rows.stop]
        weights[: rows.stop] += own.T @ half[rows]
        give_way()
    return diagonal, weights


def _inverse_factor(x: Tensor) -> Tensor:
    """L⁻¹ [S, S], lower triangular, of the kernel matrix L Lᵀ: Cholesky's factor and its inverse, a block of rows after
    the other (Golub & Van Loan, Matrix Computations, 4.2), so that others have their turn between any two."""
    lower = torch.zeros(len(x), len(x), dtype=x.dtype)
    blocks = _blocks(len(x))
    for rows in blocks:
        for columns in blocks[: rows.start // BLOCK + 1]:
            part = gaussian(x[rows], x[columns], SHARPNESS)
            part -= lower[rows, : columns.start] @ lower[columns, : columns.start].T
            if rows == columns:
                part.diagonal().add_(RIDGE)
                lower[rows, rows] = torch.linalg.cholesky(part)
            else:
                above = lower[columns, columns]
                lower[rows, columns] = torch.linalg.solve_triangular(above.T, part, upper=True, left=False)
            give_way()
    for rows in blocks:  # in place: what of L stands below and to the right is still needed, what is above is not
        own = torch.linalg.inv(lower[rows, rows]).tril()
        before = lower[rows, : rows.start].clone()
        for columns in blocks[: rows.start // BLOCK]:
            lower[rows, columns] = -(own @ (before[:, columns.start :] @ lower[columns.start : rows.start, columns]))
            give_way()
        lower[rows, rows] = own
    return lower


def _blocks(count: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def _left_out(x: Tensor, y: Tensor, prototypes: Tensor, diagonal: Tensor, weights: Tensor) -> Tensor:
    """`unknown` of each example [S], had it not been there; without meaning for the only one of its class."""
    own = y.bool()
    count = (y @ y.sum(0)).clamp(min=2)[:, None]  # of the example's class
    others = (count * prototypes[own.int().argmax(1)] - x) / (count - 1)
    give_way()
    closeness = _closeness(x, prototypes)
    give_way()
    closeness[own] = (2 * x * others - others.square()).sum(-1)
    claims = y - weights / diagonal[:, None]
    return 2 - (closeness + claims).amax(-1)


def _quantile(scores: Tensor, false_alarm: float) -> float:
    """What a new score exceeds with that probability, from n that are like it."""
    n = len(scores)
    if n < FEWEST:
        return math.inf
    place = math.ceil((1 - false_alarm) * (n + 1))
    if place <= n:
        return float(scores.sort().values[place - 1])
    # Beyond the largest that was seen: as far as a new one of a normal distribution would lie.
    reach = float(student_t.ppf(1 - false_alarm, n - 1)) * math.sqrt(1 + 1 / n)
    return max(float(scores.max()), float(scores.mean()) + reach * float(scores.std()))
