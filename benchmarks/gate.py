"""How often the gate errs, and what it finds: thousands of pairs of models whose true difference is known.

    .venv/bin/python benchmarks/gate.py [--pairs 2000] [--seed 0] [--only WORD]
    .venv/bin/python benchmarks/gate.py --measure A.parquet B.parquet [C.parquet …]

A pair answers the episodes of the starter data (9 suites of 5 datasets, 3 numbers of shots, 600 episodes a cell) as two
models of ours do: each question is answered by both, by one of them or by none, as often as MEASURED says. Its true
difference varies by dataset, suite and cell as EFFECTS says. Both were measured on three trainings of ours of about
equal worth (other code, other steps, one with other data added), whose evaluations `--measure` reads
(build/evaluate/classify/episodes.parquet); EFFECTS are no less than the largest of the three pairs'. A gain is added
whether or not a cell has room for it. Of models of several kinds of task each kind answers such episodes, with its own
luck and its own true difference. The verdict is the production code's, with the policy of params.yaml and all its rules
where nothing else is said.

Prints two tables, the gate's rates and those of other intervals for the same question, and writes both to
benchmarks/results/gate.json. With --only it judges the pairs with that word in their name, and writes them in the place
of what is there of them.
"""

import argparse
import json
import time
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from quickstudy.config import Gate, load_settings
from quickstudy.evaluation.rules import Gains, decide
from quickstudy.stats.intervals import OURS, Cells, estimate

# suite: for 1, 5 and 10 shots the accuracy, the share of the questions that one of the two models alone answers, and
# the standard deviation over episodes of the difference in negative log likelihood (nats)
MEASURED: dict[str, list[tuple[float, float, float]]] = {
    "apidocs": [(0.487, 0.034, 0.047), (0.678, 0.028, 0.018), (0.738, 0.023, 0.013)],
    "digits": [(0.785, 0.105, 0.126), (0.922, 0.043, 0.042), (0.939, 0.039, 0.034)],
    "glyphs": [(0.97, 0.035, 0.077), (0.992, 0.007, 0.025), (0.994, 0.006, 0.018)],
    "phrasebook/cooking": [(0.544, 0.053, 0.061), (0.762, 0.032, 0.018), (0.863, 0.022, 0.012)],
    "phrasebook/finance": [(0.701, 0.049, 0.048), (0.915, 0.018, 0.014), (0.959, 0.009, 0.01)],
    "phrasebook/genre": [(0.789, 0.045, 0.05), (0.934, 0.019, 0.017), (0.973, 0.006, 0.011)],
    "phrasebook/sentiment": [(0.748, 0.039, 0.065), (0.888, 0.019, 0.019), (0.938, 0.01, 0.01)],
    "words": [(0.956, 0.043, 0.086), (0.988, 0.01, 0.027), (0.991, 0.008, 0.023)],
    "words@new-voice": [(0.933, 0.059, 0.103), (0.984, 0.012, 0.028), (0.987, 0.009, 0.023)],
}
QUESTIONS = {"digits": 50, "phrasebook/genre": 10, "phrasebook/sentiment": 10}  # an episode; else 25


LOOKS = 4


@dataclass(frozen=True)
class Effects:
    """Standard deviations of the true difference between equal models, in accuracy."""

    dataset: float
    suite: float
    cell: float


NONE = Effects(0, 0, 0)
EFFECTS = Effects(0.006, 0.0033, 0.005)
NATS, NATS_EFFECT = 1.0, 0.03  # of likelihood that come with an accuracy of 1; by which equal models differ by dataset
TIMED, NOISE = 5, 0.1  # episodes a cell, standard deviation of the logarithm of a time
BASELINE = 0.05  # that scikit-learn lies below
THESE, NON_INFERIOR = {"over": "episodes"}, {"score": "non-inferior"}


@dataclass(frozen=True)
class Scenario:
    name: str
    effects: Effects
    gain: float = 0.0
    loss: float = 0.0
    """true difference on the dataset words, whatever that on the others"""
    unequal: bool = False
    """the effects of one dataset are four times the others'"""
    policy: dict[str, Any] = field(default_factory=dict)
    looks: bool = False
    kinds: int = 1
    """of task; ``gain`` is of the first"""
    others: float = 0.0
    """true difference of the other kinds"""
    most: float | None = None
    """that may be promoted"""
    least: float | None = None
    """that has to be promoted"""


