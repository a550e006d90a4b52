"""What a support set says of queries that are none of its classes."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.kinds import openset
from quickstudy.kinds.openset import fit, least_squares, unknown
from quickstudy.learners.kernel import RIDGE, SHARPNESS, gaussian

D = 32


def classes(way: int, seed: int = 0) -> Tensor:
    return torch.randn(way, D, generator=torch.Generator().manual_seed(seed))


def examples(centres: Tensor, shots: int, seed: int) -> tuple[Tensor, Tensor]:
    noise = torch.randn(len(centres) * shots, D, generator=torch.Generator().manual_seed(seed))
    targets = torch.arange(len(centres)).repeat_interleave(shots)
    return centres[targets] + 0.7 * noise, targets


def test_other_classes_look_less_known_than_its_own() -> None:
    centres = classes(20)
    task = fit(*examples(centres[:10], 5, 1), 0.05)
    own, other = (unknown(task, examples(part, 20, 2)[0]) for part in (centres[:10], centres[10:]))
    assert (own[:, None] < other).double().mean() > 0.95
    assert (other > task.threshold).double().mean() > 0.8


def measured(shots: int, asked: float) -> float:
    rates = []
    for seed in range(30):
        centres = classes(10, seed)
        task = fit(*examples(centres, shots, 100 + seed), asked)
        rates.append((unknown(task, examples(centres, 50, 200 + seed)[0]) > task.threshold).double().mean().item())
    return sum(rates) / len(rates)


@pytest.mark.parametrize("asked", [0.05, 0.2])
def test_the_false_alarm_rate_is_the_one_asked_for(asked: float) -> None:
    assert 0.7 * asked < measured(20, asked) < 1.3 * asked


@pytest.mark.parametrize("shots", [2, 5])
def test_with_few_examples_it_errs_on_the_side_of_fewer_false_alarms(shots: int) -> None:
    assert measured(shots, 0.1) < 0.11


def test_leaving_out_in_closed_form_is_leaving_out() -> None:
    support, targets = examples(classes(4), 3, 1)
    x = F.normalize(support, dim=-1).double()
    y = F.one_hot(targets).double()
    inverse = torch.linalg.inv(gaussian(x, x, SHARPNESS) + RIDGE * torch.eye(len(x), dtype=x.dtype))
    prototypes = y.T @ x / y.sum(0)[:, None]
    told = openset._left_out(x, y, prototypes, inverse.diagonal(), inverse @ y)
    for i in range(len(x)):
        rest = torch.arange(len(x)) != i
        assert told[i].item() == pytest.approx(
            unknown(fit(support[rest], targets[rest], 0.1), support[i : i + 1]).item(), abs=1e-4
        )


def test_one_shot_refuses_nothing_as_no_rate_can_be_known() -> None:
    task = fit(*examples(classes(5), 1, 1), 0.05)
    assert task.threshold == math.inf
    assert not (unknown(task, 100 * torch.eye(D)) > task.threshold).any()


def test_classes_of_one_example_do_not_count_for_the_threshold() -> None:
    support, targets = examples(classes(5), 4, 1)
    some = torch.cat([torch.arange(16), torch.tensor([16])])  # four classes of 4, one of 1
    task = fit(support[some], targets[some], 0.05)
    assert math.isfinite(task.threshold) and torch.isfinite(unknown(task, support)).all()


def test_a_lower_rate_is_a_higher_threshold_also_beyond_what_was_seen() -> None:
    support, targets = examples(classes(5), 5, 1)
    thresholds = [fit(support, targets, rate).threshold for rate in (0.5, 0.1, 0.05, 0.01, 0.001)]
    assert thresholds == sorted(thresholds) and thresholds[-1] > thresholds[-2]


def test_length_does_not_matter_and_examples_twice_do_no_harm() -> None:
    support, targets = examples(classes(3), 4, 1)
    query = examples(classes(3), 2, 2)[0]
    twice = fit(torch.cat([support, support]), torch.cat([targets, targets]), 0.1)
    assert torch.isfinite(unknown(twice, query)).all()
    a, b = fit(support, targets, 0.1), fit(7 * support, targets, 0.1)
    torch.testing.assert_close(unknown(a, query), unknown(b, 3 * query))


def test_least_squares_answers_its_own_classes() -> None:
    centres = classes(10)
    task = fit(*examples(centres, 5, 1), 0.05)
    query, targets = examples(centres, 20, 2)
    assert (least_squares(task, query).argmax(1) == targets).double().mean() > 0.9
