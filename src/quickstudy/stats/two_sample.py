"""How far new examples lie from those that a model learned from. Pure: vectors in, numbers out.

Three questions, as no number answers them all:

- Is there a difference beyond chance? The kernel two-sample test: the maximum mean discrepancy (MMD) of the two sets of
  embeddings and its p-value by permutation (Gretton et al. 2012, "A Kernel Two-Sample Test", JMLR 13,
  https://jmlr.org/papers/v13/gretton12a.html).
- Is it large? With many examples any difference is beyond chance. So the same kernel's witness function classifies each
  example, new or known, without having seen any of its own unit; its AUC is 0.5 where nothing tells them apart and 1
  where everything does (a classifier two-sample test: Lopez-Paz and Oquab 2017, https://arxiv.org/abs/1610.06545).
- Which examples? Those farthest from anything learned.

Examples of one speaker, drawer, script or class are not independent of each other, and a meta-learner is always asked
about classes that it has not learned. Permuting single examples would call each of them drift. So whole units are
permuted: the new classes are compared with as many of the known ones, speakers with speakers. What is permuted is what
the null hypothesis takes to be exchangeable; where there are several kinds of unit, the largest p-value counts, so that
the test keeps its level whichever kind is the one that matters.

There is no drift of class labels here: each task brings labels of its own, which no other task knows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quickstudy.config import Drift as Policy

EXAMPLE = "example"
"""The unit where there is no larger one: every example by itself."""


@dataclass(frozen=True)
class Sample:
    """Embedded examples, and what each belongs to."""

    vectors: np.ndarray
    """[n, D]"""
    units: Mapping[str, Sequence[str]]
    """kind of unit (domain, group, class) → the unit of each example [n]. The same name on both sides of a comparison
    is the same unit."""

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class Test:
    """The two-sample test for one kind of unit."""

    kind: str
    units: int
    """of the new examples"""
    reference_units: int
    shared: int
    """units that are on both sides; of these single examples are permuted"""
    mmd: float
    """the square root of the biased estimate of MMD²; 0 where the two agree, at most √2"""
    p: float


@dataclass(frozen=True)
class Distance:
    """How far new examples lie from one reference."""

    tests: tuple[Test, ...]
    """one for each kind of unit that can show anything"""
    skipped: Mapping[str, str]
    """kind → why it was not tested"""
    auc: float
    """of telling new examples from known ones: 0.5 by chance, 1 for sure"""
    far: float
    """share of the new examples that are farther from what was learned than 95% of what was learned is from the rest:
    0.05 by chance"""
    novelty: np.ndarray
    """of each new example [n]: its distance to the nearest known one, over that 95% quantile. Known ones have their own
    unit left out, as no new class, script or speaker has another of its own there; but where each new unit is known"""

    @property
    def deciding(self) -> Test:
        """The test with the largest p-value."""
        return max(self.tests, key=lambda test: test.p)

    @property
    def p(self) -> float:
        return self.deciding.p


def measure(reference: Sample, new: Sample, policy: Policy, seed: int, least: float | None = None) -> Distance:
    """Compare new examples with those that were learned from. The same arguments give the same bits.

    Args:
        reference, new: a few thousand examples each at most, as all are compared with all.
        policy: ``permutations``, and ``fewest`` examples of a side.
        least: the p-value that must be within reach of a kind of unit for it to be tested; by default
            ``policy.significance``.

    Raises:
        ValueError: too few examples, vectors of different lengths, or a number that is none.
    """
    for name, sample in (("reference", reference), ("new", new)):
        if len(sample) < policy.fewest:
            raise ValueError(f"{len(sample)} {name} examples, at least {policy.fewest} are needed")
        if not np.isfinite(sample.vectors).all():
            raise ValueError(f"embeddings of {name} examples hold values that are no finite numbers")
    if reference.vectors.shape[1] != new.vectors.shape[1]:
        raise ValueError(f"vectors of {new.vectors.shape[1]} and {reference.vectors.shape[1]} dimensions")
    random = np.random.default_rng(seed)
    is_new = np.arange(len(reference) + len(new)) >= len(reference)
    kernel = gaussian_kernel(np.concatenate([reference.vectors, new.vectors]).astype(np.float64))
    within = policy.significance if least is None else least
    tests: list[Test] = []
    skipped: dict[str, str] = {}
    numbered: list[np.ndarray] = []
    kinds = [kind for kind in reference.units if kind in new.units]
    for kind in [*kinds, EXAMPLE]:
        if kind == EXAMPLE and tests:
            continue  # what comes in larger units does not come one by one
        units = _numbered(reference, new, kind)
        ours, theirs = np.unique(units[is_new]), np.unique(units[~is_new])
        chosen = _alike(units, is_new, random)
        reach = math.exp(-_log_arrangements(units[chosen], is_new[chosen]))
        if kind != EXAMPLE and (min(len(ours), len(theirs)) < 2 or reach > within):
            skipped[kind] = f"{len(ours)} against {len(theirs)} are too few"
            continue
        square, p = mmd_test(kernel[np.ix_(chosen, chosen)], units[chosen], is_new[chosen], policy.permutations, random)
        shared = len(np.intersect1d(ours, theirs))
        tests.append(Test(kind, len(ours), len(theirs), shared, math.sqrt(max(square, 0.0)), p))
        numbered.append(units)
    auc = witness_auc(kernel, np.stack(numbered), is_new)
    strange = [units for units, test in zip(numbered, tests, strict=True) if test.shared < test.units]
    novelty = _novelty(reference.vectors, new.vectors, strange)
    return Distance(tuple(tests), skipped, auc, float((novelty > 1).mean()), novelty)


def gaussian_kernel(vectors: np.ndarray) -> np.ndarray:
    """exp(−d² / 2σ²), σ the median distance of the pooled examples (Gretton et al. 2012, section 8). [n, D] → [n, n]"""
    lengths = (vectors**2).sum(1)
    squares = np.maximum(lengths[:, None] + lengths - 2 * vectors @ vectors.T, 0)
    np.fill_diagonal(squares, 0)
    width = float(np.median(squares[np.triu_indices(len(vectors), 1)]))
    kernel: np.ndarray = np.exp(-squares / (2 * width or 1.0))
    return kernel


def mmd_test(
    kernel: np.ndarray, units: np.ndarray, is_new: np.ndarray, permutations: int, random: np.random.Generator
) -> tuple[float, float]:
    """MMD² (biased estimate) of new and known examples, and its p-value by permutation of units.

    A unit that is on one side alone changes sides whole, as many units as are new; in a unit that is on both, examples
    change sides. p = (1 + number of permutations with as large an MMD²) / (1 + permutations), which is at most α with
    probability α or less, whatever the number of permutations.

    Args:
        kernel: [n, n]
        units: int [n]
        is_new: bool [n]
    """
    sides = np.concatenate([is_new[None], _exchanged(units, is_new, permutations, random)])
    weights = sides / sides.sum(1, keepdims=True) - ~sides / (~sides).sum(1, keepdims=True)  # [1 + B, n]
    squares = ((weights @ kernel) * weights).sum(1)
    as_large = squares[1:] >= squares[0] * (1 - 1e-9) - 1e-12  # the same arrangement, added up in another order
    return float(squares[0]), float((1 + as_large.sum()) / (1 + permutations))


def witness_auc(kernel: np.ndarray, units: np.ndarray, is_new: np.ndarray) -> float:
    """AUC of the kernel's witness function, mean k(x, new) − mean k(x, known), where each example x is judged without
    what shares a unit of any kind with it. Where that leaves nothing of a side, without itself alone.

    Args:
        kernel: [n, n]
        units: int [kinds, n]
        is_new: bool [n]
    """
    apart = (units[:, :, None] != units[:, None]).all(0)
    means = []
    for side in (is_new, ~is_new):
        others = apart & side
        alone = ~others.any(1)
        others[alone] = side & ~np.eye(len(kernel), dtype=bool)[alone]
        means.append((kernel * others).sum(1) / others.sum(1))
    return _auc(means[0] - means[1], is_new)


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for there being several (Holm 1979, "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics 6(2)): those at most α err, all together, with probability α."""
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = largest
    return adjusted