SCENARIOS = [
    Scenario("equal, datasets do not differ", NONE, most=0.05),
    Scenario("equal", EFFECTS, most=0.05),
    Scenario("equal, one dataset varies 4 times as much", EFFECTS, unequal=True, most=0.05),
    Scenario("equal, datasets do not differ, 4 looks", NONE, looks=True, most=0.05),
    Scenario("equal, 4 looks", EFFECTS, looks=True, most=0.05),
    Scenario("equal, one varies 4 times as much, 4 looks", EFFECTS, unequal=True, looks=True, most=0.05),
    Scenario("equal, over episodes, 4 looks", NONE, policy=THESE, looks=True, most=0.05),
    Scenario("1 point worse, non-inferior by 1", EFFECTS, gain=-0.01, policy=NON_INFERIOR, most=0.05),
    Scenario("+2 points", EFFECTS, gain=0.02, least=0.90),
    Scenario("+2 points, 4 looks", EFFECTS, gain=0.02, looks=True, least=0.90),
    Scenario("+1 point", EFFECTS, gain=0.01),
    Scenario("equal, non-inferior by 1", EFFECTS, policy=NON_INFERIOR),
    Scenario("+3 points, −3 on one dataset", EFFECTS, gain=0.03, loss=-0.03, most=0.05),
    Scenario("+3 points, −3 on one, over episodes", EFFECTS, gain=0.03, loss=-0.03, policy=THESE, most=0.05),
    Scenario("the same, 4 looks", EFFECTS, gain=0.03, loss=-0.03, policy=THESE, looks=True, most=0.05),
    Scenario("+3 points, −2 (its margin) on one, over episodes", NONE, gain=0.03, loss=-0.02, policy=THESE, most=0.05),
    Scenario("two kinds, both equal", EFFECTS, kinds=2, most=0.05),
    Scenario("two kinds, both equal, over episodes, 4 looks", NONE, policy=THESE, looks=True, kinds=2, most=0.05),
    Scenario("two kinds, one 2 points better, one equal", EFFECTS, gain=0.02, kinds=2),
    Scenario(
        "two kinds, one 3 points better, one 1 (its margin) worse", EFFECTS, gain=0.03, others=-0.01, kinds=2, most=0.05
    ),
]


def simulate(
    scenario: Scenario, pairs: int, episodes: int, random: np.random.Generator
) -> dict[tuple[str, str, int], np.ndarray]:
    """Paired differences in accuracy [pairs, episodes] by dataset, suite and shot."""
    differences = {}
    suites = list(MEASURED)
    names = list(dict.fromkeys(dataset_of(suite) for suite in suites))
    of_dataset = {}
    for name in names:
        spread = scenario.effects.dataset * (4 if scenario.unequal and name == "words" else 1)
        of_dataset[name] = scenario.gain + random.normal(0, spread, pairs)
        if scenario.loss and name == "words":
            of_dataset[name][:] = scenario.loss
    for suite in suites:
        of_suite = of_dataset[dataset_of(suite)] + random.normal(0, scenario.effects.suite, pairs)
        for shot, (accuracy, disagree, _) in zip((1, 5, 10), MEASURED[suite], strict=True):
            effect = (of_suite + random.normal(0, scenario.effects.cell, pairs))[:, None]
            questions = QUESTIONS.get(suite, 25)
            either = np.maximum(min(disagree, 2 * (1 - accuracy)), np.abs(effect))
            better, worse = (either + effect) / 2, (either - effect) / 2
            gained = random.binomial(questions, better, (pairs, episodes))
            lost = random.binomial(questions - gained, worse / (1 - better))
            differences[dataset_of(suite), suite, shot] = (gained - lost) / questions
    return differences


def dataset_of(suite: str) -> str:
    return suite.partition("/")[0].partition("@")[0]


def tree(cells: dict[tuple[str, str, int], np.ndarray]) -> Cells:
    found: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for (dataset, suite, shot), values in cells.items():
        found.setdefault(dataset, {}).setdefault(suite, {})[shot] = values
    return found


@dataclass(frozen=True)
class Measured:
    """Differences of pairs of models in one kind, by dataset, suite and shot."""

    score: dict[tuple[str, str, int], np.ndarray]
    """[pairs, episodes]"""
    nats: dict[tuple[str, str, int], np.ndarray]
    """[pairs, episodes]"""
    times: dict[tuple[str, str, int], np.ndarray]
    """[pairs, TIMED]"""


def measured(scenario: Scenario, pairs: int, episodes: int, random: np.random.Generator) -> Measured:
    """What pairs of models answer, and how long they take."""
    differences = simulate(scenario, pairs, episodes, random)
    shift = {dataset_of(suite): random.normal(0, NATS_EFFECT, (pairs, 1)) for suite in MEASURED}
    nats = {
        (dataset, suite, shot): shift[dataset] + random.normal(NATS * x, MEASURED[suite][(1, 5, 10).index(shot)][2])
        for (dataset, suite, shot), x in differences.items()
    }
    return Measured(differences, nats, {key: random.normal(0, NOISE, (pairs, TIMED)) for key in differences})


