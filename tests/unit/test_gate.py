"""The gate: what it decides and why, what it refuses, and how often it errs."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from quickstudy.config import Gate, Settings
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.gate import Contender, Evidence, gained, judge, judge_kinds, judge_until_settled
from quickstudy.evaluation.rules import Decision, Gains, Rule, decide
from quickstudy.stats.intervals import Cells, estimate

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
    """Accuracies that lie around those of every other call, episode by episode, and higher by the gain."""
    shared, own, rows = np.random.default_rng(0), np.random.default_rng(seed), []
    for dataset, suites in SUITES.items():
        for suite in suites:
            for shot in (1, 5):
                accuracy = shared.uniform(0.5, 0.9, 1000)[:n] + own.normal(0, 0.02, 1000)[:n]
                accuracy += gain[dataset] if isinstance(gain, dict) else gain
                for i in range(n):
                    ms = 10 * own.lognormal(0, 0.05) if i < 5 else np.nan
                    nll = 1 - accuracy[i] + own.normal(0, 0.02)
                    rows.append((suite, dataset, "text", "classes", 5, shot, 5, i, method, accuracy[i], ms, nll))
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
    assert judge(made, policy.model_copy(update={"score": "non-inferior"})).answer == "PROMOTE"
    worse = evidence(-0.015)  # less than any one dataset may lose
    assert judge(worse, policy).answer == "REJECT"
    assert judge(worse, policy.model_copy(update={"score": "non-inferior"})).answer == "REJECT"
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


# Several kinds of task


def of_kind(kind: str, gain: dict[str, float] | float = 0.0, seed: int = 0, **changes: Any) -> Evidence:
    """Evidence of a kind; the contenders were lucky in another way with each seed."""
    made = evidence(gain)
    made = replace(made, kind=kind, score={"classify": "accuracy", "tag": "micro F1"}.get(kind, "score"))
    if seed:
        made = with_challenger(made, episodes=answered(gain, 2 + 10 * seed))
    return replace(made, **changes)


def both(tag: Evidence, gain: float = 0.0) -> list[Evidence]:
    return [of_kind("classify", gain, seed=1), tag]


def same(made: Evidence) -> Evidence:
    """The parts of both have the same bits, and nobody has answered."""
    assert made.champion is not None and made.challenger is not None
    nothing = made.challenger.episodes[:0]
    return replace(
        made,
        champion=replace(made.champion, part_digest="bits", episodes=nothing),
        challenger=replace(made.challenger, part_digest="bits", episodes=nothing),
        baselines=made.baselines[:0],
    )


def state_of(rules: tuple[Rule, ...]) -> dict[str, str]:
    return {rule.name: rule.state for rule in rules}


def test_one_kind_that_gains_is_enough_where_the_others_lose_nothing(policy: Gate) -> None:
    verdict = judge_kinds(both(of_kind("tag", 0.03)), policy)
    assert verdict.answer == "PROMOTE" and verdict.kinds == {"classify": "HOLD", "tag": "PROMOTE"}
    claim = named(verdict.rules, "tag: superior")
    gain, low, high = (f"{100 * x:+.1f}" for x in (claim.gain, claim.low, claim.high))
    assert verdict.sentence == (
        f"Promote version 7: in tag {gain} points of micro F1 over version 6 ({low} to {high}); "
        f"the other {len(verdict.rules) - 1} rules hold too."
    )
    # each kind has what it would have by itself, but for what it has to gain
    alone = judge(of_kind("tag", 0.03), policy.model_copy(update={"score": "non-inferior"})).rules
    own = [replace(rule, name=rule.name.removeprefix("tag: ")) for rule in verdict.rules if rule.kind == "tag"]
    assert own[1:] == list(alone) and own[0].what == "superior"
    assert {rule.name.partition(": ")[0] for rule in verdict.rules} == {"classify", "tag"}
    everybody = judge_kinds(both(of_kind("tag", 0.03), 0.02), policy)
    assert set(everybody.kinds.values()) == {"PROMOTE"}
    assert re.search(
        r"in classify \+2\.\d points of accuracy .*; in tag \+3\.\d points of micro F1 ", everybody.sentence
    )


def test_with_one_kind_the_name_of_a_rule_is_that_of_before(policy: Gate) -> None:
    verdict = judge(of_kind("tag", 0.03), policy)
    assert [rule.name for rule in verdict.rules][:2] == ["micro F1", "dataset letters"]
    assert {rule.kind for rule in verdict.rules} == {"tag"} and verdict.kinds == {"tag": "PROMOTE"}
    assert "points of micro F1 over version 6" in verdict.sentence


def test_where_no_kind_is_better_it_is_held(policy: Gate) -> None:
    verdict = judge_kinds(both(of_kind("tag")), policy)
    assert verdict.answer == "HOLD" and verdict.kinds == {"classify": "HOLD", "tag": "HOLD"}
    assert [name for name, state in state_of(verdict.rules).items() if state == "open"] == [verdict.rules[0].name]
    assert verdict.rules[0].what == "superior"
    promoted = judge_kinds(both(of_kind("tag")), policy.model_copy(update={"score": "non-inferior"}))
    assert promoted.answer == "PROMOTE" and promoted.kinds == {"classify": "PROMOTE", "tag": "PROMOTE"}
    assert "in classify " in promoted.sentence and "in tag " in promoted.sentence and "may be lost" in promoted.sentence
    worse = judge_kinds([of_kind("classify", -0.008, 1), of_kind("tag", -0.008)], policy)  # both, within the margin
    assert worse.answer == "REJECT" and state_of(worse.rules)[worse.rules[0].name] == "failed"
    assert set(worse.kinds.values()) == {"HOLD"}


def test_no_kind_may_lose_more_than_its_margin_whatever_another_gains(policy: Gate) -> None:
    worse = {"letters": -0.015, "phrases": -0.015, "signs": -0.015, "sounds": -0.015}  # of no dataset too much
    verdict = judge_kinds([of_kind("classify", 0.05, 1), of_kind("tag", worse)], policy)
    assert verdict.answer == "REJECT" and verdict.kinds == {"classify": "PROMOTE", "tag": "REJECT"}
    assert [name for name, state in state_of(verdict.rules).items() if state == "failed"] == ["tag: micro F1"]
    assert verdict.sentence.startswith("Reject version 7: in tag -1.") and verdict.sentence.endswith(
        "1.0 may be lost)."
    )
    lenient = {"tag": policy.model_copy(update={"margin": 0.03, "dataset_margin": 0.05})}
    assert judge_kinds([of_kind("classify", 0.05, 1), of_kind("tag", worse)], policy, own=lenient).answer == "PROMOTE"


@pytest.mark.parametrize("rule", ["dataset sounds", "calibration", "latency", "memory", "baseline logreg_raw"])
def test_every_rule_of_every_kind_has_to_hold(policy: Gate, rule: str) -> None:
    gain = {"letters": 0.06, "phrases": 0.06, "signs": 0.06, "sounds": -0.04 if rule == "dataset sounds" else 0.06}
    tag = of_kind("tag", gain)
    assert tag.challenger is not None
    rows = tag.challenger.episodes.copy()
    rows["nll"] += 0.2 * (rule == "calibration")
    rows["adapt_ms"] *= 2 if rule == "latency" else 1
    tag = with_challenger(tag, episodes=rows, mebibytes=151.0 if rule == "memory" else 100.0)
    if rule.startswith("baseline"):
        tag = replace(tag, baselines=answered(0.2, 3, method="logreg_raw"))
    verdict = judge_kinds([of_kind("classify", 0.05, 1), tag], policy)
    assert verdict.answer == "REJECT" and verdict.kinds == {"classify": "PROMOTE", "tag": "REJECT"}
    assert [name for name, state in state_of(verdict.rules).items() if state == "failed"] == [f"tag: {rule}"]


def test_of_k_kinds_each_is_tested_at_a_kth_of_the_level(policy: Gate) -> None:
    bare, n = score_alone(policy, over="episodes", dataset_margin=0.5), 40
    cells = {"letters": {"letters": {1: alternating(0.0, 0.01, n)}}}
    nothing = Gains(cells={"score": cells})
    alone = estimate(cells)
    for k in (1, 2, 5):
        low, _ = alone.interval(0.025 / k)
        for beyond, answer in ((1e-5, "PROMOTE"), (-1e-5, "HOLD")):
            lucky = Gains(cells={"score": {"letters": {"letters": {1: alternating(beyond - low, 0.01, n)}}}})
            gains = {"kind 0": lucky} | {f"kind {i}": nothing for i in range(1, k)}
            decision = decide(gains, bare, (n,), n)
            assert decision.answer == answer == decision.kinds["kind 0"]
            assert decision.rules[0].kind == "kind 0" and decision.rules[0].low == pytest.approx(beyond)


def test_a_part_that_did_not_change_gains_nothing_and_answers_nothing(policy: Gate) -> None:
    verdict = judge_kinds([same(of_kind("classify")), of_kind("tag", 0.03)], policy)
    rule = named(verdict.rules, "classify: accuracy")
    assert (rule.gain, rule.low, rule.high, rule.state) == (0, 0, 0, "passed")
    assert [rule.name for rule in verdict.rules if rule.kind == "classify"] == ["classify: accuracy"]
    assert verdict.answer == "PROMOTE" and verdict.kinds == {"classify": "HOLD", "tag": "PROMOTE"}
    assert "; classify did not change; the other" in verdict.sentence
    # it takes nothing from the level of the other
    alone = judge(of_kind("tag", 0.03), policy)
    own = tuple(replace(rule, name=rule.what) for rule in verdict.rules if rule.kind == "tag")
    assert own == alone.rules and verdict.episodes_digest == alone.episodes_digest
    strict = policy.model_copy(update={"margin": 0.0})
    assert (
        named(judge_kinds([same(of_kind("classify")), of_kind("tag", 0.03)], strict).rules, rule.name).state == "passed"
    )


@pytest.mark.parametrize("kinds", [("classify",), ("classify", "tag")])
def test_a_model_none_of_whose_parts_changed_is_no_better(policy: Gate, kinds: tuple[str, ...]) -> None:
    made = [same(of_kind(kind)) for kind in kinds]
    verdict = judge_kinds(made, policy)
    assert verdict.answer == "HOLD" and verdict.episodes == 0 and set(verdict.kinds.values()) == {"HOLD"}
    assert "the models are as good as equal there" in verdict.sentence
    assert judge_kinds(made, policy.model_copy(update={"score": "non-inferior"})).answer == "PROMOTE"


def test_a_kind_that_the_champion_does_not_know_is_judged_by_its_baselines_alone(policy: Gate) -> None:
    for beside in (same(of_kind("classify")), of_kind("classify", seed=1)):  # which need not be better then
        verdict = judge_kinds([beside, of_kind("tag", 0.03, champion=None)], policy)
        assert verdict.answer == "PROMOTE" and verdict.kinds == {"classify": "HOLD", "tag": "PROMOTE"}
        assert [rule.name for rule in verdict.rules if rule.kind == "tag"] == ["tag: baseline logreg_raw"]
        assert verdict.champion == "version 6"
        assert verdict.sentence.startswith("Promote version 7: in tag, which is new, +1")
        assert "points of micro F1 over the baseline logreg_raw" in verdict.sentence
    below = judge_kinds([of_kind("classify", 0.05, 1), of_kind("tag", -0.3, champion=None)], policy)
    assert below.answer == "REJECT" and below.kinds == {"classify": "PROMOTE", "tag": "REJECT"}
    loses = judge_kinds([of_kind("classify", -0.018, 1), of_kind("tag", 0.03, champion=None)], policy)
    assert loses.answer == "REJECT" and "in classify -1." in loses.sentence
    unasked = policy.model_copy(update={"baselines": False})
    verdict = judge_kinds([same(of_kind("classify")), of_kind("tag", champion=None)], unasked)
    assert verdict.sentence == "Promote version 7: tag is new; classify did not change."


def test_the_first_model_of_several_kinds_is_judged_by_their_baselines(policy: Gate) -> None:
    made = [of_kind("classify", 0.03, 1, champion=None), of_kind("tag", 0.03, champion=None)]
    verdict = judge_kinds(made, policy)
    assert (verdict.answer, verdict.champion) == ("PROMOTE", None)
    assert [rule.name for rule in verdict.rules] == ["classify: baseline logreg_raw", "tag: baseline logreg_raw"]
    assert "new" not in verdict.sentence


def test_a_kind_that_only_the_champion_knows_would_be_lost(policy: Gate) -> None:
    lost = of_kind("tag", challenger=None)
    verdict = judge_kinds([of_kind("classify", 0.05, 1), lost], policy)
    assert verdict.answer == "REJECT" and verdict.kinds == {"classify": "PROMOTE", "tag": "REJECT"}
    rule = named(verdict.rules, "part tag")
    assert rule.state == "failed" and rule.cells() == ("part tag", "lost", "", "kept")
    assert verdict.sentence == (
        "Reject version 7: it has no part for tag, which version 6 has: tasks of tag would get no answers any more "
        '(quickstudy promote --approve --reason "…" overrules that).'
    )
    assert Rule.of(json.loads(json.dumps(verdict.record()))["rules"][-1]).cells() == rule.cells()


def test_records_hold_the_kinds_and_those_of_before_there_were_any_are_read(policy: Gate) -> None:
    record = json.loads(json.dumps(judge_kinds(both(of_kind("tag", 0.03)), policy).record()))
    assert record["kinds"] == {"classify": "HOLD", "tag": "PROMOTE"}
    assert [rule["kind"] for rule in record["rules"][:2]] == ["tag", "classify"]
    old = {name: value for name, value in record["rules"][1].items() if name != "kind"} | {"name": "accuracy"}
    assert Rule.of(old).kind == "classify" and Rule.of(old).cells()[0] == "accuracy"


def test_what_is_refused_names_the_kind_where_there_are_several(policy: Gate) -> None:
    tag = with_challenger(of_kind("tag", 0.03), data_digest="data-of-old")
    with pytest.raises(QuickstudyError, match=r"version 7, tag: its evidence is older than the data"):
        judge_kinds(both(tag), policy)
    with pytest.raises(QuickstudyError, match=r"version 7: its evidence is older than the data"):
        judge(tag, policy)


def test_a_kind_of_fewer_episodes_looks_as_often_as_it_has_more(policy: Gate) -> None:
    bare = score_alone(policy, over="episodes", looks=4)
    asked: list[int] = []

    def answer(n: int) -> list[Evidence]:
        asked.append(n)
        fewer = replace(of_kind("tag"), planned=20).first(min(n, 20))
        return [of_kind("classify", seed=1).first(n), fewer]

    verdict = judge_until_settled(answer, bare, N)
    assert verdict.answer == "HOLD" and asked == [15, 30, 45, 60] == list(verdict.looks)
    twice = judge_kinds(
        [replace(of_kind("tag"), planned=20).first(20)], bare.model_copy(update={"score": "non-inferior"}), (15,), 20
    )
    assert named(verdict.rules, "tag: micro F1").low == named(twice.rules, "micro F1").low


def test_times_that_differ_beyond_all_bounds_are_told_all_the_same(policy: Gate) -> None:
    """Of two episodes that were timed, on a machine that others use too, the interval may have no end."""

    def one_cell(episodes: pd.DataFrame) -> pd.DataFrame:
        return episodes[(episodes["suite"] == "letters") & (episodes["shot"] == 1)].copy()

    made = evidence(0.03)
    rows = one_cell(made.challenger.episodes)
    rows.loc[rows["episode"] > 1, "adapt_ms"] = np.nan
    rows.loc[rows["episode"] == 1, "adapt_ms"] *= 1e200
    champion = replace(made.champion, episodes=one_cell(made.champion.episodes))
    made = with_challenger(replace(made, champion=champion, baselines=one_cell(made.baselines)), episodes=rows)
    verdict = judge(made, policy.model_copy(update={"over": "episodes"}))
    rule = named(verdict.rules, "latency")
    assert rule.state == "open" and rule.low < -1000 and "to inf" in rule.cells()[2] and "to inf" in verdict.sentence


# What would settle a HOLD


def decided(cells: Cells, policy: Gate, n: int) -> Decision:
    """On a model of one kind, by its scores alone."""
    return decide({"classify": Gains(cells={"score": cells})}, policy, (n,), n)


def alternating(mean: float, spread: float, n: int) -> np.ndarray:
    return mean + spread * (-1.0) ** np.arange(n)


def test_as_many_more_episodes_as_it_says_settle_it(policy: Gate) -> None:
    bare = score_alone(policy, over="episodes")

    def asked(n: int) -> Rule:
        cells = {name: {suite: {1: alternating(0.004, 0.05, n)} for suite in SUITES[name]} for name in SUITES}
        return decided(cells, bare, n).rules[0]

    rule = asked(40)
    assert rule.state == "open" and rule.more_episodes is not None and rule.more_datasets is None
    needed = 40 + rule.more_episodes
    assert asked(needed + 2 + needed % 2).state == "passed" and asked(needed - 4 + needed % 2).state == "open"


def test_where_the_datasets_differ_it_says_how_many_more_of_them(policy: Gate) -> None:
    def asked(k: int) -> Rule:
        gained = alternating(0.01, 0.02 * ((k - 1) / k) ** 0.5, k)  # of the same variance whatever k
        cells = {str(d): {"": {1: alternating(gain, 0.001, 40)}} for d, gain in enumerate(gained)}
        return decided(cells, score_alone(policy, dataset_margin=0.5), 40).rules[0]

    rule = asked(4)
    assert rule.state == "open" and rule.more_episodes is None and rule.more_datasets is not None
    needed = 4 + rule.more_datasets
    assert asked(needed + needed % 2 + 2).state == "passed" and asked(needed - needed % 2 - 2).state == "open"


def score_alone(policy: Gate, **changes: Any) -> Gate:
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

        def answer(n: int) -> list[Evidence]:
            asked.append(n)
            return [evidence(gain).first(n)]

        return asked, judge_until_settled(answer, score_alone(policy, over="episodes", looks=4), N)

    asked, clear = gathered(0.05)
    assert clear.answer == "PROMOTE" and asked == [15] == list(clear.looks) and clear.episodes == 15
    asked, unclear = gathered(0.0)
    assert unclear.answer == "HOLD" and asked == [15, 30, 45, 60] == list(unclear.looks) and unclear.planned == N
    # the last look has paid for those before it
    alone = judge(evidence(0.0), score_alone(policy, over="episodes")).rules[0]
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
        answers.append(decided(cells, policy, n).answer)
    return {answer: answers.count(answer) / pairs for answer in ("PROMOTE", "HOLD", "REJECT")}


def test_of_two_thousand_equal_pairs_at_most_one_in_twenty_is_promoted(policy: Gate) -> None:
    rates = simulated(score_alone(policy, dataset_margin=0.5), 2000, 3, 60, 0.0, 0.02)
    assert 0.01 <= rates["PROMOTE"] <= 0.05 and rates["REJECT"] <= 0.05


def test_of_equal_pairs_of_two_kinds_at_most_one_in_twenty_is_promoted(policy: Gate) -> None:
    bare, random, answers = score_alone(policy, dataset_margin=0.5, margin=0.5), np.random.default_rng(0), []
    for _ in range(1000):
        kinds = {}
        for kind in ("classify", "tag"):
            means = 0.02 * random.normal(size=(3, 1)) + 0.05 * random.normal(size=(3, 60))
            kinds[kind] = Gains(cells={"score": {str(i): {"": {1: values}} for i, values in enumerate(means)}})
        answers.append(decide(kinds, bare, (60,), 60).answer)
    assert 0.01 <= answers.count("PROMOTE") / len(answers) <= 0.05


def test_two_points_are_found_and_a_loss_on_one_dataset_is_stopped(policy: Gate) -> None:
    assert simulated(score_alone(policy), 300, 5, 600, 0.02, 0.006)["PROMOTE"] >= 0.9
    stopped = simulated(score_alone(policy, over="episodes"), 300, 5, 600, 0.03, 0.006, loss=-0.04)
    assert stopped["PROMOTE"] == 0 and stopped["REJECT"] >= 0.9


def test_gains_are_of_the_same_episodes(policy: Gate) -> None:
    made = evidence(0.0)
    # the same accuracies on other episodes: the mean is the same, what was paired is not
    rows = made.champion.episodes.copy()
    rows["score"] = rows.groupby(["suite", "shot"])["score"].transform(lambda x: x.to_numpy()[::-1])
    paired = gained(with_challenger(made, episodes=made.champion.episodes))["score"]["letters"]["letters"][1]
    crossed = gained(with_challenger(made, episodes=rows))["score"]["letters"]["letters"][1]
    assert np.all(paired == 0) and crossed.mean() == pytest.approx(0, abs=1e-12) and crossed.std() > 0.05
