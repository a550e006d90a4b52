"""The gate: what it decides and why, what it refuses, and how often it errs."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from quickstudy.config import Gate, Settings
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.gate import Contender, Evidence, Rule, answer_of, decide, gains, judge, judge_until_settled

SUITES = {
    "letters": ["letters"],
    "phrases": ["phrases/one", "phrases/two"],
    "signs": ["signs"],
    "sounds": ["sounds", "sounds@new"],
}
N = 60


@pytest.fixture
def policy(tiny: Settings) -> Gate:
    return tiny.gate


def answered(gain: dict[str, float] | float, seed: int = 1, n: int = N, method: str = "quickstudy") -> pd.DataFrame:
    """Scores that lie around those of every other call, episode by episode, and higher by the gain."""
    shared, own, rows = np.random.default_rng(0), np.random.default_rng(seed), []
    for dataset, suites in SUITES.items():
        for suite in suites:
            for shot in (1, 5):
                score = shared.uniform(0.5, 0.9, 1000)[:n] + own.normal(0, 0.02, 1000)[:n]
                score += gain[dataset] if isinstance(gain, dict) else gain
                for i in range(n):
                    ms = 10 * own.lognormal(0, 0.05) if i < 5 else np.nan
                    nll = 1 - score[i] + own.normal(0, 0.02)
                    rows.append((suite, dataset, "text", "classes", 5, shot, 5, i, method, score[i], ms, nll))
    columns = "suite dataset modality novelty way shot query episode method score adapt_ms nll"
    return pd.DataFrame(rows, columns=columns.split())


def contender(name: str, episodes: pd.DataFrame, **changes: Any) -> Contender:
    made = Contender(name, episodes, {"letters": ["latin"]}, ["text"], 2, 100.0, "data-of-today", "episodes-of-today")
    return replace(made, **changes)


def evidence(gain: dict[str, float] | float = 0.0, **changes: Any) -> Evidence:
    baselines = [answered(-0.1, 3, method="logreg_raw"), answered(-0.2, 4, method="centroid_raw")]
    made = Evidence(
        contender("version 7", answered(gain, 2)),
        contender("version 6", answered(0.0, 1)),
        pd.concat(baselines),
        {"letters": ["greek", "thai"]},
        "data-of-today",
        "episodes-of-today",
    )
    return replace(made, **changes)


def with_challenger(made: Evidence, **changes: Any) -> Evidence:
    return replace(made, challenger=replace(made.challenger, **changes))


def named(rules: tuple[Rule, ...], name: str) -> Rule:
    (found,) = (rule for rule in rules if rule.name == name)
    return found


# What it decides


def test_a_gain_on_every_dataset_is_promoted_with_every_figure(policy: Gate) -> None:
    made = evidence(0.03)
    verdict = judge(made, policy)
    assert verdict.answer == "PROMOTE" and verdict.episodes == N and verdict.datasets == tuple(SUITES)
    datasets = [f"dataset {name}" for name in SUITES]
    names = ["accuracy", *datasets, "calibration", "latency", "memory", "baseline logreg_raw"]
    assert [rule.name for rule in verdict.rules] == names
    old, new = (c.episodes.set_index(["dataset", "suite", "shot", "episode"]) for c in (made.champion, made.challenger))
    means = (new["score"] - old["score"]).groupby(level=[0, 1]).mean().groupby(level=0).mean()
    rule = named(verdict.rules, "accuracy")
    assert rule.gain == pytest.approx(means.mean()) and rule.low < rule.gain < rule.high and rule.limit == 0
    for name in SUITES:
        rule = named(verdict.rules, f"dataset {name}")
        assert rule.gain == pytest.approx(means[name]) and rule.limit == -policy.dataset_margin
    gain, low, high = (f"{100 * x:+.1f}" for x in (means.mean(), verdict.rules[0].low, verdict.rules[0].high))
    assert verdict.sentence == (
        f"Promote version 7: {gain} points of accuracy over version 6 ({low} to {high}); the other 8 rules hold too."
    )
    assert json.loads(json.dumps(verdict.record()))["rules"][0]["gain"] == pytest.approx(means.mean())


def test_the_order_of_rows_and_what_other_methods_did_changes_nothing(policy: Gate) -> None:
    made = evidence(0.03)
    rows = pd.concat([made.challenger.episodes, answered(-0.5, 9, method="scratch")]).sample(frac=1, random_state=0)
    shuffled = with_challenger(made, episodes=rows)
    scratch = replace(shuffled, baselines=pd.concat([made.baselines, answered(0.5, 9, 2, "scratch")]))
    assert judge(scratch, policy) == judge(made, policy)


def test_who_gains_on_average_and_loses_on_one_dataset_is_stopped(policy: Gate) -> None:
    made = evidence({"letters": 0.06, "phrases": 0.06, "signs": 0.06, "sounds": -0.04})
    for over in ("datasets", "groups", "episodes"):
        verdict = judge(made, policy.model_copy(update={"over": over}))
        assert verdict.answer == "REJECT" and named(verdict.rules, "accuracy").state != "failed"
        assert [rule.name for rule in verdict.rules if rule.state == "failed"] == ["dataset sounds"]
        lost = 100 * named(verdict.rules, "dataset sounds").gain
        assert verdict.sentence.startswith(
            f"Reject version 7: {lost:+.1f} points of accuracy over version 6 on sounds ("
        )
        assert verdict.sentence.endswith("; 2.0 may be lost).") and -5 < lost < -3
    lenient = policy.model_copy(update={"over": "episodes", "dataset_margins": {"sounds": 0.06}})
    assert judge(made, lenient).answer == "PROMOTE"


def test_equal_is_held_for_superior_and_promoted_for_non_inferior(policy: Gate) -> None:
    made = evidence(0.0)
    verdict = judge(made, policy)
    assert verdict.answer == "HOLD" and verdict.sentence.startswith("Hold version 7, it is not settled: ")
    assert judge(made, policy.model_copy(update={"accuracy": "non-inferior"})).answer == "PROMOTE"
    worse = evidence(-0.015)  # less than any one dataset may lose
    assert judge(worse, policy).answer == "REJECT"
    assert judge(worse, policy.model_copy(update={"accuracy": "non-inferior"})).answer == "REJECT"
    same = judge(with_challenger(made, episodes=made.champion.episodes), policy)
    assert same.answer == "HOLD" and "the models are as good as equal there" in same.sentence


@pytest.mark.parametrize(
    ("change", "rule", "said"),
    [
        ({"nll": 0.2}, "calibration", "its negative log likelihood differs by +0.1"),
        ({"adapt_ms": 2.0}, "latency", "it takes 2.0"),
        ({"mebibytes": 151.0}, "memory", "it takes 1.51 times version 6's memory (at most 1.50)"),
    ],
)
def test_what_it_costs_can_stop_it(policy: Gate, change: dict[str, float], rule: str, said: str) -> None:
    made = evidence(0.03)
    rows = made.challenger.episodes.copy()
    if "nll" in change:
        rows["nll"] += change["nll"]
    if "adapt_ms" in change:
        rows["adapt_ms"] *= change["adapt_ms"]
    made = with_challenger(made, episodes=rows, mebibytes=change.get("mebibytes", 100.0))
    verdict = judge(made, policy)
    assert verdict.answer == "REJECT" and said in verdict.sentence
    assert [one.name for one in verdict.rules if one.state == "failed"] == [rule]
    asked = {"calibration": "calibration_margin"}.get(rule, rule)
    assert judge(made, policy.model_copy(update={asked: None})).answer == "PROMOTE"


def test_the_best_baseline_counts(policy: Gate) -> None:
    better = pd.concat([answered(-0.1, 3, method="logreg_raw"), answered(0.1, 4, method="centroid_encoder")])
    made = evidence(0.03, baselines=better)
    verdict = judge(made, policy)
    assert verdict.answer == "REJECT" and verdict.rules[-1].name == "baseline centroid_encoder"
    assert "points of accuracy over the baseline centroid_encoder" in verdict.sentence
    assert judge(made, policy.model_copy(update={"baselines": False})).answer == "PROMOTE"


def test_the_first_model_is_judged_by_the_baselines_alone(policy: Gate) -> None:
    verdict = judge(evidence(0.03, champion=None), policy)
    assert (verdict.answer, verdict.champion) == ("PROMOTE", None)
    assert [rule.name for rule in verdict.rules] == ["baseline logreg_raw"]
    assert judge(evidence(-0.3, champion=None), policy).answer == "REJECT"
    nothing = judge(evidence(champion=None), policy.model_copy(update={"baselines": False}))
    assert nothing.answer == "PROMOTE" and "the policy asks for nothing" in nothing.sentence


def test_what_was_not_measured_is_not_passed(policy: Gate) -> None:
    made = evidence(0.03)
    old = replace(made, champion=replace(made.champion, episodes=made.champion.episodes.drop(columns="nll")))
    untimed = with_challenger(made, episodes=made.challenger.episodes.assign(adapt_ms=np.nan))
    alone = replace(made, baselines=made.baselines[:0])
    for lacking, rule in ((old, "calibration"), (untimed, "latency"), (alone, "baseline")):
        verdict = judge(lacking, policy)
        assert verdict.answer == "HOLD" and f"{rule} was not measured" in verdict.sentence
        assert [one.name for one in verdict.rules if one.state == "open"] == [rule]
        assert any(one["gain"] is None for one in json.loads(json.dumps(verdict.record()))["rules"])


# What would settle a HOLD


def alternating(mean: float, spread: float, n: int) -> np.ndarray:
    return mean + spread * (-1.0) ** np.arange(n)


def test_as_many_more_episodes_as_it_says_settle_it(policy: Gate) -> None:
    bare = accuracy_alone(policy, over="episodes")

    def asked(n: int) -> Rule:
        cells = {name: {suite: {1: alternating(0.004, 0.05, n)} for suite in SUITES[name]} for name in SUITES}
        return decide({"accuracy": cells}, None, bare, (n,), n)[0]

    rule = asked(40)
    assert rule.state == "open" and rule.more_episodes is not None and rule.more_datasets is None
    needed = 40 + rule.more_episodes
    assert asked(needed + 2 + needed % 2).state == "passed" and asked(needed - 4 + needed % 2).state == "open"


def test_where_the_datasets_differ_it_says_how_many_more_of_them(policy: Gate) -> None:
    def asked(k: int) -> Rule:
        gained = alternating(0.01, 0.02 * ((k - 1) / k) ** 0.5, k)  # of the same variance whatever k
        cells = {str(d): {"": {1: alternating(gain, 0.001, 40)}} for d, gain in enumerate(gained)}
        return decide({"accuracy": cells}, None, accuracy_alone(policy, dataset_margin=0.5), (40,), 40)[0]

    rule = asked(4)
    assert rule.state == "open" and rule.more_episodes is None and rule.more_datasets is not None
    needed = 4 + rule.more_datasets
    assert asked(needed + needed % 2 + 2).state == "passed" and asked(needed - needed % 2 - 2).state == "open"


def accuracy_alone(policy: Gate, **changes: Any) -> Gate:
    return policy.model_copy(
        update={"calibration_margin": None, "latency": None, "memory": None, "baselines": False, **changes}
    )


# What it refuses


REFUSED: list[tuple[Callable[[Evidence], Evidence], str]] = [
    (
        lambda e: with_challenger(e, data_digest="data-of-old"),
        "version 7: its evidence is older than the data (data-of-old, now data-of-toda). Evaluate it on today's data",
    ),
    (
        lambda e: replace(e, champion=replace(e.champion, episodes_digest="others")),
        "version 6: it answered other episodes (others, now episodes-of-). Evaluate it on today's frozen episodes",
    ),
    (
        lambda e: with_challenger(e, trained_on={"letters": ["thai", "latin"], "phrases": ["greek"]}),
        "version 7: it was trained on meta-test groups of letters: thai. What it scores there proves nothing.",
    ),
    (
        lambda e: replace(e, champion=replace(e.champion, trained_on={"letters": ["thai", "greek"]})),
        "version 6: it was trained on meta-test groups of letters: greek, thai.",
    ),
    (
        lambda e: replace(e, champion=replace(e.champion, modalities=["text", "audio"], data_digest="old")),
        "version 6: not comparable: the champion is from before a change of modalities (audio, text, version 7: text).",
    ),
    (
        lambda e: replace(e, champion=replace(e.champion, format=1)),
        "version 6: not comparable: the champion is from before a change of format (1, version 7: 2). Train",
    ),
    (
        lambda e: with_challenger(e, episodes=e.challenger.episodes[lambda rows: rows["suite"] != "signs"]),
        "version 6 and version 7 answered different episodes (720 and 600 rows, signs 1-shot in one alone).",
    ),
    (
        lambda e: with_challenger(e, episodes=e.challenger.episodes.assign(episode=lambda rows: rows["episode"] + 1)),
        "version 6 and version 7 answered different episodes (720 and 720 rows).",
    ),
    (lambda e: with_challenger(e, episodes=e.challenger.episodes[:0]), "version 7: no episodes were answered."),
    (lambda e: replace(e, baselines=e.baselines[5:]), "the baseline logreg_raw answered other episodes."),
]


@pytest.mark.parametrize(("spoilt", "said"), REFUSED)
def test_what_cannot_be_compared_is_refused(policy: Gate, spoilt: Callable[[Evidence], Evidence], said: str) -> None:
    with pytest.raises(QuickstudyError) as caught:
        judge(spoilt(evidence(0.03)), policy)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


# Looks


def test_evidence_is_gathered_until_it_is_settled(policy: Gate) -> None:
    def gathered(gain: float) -> tuple[list[int], Any]:
        asked: list[int] = []

        def answer(n: int) -> Evidence:
            asked.append(n)
            return evidence(gain).first(n)

        return asked, judge_until_settled(answer, accuracy_alone(policy, over="episodes", looks=4), N)

    asked, clear = gathered(0.05)
    assert clear.answer == "PROMOTE" and asked == [15] == list(clear.looks) and clear.episodes == 15
    asked, unclear = gathered(0.0)
    assert unclear.answer == "HOLD" and asked == [15, 30, 45, 60] == list(unclear.looks) and unclear.planned == N
    # the last look has paid for those before it
    alone = judge(evidence(0.0), accuracy_alone(policy, over="episodes")).rules[0]
    assert unclear.rules[0].low < alone.low and unclear.rules[0].high > alone.high
    with pytest.raises(ValueError, match="do not grow"):
        judge(evidence(), policy, before=(N,), planned=2 * N)
    with pytest.raises(ValueError, match="do not grow"):
        judge(evidence(), policy, planned=N - 1)


# How often it errs


def simulated(
    policy: Gate, pairs: int, datasets: int, n: int, gain: float, effect: float, loss: float | None = None
) -> dict[str, float]:
    """Rates of the answers to pairs of models that differ by ``gain`` on datasets that differ by ``effect``."""
    random, answers = np.random.default_rng(0), []
    for _ in range(pairs):
        cells = {}
        for dataset in range(datasets):
            mean = loss if loss is not None and dataset == 0 else gain + effect * random.normal()
            # each of 25 questions is gained, lost or neither
            up, down = 0.05 + max(mean, 0), 0.05 + max(-mean, 0)
            cells[str(dataset)] = {"": {1: (random.binomial(25, up, n) - random.binomial(25, down, n)) / 25}}
        answers.append(answer_of(decide({"accuracy": cells}, None, policy, (n,), n)))
    return {answer: answers.count(answer) / pairs for answer in ("PROMOTE", "HOLD", "REJECT")}


def test_of_two_thousand_equal_pairs_at_most_one_in_twenty_is_promoted(policy: Gate) -> None:
    rates = simulated(accuracy_alone(policy, dataset_margin=0.5), 2000, 3, 60, 0.0, 0.02)
    assert 0.01 <= rates["PROMOTE"] <= 0.05 and rates["REJECT"] <= 0.05


def test_two_points_are_found_and_a_loss_on_one_dataset_is_stopped(policy: Gate) -> None:
    assert simulated(accuracy_alone(policy), 300, 5, 600, 0.02, 0.006)["PROMOTE"] >= 0.9
    stopped = simulated(accuracy_alone(policy, over="episodes"), 300, 5, 600, 0.03, 0.006, loss=-0.04)
    assert stopped["PROMOTE"] == 0 and stopped["REJECT"] >= 0.9


def test_gains_are_of_the_same_episodes(policy: Gate) -> None:
    made = evidence(0.0)
    # the same accuracies on other episodes: the mean is the same, what was paired is not
    rows = made.champion.episodes.copy()
    rows["score"] = rows.groupby(["suite", "shot"])["score"].transform(lambda x: x.to_numpy()[::-1])
    paired = gains(with_challenger(made, episodes=made.champion.episodes))["accuracy"]["letters"]["letters"][1]
    crossed = gains(with_challenger(made, episodes=rows))["accuracy"]["letters"]["letters"][1]
    assert np.all(paired == 0) and crossed.mean() == pytest.approx(0, abs=1e-12) and crossed.std() > 0.05