def gains_of(found: Measured, pair: int, n: int) -> Gains:
    """What one pair has shown in n episodes a cell."""
    score = {key: x[pair, :n] for key, x in found.score.items()}
    cells = {
        "score": tree(score),
        "calibration": tree({key: x[pair, :n] for key, x in found.nats.items()}),
        "latency": tree({key: x[pair] for key, x in found.times.items()}),
        "baseline logreg_encoder": tree({key: x + BASELINE for key, x in score.items()}),
    }
    return Gains(cells=cells, memory=1.0)


def rates(scenario: Scenario, policy: Gate, pairs: int, episodes: int, seed: int) -> dict[str, Any]:
    """How often each answer was given."""
    random = np.random.default_rng([seed, SCENARIOS.index(scenario)])
    policy = policy.model_copy(update=scenario.policy)
    answers: list[str] = []
    used: list[int] = []
    while len(answers) < pairs:
        block = min(200, pairs - len(answers))
        of_kinds = [measured(scenario, block, episodes, random)]
        for _ in range(1, scenario.kinds):
            of_kinds.append(measured(replace(scenario, gain=scenario.others), block, episodes, random))
        for i in range(block):
            looks: list[int] = []
            for look in range(1, LOOKS + 1) if scenario.looks else (LOOKS,):
                n = episodes * look // LOOKS
                looks.append(n)
                gains = {f"kind {k}": gains_of(found, i, n) for k, found in enumerate(of_kinds)}
                answer = decide(gains, policy, looks, episodes).answer
                if answer != "HOLD":
                    break
            answers.append(answer)
            used.append(n)
    result: dict[str, Any] = {"scenario": scenario.name, "episodes": round(float(np.mean(used)), 1)}
    for answer in ("PROMOTE", "HOLD", "REJECT"):
        count = answers.count(answer)
        ends = binomtest(count, pairs).proportion_ci(method="exact")
        result[answer] = {"rate": count / pairs, "low": round(ends.low, 4), "high": round(ends.high, 4)}
    rate = result["PROMOTE"]["rate"]
    if scenario.most is not None:
        result["asked"] = f"≤ {scenario.most:.0%}: {'met' if rate <= scenario.most else 'missed'}"
    elif scenario.least is not None:
        result["asked"] = f"≥ {scenario.least:.0%}: {'met' if rate >= scenario.least else 'missed'}"
    else:
        result["asked"] = ""
    return result


def rivals(pairs: int, datasets: int, unequal: bool, random: np.random.Generator) -> dict[str, float]:
    """How often equal models are found different for the better by one-sided tests at 2.5%, over new datasets.

    50 episodes a dataset of a standard deviation of 0.6 points vary as much as 1,800 of 3.6; the datasets vary by 0.6.
    """
    draws, n = 999, 50
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, pairs, 250):
        block = min(250, pairs - start)
        spread = np.full((datasets, 1), EFFECTS.dataset)
        spread[0] *= 4 if unequal else 1
        episodes = (
            random.normal(0, 0.006, (datasets, block, n)) + random.normal(0, spread, (datasets, block))[..., None]
        )
        y, within = episodes.mean(-1).T, episodes.var(-1, ddof=1).T / n  # [pairs, datasets]
        cells = {str(d): {"": {1: values}} for d, values in enumerate(episodes)}
        found.setdefault("Student's t over datasets (the gate)", []).append(
            estimate(cells, (True,)).interval(0.025)[0] > 0
        )
        found.setdefault("episodes alone", []).append(estimate(cells).interval(0.025)[0] > 0)
        # Percentiles of means of resampled datasets; the mean of their resampled episodes is as good as normal.
        chosen = random.integers(datasets, size=(block, draws, datasets))
        resampled = np.take_along_axis(y[:, None], chosen, 2)
        resampled += random.normal(size=chosen.shape) * np.sqrt(np.take_along_axis(within[:, None], chosen, 2))
        found.setdefault("hierarchical bootstrap, percentiles", []).append(
            np.quantile(resampled.mean(2), 0.025, axis=1) > 0
        )
        # The wild cluster bootstrap of t, under the hypothesis, with Webb's six weights.
        weights = np.sqrt([0.5, 1, 1.5])
        wild = y[:, None] * random.choice([*weights, *-weights], (block, draws, datasets))
        t, t_wild = (x.mean(-1) / x.std(-1, ddof=1) for x in (y, wild))
        beyond = (t_wild >= t[:, None]).sum(1)
        found.setdefault("wild cluster bootstrap of t, Webb's weights", []).append((1 + beyond) / (1 + draws) <= 0.025)
    return {method: float(np.concatenate(each).mean()) for method, each in found.items()}