def _exchanged(units: np.ndarray, is_new: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """bool [count, n]: who is new in each permutation."""
    number = int(units.max()) + 1
    new_of = np.bincount(units, is_new, number)
    size = np.bincount(units, minlength=number)
    whole = np.flatnonzero((size > 0) & ((new_of == 0) | (new_of == size)))
    sides = np.zeros((count, number), dtype=bool)
    sides[:, whole] = random.permuted(np.tile(new_of[whole] > 0, (count, 1)), axis=1)
    result = sides[:, units]
    mixed = np.flatnonzero(~np.isin(units, whole))
    if len(mixed):
        by_unit = mixed[np.argsort(units[mixed], kind="stable")]
        # Sorted by unit and then by chance: places stay with their unit, and are shuffled within it.
        order = by_unit[np.argsort(units[by_unit] + random.random((count, len(by_unit))), axis=1)]
        np.put_along_axis(result, order, np.broadcast_to(is_new[by_unit], order.shape), axis=1)
    return result


def _log_arrangements(units: np.ndarray, is_new: np.ndarray) -> float:
    """Natural logarithm of how many arrangements the permutations choose from; no p-value is below one over that."""
    number = int(units.max()) + 1
    new_of, size = np.bincount(units, is_new, number), np.bincount(units, minlength=number)
    mixed = (new_of > 0) & (new_of < size)
    found = sum(_log_choose(int(n), int(k)) for n, k in zip(size[mixed], new_of[mixed], strict=True))
    whole = (size > 0) & ~mixed
    return found + _log_choose(int(whole.sum()), int((new_of[whole] > 0).sum()))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _alike(units: np.ndarray, is_new: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Rows such that a unit of one side is no larger than is usual on the other: units that are measured the more
    exactly on one side would not be exchangeable. Where all new units are known, the known ones that are not among the
    new say nothing and are left out."""
    keep = np.ones(len(units), dtype=bool)
    if np.isin(units[is_new], units[~is_new]).all():
        keep = is_new | np.isin(units, units[is_new])
    usual = [np.median(np.unique(units[keep & side], return_counts=True)[1]) for side in (is_new, ~is_new)]
    most = max(1, int(min(usual)))
    shuffled = random.permutation(len(units))
    order = shuffled[np.lexsort((is_new[shuffled], units[shuffled]))]  # unit by unit, side by side, by chance within
    start = np.r_[True, (units[order][1:] != units[order][:-1]) | (is_new[order][1:] != is_new[order][:-1])]
    place = np.arange(len(order)) - np.maximum.accumulate(np.where(start, np.arange(len(order)), 0))
    keep[order[place >= most]] = False
    return np.flatnonzero(keep)


def _numbered(reference: Sample, new: Sample, kind: str) -> np.ndarray:
    """int [n + m]: a number for each unit."""
    if kind == EXAMPLE:
        return np.arange(len(reference) + len(new))
    names = [*reference.units[kind], *new.units[kind]]
    return np.unique(np.array(names), return_inverse=True)[1].reshape(-1)


def _novelty(reference: np.ndarray, new: np.ndarray, strange: list[np.ndarray]) -> np.ndarray:
    """[len(new)]: see `Distance.novelty`. ``strange``: units [n + m] by kind, of the kinds in which some are new."""
    known, asked = reference.astype(np.float64), new.astype(np.float64)
    n = len(known)
    itself = np.eye(n, dtype=bool)
    own, other = np.zeros((n, n), dtype=bool), np.zeros((len(asked), n), dtype=bool)
    for units in strange:
        own |= units[:n, None] == units[:n]
        other |= units[n:, None] == units[:n]
    usual = _nearest(known, known, own | itself)
    usual = usual[np.isfinite(usual)]
    far = float(np.quantile(usual, 0.95)) if len(usual) else 0.0
    nearest = _nearest(asked, known, other)
    nearest = np.where(np.isfinite(nearest), nearest, _nearest(asked, known, np.zeros_like(other)))
    return nearest / (far or 1.0)


def _nearest(x: np.ndarray, y: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Of each row of x the distance to the nearest row of y that is not left out (bool [len(x), len(y)])."""
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    distances: np.ndarray = np.sqrt(np.where(left_out, np.inf, np.maximum(squares, 0)).min(1))
    return distances


def _auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive has a higher score than a negative; ties count half."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    p, n = int(positive.sum()), int((~positive).sum())
    return float((ranks[place][positive].sum() - p * (p + 1) / 2) / (p * n))