def measure(paths: list[Path]) -> None:
    """Print what MEASURED and EFFECTS hold, from evaluations of models of about equal worth on the same episodes."""
    answers = []
    for path in paths:
        frame = pd.read_parquet(path)
        frame = frame[frame["method"] == OURS]
        answers.append(frame.set_index(["dataset", "suite", "shot", "episode"]))
    pairs = list(combinations(answers, 2))
    for suite in dict.fromkeys(answers[0].index.get_level_values("suite")):
        cells = []
        for shot in (1, 5, 10):
            of_cell = [[one.xs((suite, shot), level=("suite", "shot")) for one in pair] for pair in pairs]
            accuracy = np.mean([one["score"].mean() for pair in of_cell for one in pair])
            questions = of_cell[0][0]["way"].iloc[0] * of_cell[0][0]["query"].iloc[0]
            disagree = questions * np.mean([(a["score"] - b["score"]).var() for a, b in of_cell])
            nats = np.mean([(a["nll"] - b["nll"]).std() for a, b in of_cell])
            cells.append(tuple(round(float(x), 3) for x in (accuracy, disagree, nats)))
        print(f'    "{suite}": {cells},')
    for column in ("score", "nll"):
        for a, b in pairs:
            cell = (a[column] - b[column]).groupby(level=[0, 1, 2], sort=False).agg(["mean", "var", "size"])
            chance = cell["var"] / cell["size"]
            suite, chance_suite = (x.groupby(level=[0, 1]) for x in (cell["mean"], chance))
            dataset = suite.mean().groupby(level=0)
            chance_dataset = chance_suite.sum() / suite.size() ** 2
            excess = [
                dataset.mean().var() - (chance_dataset.groupby(level=0).sum() / dataset.size() ** 2).mean(),
                dataset.var().mean() - chance_dataset.mean(),
                suite.var().mean() - chance.mean(),
            ]
            effects = [round(max(float(x), 0) ** 0.5, 4) for x in excess]
            print(f"{column}: dataset, suite, cell {effects}; mean {dataset.mean().mean():+.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--measure", type=Path, nargs="+", metavar="PARQUET")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    settings = load_settings(Path(__file__).parents[1] / "params.yaml")
    started = time.perf_counter()
    print(f"{'scenario':52} {'PROMOTE %':>22} {'HOLD %':>7} {'REJECT %':>9} {'episodes':>9}")
    results = []
    for scenario in SCENARIOS:
        if arguments.only not in scenario.name:
            continue
        result = rates(scenario, settings.gate, arguments.pairs, settings.episodes.count, arguments.seed)
        results.append(result)
        promoted = result["PROMOTE"]
        shown = f"{100 * promoted['rate']:.2f} [{100 * promoted['low']:.2f}, {100 * promoted['high']:.2f}]"
        print(
            f"{scenario.name:52} {shown:>22} {100 * result['HOLD']['rate']:7.1f} {100 * result['REJECT']['rate']:9.1f} "
            f"{result['episodes']:9.0f}  {result['asked']}",
            flush=True,
        )
    path = Path(__file__).parent / "results/gate.json"
    written: dict[str, Any] = {
        "seed": arguments.seed,
        "pairs": arguments.pairs,
        "episodes a cell": settings.episodes.count,
        "policy": settings.gate.model_dump(),
        "scenarios": results,
    }
    if arguments.only:
        before = json.loads(path.read_text())
        by_name = {one["scenario"]: one for one in (*before["scenarios"], *results)}
        written = {**before, **written, "scenarios": list(by_name.values())}
    else:
        written |= _rivals(arguments.pairs, arguments.seed)
    path.write_text(json.dumps(written, indent=1) + "\n")
    print(f"{time.perf_counter() - started:.0f} s")


def _rivals(pairs: int, seed: int) -> dict[str, Any]:
    """Other intervals for the same question."""
    print("\nEqual models found better, % (2.5 asked for), by the number of datasets; in brackets one varies 4-fold")
    numbers = (2, 3, 5, 10, 20)
    random = np.random.default_rng(seed)
    by_number = {(k, u): rivals(2 * pairs, k, u, random) for k in numbers for u in (False, True)}
    for method in by_number[2, False]:
        row = "  ".join(
            f"{k}: {100 * by_number[k, False][method]:4.1f} ({100 * by_number[k, True][method]:4.1f})" for k in numbers
        )
        print(f"{method:45} {row}")
    return {
        "intervals over datasets, pairs": 2 * pairs,
        "intervals over datasets": [
            {"datasets": k, "one varies 4 times as much": u, "found better": rates_}
            for (k, u), rates_ in by_number.items()
        ],
    }


if __name__ == "__main__":
    main()
