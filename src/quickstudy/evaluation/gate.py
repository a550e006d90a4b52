"""Is the challenger better, or lucky? Evidence → PROMOTE, HOLD or REJECT, with every figure. Pure.

Champion and challenger have answered the same frozen episodes of meta-test groups; the difference is taken episode by
episode. What the policy (params.yaml, section gate) asks becomes rules, each a gain with its interval and a limit that
the gain has to lie above:

    passed   the whole interval lies above the limit
    failed   the whole interval lies below it
    open     the limit lies within: the evidence does not say

PROMOTE where every rule passed, REJECT where one failed, HOLD otherwise. As all of them have to pass, each may be
tested at the full level (Berger 1982, "Multiparameter hypothesis testing and acceptance sampling", Technometrics
24(4)); among the datasets one failure is enough, so theirs is divided by their number (Bonferroni).

The gain in accuracy is claimed for what ``gate.over`` says: other datasets like these, or these alone. The other rules
ask about what stands here: these datasets, at these costs, against these baselines.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from quickstudy.config import Gate
from quickstudy.errors import QuickstudyError
from quickstudy.stats.intervals import OURS, Cells, Estimate, estimate, student_quantile
from quickstudy.stats.sequential import look_levels

Answer = Literal["PROMOTE", "HOLD", "REJECT"]
State = Literal["passed", "open", "failed"]
Unit = Literal["points", "nats", "times"]

KEYS = ["dataset", "suite", "shot", "episode"]
MOST = 100  # times as many episodes, or datasets: whoever would need more is told that it cannot be settled

# Which levels, datasets and groups (suites), are a sample of others that the gain shall hold for too.
SAMPLED = {"datasets": (True, True), "groups": (False, True), "episodes": (False, False)}


@dataclass(frozen=True)
class Contender:
    """A model and what it answered."""

    name: str
    """as the verdict calls it: "version 7" """
    episodes: pd.DataFrame
    """what `quickstudy.evaluation.answers.evaluate` returns; only its rows of method quickstudy are read"""
    trained_on: Mapping[str, Collection[str]]
    """groups by dataset (lineage.json of the model)"""
    modalities: Collection[str]
    format: int
    """of the saved model"""
    mebibytes: float
    """of its weights, which are in memory as long as it serves"""
    data_digest: str
    """of the data that ``episodes`` were answered on"""
    episodes_digest: str
    """of the frozen episodes that it answered"""


@dataclass(frozen=True)
class Evidence:
    challenger: Contender
    champion: Contender | None
    """None: nobody was in production before"""
    baselines: pd.DataFrame
    """rows of the scikit-learn methods, as `evaluate` returns them; those of other methods are not read"""
    meta_test: Mapping[str, Collection[str]]
    """today's meta-test groups by dataset (splits.yaml), which the episodes are drawn from"""
    data_digest: str
    """of today's data"""
    episodes_digest: str
    """of today's frozen episodes"""

    def first(self, n: int) -> "Evidence":
        """What there is of the first n episodes of each cell."""
        champion, challenger = (
            contender and replace(contender, episodes=contender.episodes[contender.episodes["episode"] < n])
            for contender in (self.champion, self.challenger)
        )
        assert challenger is not None
        return replace(self, champion=champion, challenger=challenger)


@dataclass(frozen=True)
class Rule:
    """What the policy asks, and what the evidence says to it."""

    name: str
    """accuracy, dataset NAME, calibration, latency, memory, baseline NAME"""
    unit: Unit
    """points: gains are of accuracy, 0.01 is a point. nats: of the likelihood. times: logarithms of a ratio"""
    gain: float
    low: float
    high: float
    """ends of the interval. Positive is better, in every unit"""
    limit: float
    """that the gain has to lie above"""
    state: State
    more_episodes: int | None = None
    """a cell (suite and number of shots; of latency those timed), beyond those there are, that would settle it if the
    gain stays as it is"""
    more_datasets: int | None = None
    """that would, where no number of episodes does"""

    @staticmethod
    def of(record: Mapping[str, Any]) -> "Rule":
        """A rule of `Verdict.record`."""
        nan = {name: math.nan for name in ("gain", "low", "high") if record[name] is None}
        return Rule(**{**record, **nan})

    def cells(self) -> tuple[str, str, str, str]:
        """Name, gain, interval, what is asked, for a table."""
        if self.unit == "times":
            asked = f"at most ×{math.exp(-self.limit):.2f}"
        else:
            scale, digits = (100, 2) if self.unit == "points" else (1, 3)
            asked = f"above {scale * self.limit:+.{digits}f}" if self.limit else "above 0"
        if math.isnan(self.gain):
            return self.name, "not measured, or too rarely", "", asked
        if self.unit == "times":
            return (
                self.name,
                f"×{math.exp(-self.gain):.2f}",
                f"{math.exp(-self.high):.2f} to {math.exp(-self.low):.2f}",
                asked,
            )
        gain, low, high = (_signed(scale * x, digits) for x in (self.gain, self.low, self.high))
        return self.name, f"{gain} {self.unit}", f"{low} to {high}", asked

    def __str__(self) -> str:
        name, gain, interval, asked = self.cells()
        return f"{name}: {gain} [{interval}], {asked}: {self.state}" if interval else f"{name}: {gain}"


@dataclass(frozen=True)
class Verdict:
    answer: Answer
    sentence: str
    """for a person who decides"""
    rules: tuple[Rule, ...]
    challenger: str
    champion: str | None
    datasets: tuple[str, ...]
    episodes: int
    """a cell, that each model answered"""
    looks: tuple[int, ...]
    """episodes a cell at each look so far, this one the last"""
    planned: int
    """episodes a cell at the last look"""
    confidence: float
    over: str
    data_digest: str
    episodes_digest: str

    def record(self) -> dict[str, Any]:
        """As JSON can hold it: what was not measured is None."""
        values = asdict(self)
        for rule in values["rules"]:
            rule |= {name: None for name, value in rule.items() if isinstance(value, float) and math.isnan(value)}
        return values


def judge(evidence: Evidence, policy: Gate, before: Sequence[int] = (), planned: int | None = None) -> Verdict:
    """Decide.

    Args:
        before: episodes a cell at each earlier look at the same evidence, where it is gathered step by step.
        planned: episodes a cell at the last look; those there are where left out, which makes this the only look.

    Raises:
        QuickstudyError: the evidence does not allow a comparison: other episodes or data, groups that a model was
            trained on, other modalities or format.
        ValueError: looks that do not grow or go beyond what was planned.
    """
    _check(evidence)
    challenger = _own(evidence.challenger)
    episodes = int(challenger.groupby(["dataset", "suite", "shot"])["episode"].size().min())
    looks = (*before, episodes)
    planned = episodes if planned is None else planned
    if list(looks) != sorted(set(looks)) or looks[-1] > planned:
        raise ValueError(f"looks at {looks} episodes of {planned} planned do not grow towards it")
    rules = decide(gains(evidence), memory_ratio(evidence), policy, looks, planned)
    verdict = Verdict(
        answer=answer_of(rules),
        sentence="",
        rules=rules,
        challenger=evidence.challenger.name,
        champion=evidence.champion.name if evidence.champion else None,
        datasets=tuple(sorted(set(challenger["dataset"]))),
        episodes=episodes,
        looks=looks,
        planned=planned,
        confidence=policy.confidence,
        over=policy.over,
        data_digest=evidence.data_digest,
        episodes_digest=evidence.episodes_digest,
    )
    return replace(verdict, sentence=_sentence(verdict))


def judge_until_settled(answer: Callable[[int], Evidence], policy: Gate, planned: int) -> Verdict:
    """Gather evidence until it is settled: after so many episodes a cell that PROMOTE or REJECT is certain enough, and
    at most ``planned``. The looks share the error rate (`quickstudy.stats.sequential.look_levels`).

    Args:
        answer: evidence of the first n episodes of each cell. It is asked for growing n.
    """
    steps = sorted({max(2, math.ceil(planned * k / policy.looks)) for k in range(1, policy.looks + 1)})
    before: tuple[int, ...] = ()
    for n in steps:
        verdict = judge(answer(n), policy, before, planned)
        if verdict.answer != "HOLD":
            break
        before = verdict.looks
    return verdict


# What may be compared


def _check(evidence: Evidence) -> None:
    champion, challenger = evidence.champion, evidence.challenger
    if champion is not None:
        check_kind(champion, challenger)
    for contender in (challenger,) if champion is None else (champion, challenger):
        _check_today(contender, evidence)
    if champion is not None:
        _check_pairs(champion, challenger)


def check_kind(champion: Contender, challenger: Contender) -> None:
    """Raises QuickstudyError where the two are not models of the same kind, whatever they may answer."""
    for what, old, new in (
        ("format", str(champion.format), str(challenger.format)),
        ("modalities", ", ".join(sorted(champion.modalities)), ", ".join(sorted(challenger.modalities))),
    ):
        if old != new:
            raise QuickstudyError(
                f"not comparable: the champion is from before a change of {what} ({old}, {challenger.name}: {new})",
                where=champion.name,
                fix="Train the champion's parameters anew and compare with that, or decide by hand, with the reason",
            )


def _check_today(contender: Contender, evidence: Evidence) -> None:
    for what, its, todays, mend in (
        ("its evidence is older than the data", contender.data_digest, evidence.data_digest, "today's data"),
        ("it answered other episodes", contender.episodes_digest, evidence.episodes_digest, "today's frozen episodes"),
    ):
        if its != todays:
            raise QuickstudyError(
                f"{what} ({its[:12]}, now {todays[:12]})", where=contender.name, fix=f"Evaluate it on {mend}"
            )
    for dataset, groups in evidence.meta_test.items():
        if seen := sorted(set(contender.trained_on.get(dataset, ())) & set(groups)):
            more = f" and {len(seen) - 3} more" if len(seen) > 3 else ""
            raise QuickstudyError(
                f"it was trained on meta-test groups of {dataset}: {', '.join(seen[:3])}{more}",
                where=contender.name,
                fix="What it scores there proves nothing. Train one with today's splits",
            )


def _check_pairs(champion: Contender, challenger: Contender) -> None:
    old, new = _own(champion), _own(challenger)
    about = [*KEYS, "way", "query"]
    if len(old) != len(new) or not all(np.array_equal(old[key].to_numpy(), new[key].to_numpy()) for key in about):
        cells = [set(zip(frame["suite"], frame["shot"], strict=True)) for frame in (old, new)]
        odd = sorted(cells[0] ^ cells[1])
        what = f"{len(old):,} and {len(new):,} rows" + (f", {odd[0][0]} {odd[0][1]}-shot in one alone" if odd else "")
        raise QuickstudyError(
            f"{champion.name} and {challenger.name} answered different episodes ({what})",
            fix="Evaluate both on the same frozen episodes",
        )


def _own(contender: Contender) -> pd.DataFrame:
    """A contender's rows in the order of the keys."""
    frame = contender.episodes
    if "method" in frame:
        frame = frame[frame["method"] == OURS]
    if frame.empty:
        raise QuickstudyError("no episodes were answered", where=contender.name, fix="`quickstudy evaluate` does it")
    return frame.sort_values(KEYS, ignore_index=True)


# Differences, episode by episode


def gains(evidence: Evidence) -> dict[str, Cells]:
    """What the challenger gains, by the name of what is asked: accuracy, calibration (nats) and latency (logarithms of
    ratios; of the episodes that both were timed on) over the champion, ``baseline NAME`` (accuracy) over that.

    Raises:
        QuickstudyError: a baseline lacks episodes.
    """
    new = _own(evidence.challenger)
    found: dict[str, Cells] = {}
    if evidence.champion is not None:
        old = _own(evidence.champion)
        found["accuracy"] = _cells(new, new["score"] - old["score"])
        found["calibration"] = _cells(new, _column(old, "nll") - _column(new, "nll"))
        with np.errstate(invalid="ignore", divide="ignore"):
            faster = np.log(_column(old, "adapt_ms") / _column(new, "adapt_ms"))
        timed = faster.notna()
        found["latency"] = _cells(new[timed], faster[timed])
    theirs = evidence.baselines
    theirs = theirs[~theirs["method"].isin([OURS, "scratch"])]
    for method, rows in theirs.groupby("method", sort=True):
        both = new.merge(rows[[*KEYS, "score"]], how="left", on=KEYS, suffixes=("", "_theirs"))
        if len(both) != len(new) or both["score_theirs"].isna().any():
            raise QuickstudyError(
                f"the baseline {method} answered other episodes", fix="Evaluate it on today's frozen episodes"
            )
        found[f"baseline {method}"] = _cells(both, both["score"] - both["score_theirs"])
    return found


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame[name] if name in frame else pd.Series(math.nan, index=frame.index)


def _cells(frame: pd.DataFrame, values: pd.Series) -> Cells:
    tree: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for (dataset, suite, shot), part in values.groupby([frame["dataset"], frame["suite"], frame["shot"]], sort=False):
        tree.setdefault(dataset, {}).setdefault(suite, {})[int(shot)] = part.to_numpy(dtype=np.float64)
    return tree


def memory_ratio(evidence: Evidence) -> float | None:
    """Times the champion's."""
    return evidence.challenger.mebibytes / evidence.champion.mebibytes if evidence.champion else None


# Rules


def decide(
    gained: Mapping[str, Cells], memory: float | None, policy: Gate, looks: Sequence[int], planned: int
) -> tuple[Rule, ...]:
    """Every rule of the policy. Where there is no champion, only the baselines are asked for.

    Args:
        gained: see `gains`. memory: see `memory_ratio`.
        looks: episodes a cell at each look, the present one the last. planned: those at the last look.
    """
    alpha = (1 - policy.confidence) / 2
    level = look_levels(tuple(n / planned for n in looks), alpha)[-1]

    def rule(
        name: str, unit: Unit, values: Cells, limit: float, sampled: tuple[bool, bool] = (False, False), among: int = 1
    ) -> Rule:
        """``among``: so many rules, of which one failure is enough."""
        found = estimate(values, sampled) if values else None
        if found is None or math.isnan(found.variance):
            return Rule(name, unit, math.nan, math.nan, math.nan, limit, "open")
        low, high = (float(end) for end in found.interval(level / among))
        gain = float(found.mean)
        if low > limit or high < limit:
            return Rule(name, unit, gain, low, high, limit, "passed" if low > limit else "failed")
        more = _more(found, values, limit, alpha / among, sampled[0])
        return Rule(name, unit, gain, low, high, limit, "open", *more)

    rules = []
    if "accuracy" in gained:
        accuracy = gained["accuracy"]
        limit = 0.0 if policy.accuracy == "superior" else -policy.margin
        rules.append(rule("accuracy", "points", accuracy, limit, SAMPLED[policy.over]))
        for name, suites in accuracy.items():
            limit = -policy.margin_of(name)
            rules.append(rule(f"dataset {name}", "points", {name: suites}, limit, among=len(accuracy)))
        if policy.calibration_margin is not None:
            rules.append(rule("calibration", "nats", gained["calibration"], -policy.calibration_margin))
        if policy.latency is not None:
            rules.append(rule("latency", "times", gained["latency"], -math.log(policy.latency)))
        if policy.memory is not None and memory is not None:
            gain = -math.log(memory)
            state: State = "passed" if memory <= policy.memory else "failed"
            rules.append(Rule("memory", "times", gain, gain, gain, -math.log(policy.memory), state))
    if policy.baselines:
        against = [rule(name, "points", cells, 0.0) for name, cells in gained.items() if name.startswith("baseline ")]
        missing = Rule("baseline", "points", math.nan, math.nan, math.nan, 0.0, "open")
        rules.append(min(against, key=lambda one: one.low, default=missing))  # the best; the others lie further below
    return tuple(rules)


def answer_of(rules: Sequence[Rule]) -> Answer:
    states = {rule.state for rule in rules}
    return "REJECT" if "failed" in states else "HOLD" if "open" in states else "PROMOTE"


def _more(
    found: Estimate, values: Cells, limit: float, level: float, datasets_are_sampled: bool
) -> tuple[int | None, int | None]:
    """How many more episodes a cell would move the interval off the limit if the mean stays; where no number does, how
    many more datasets like these."""
    distance = abs(float(found.mean) - limit)
    of_episodes = float(estimate(values).variance)  # falls with their number; the rest stays
    stays = max(float(found.variance) - of_episodes, 0.0)
    room = (distance / student_quantile(level, found.freedom)) ** 2 - stays
    there = min(len(cell) for suites in values.values() for shots in suites.values() for cell in shots.values())
    if room > 0 and (needed := there * of_episodes / room) <= MOST * there:
        return max(math.ceil(needed) - there, 1), None
    if datasets_are_sampled and len(values) > 1:
        for k in range(len(values) + 1, MOST + 1):
            if student_quantile(level, k - 1) * math.sqrt(found.variance * len(values) / k) < distance:
                return None, k - len(values)
    return None, None


# Words


def _sentence(verdict: Verdict) -> str:
    who, champion, rules = verdict.challenger, verdict.champion, verdict.rules
    if verdict.answer == "PROMOTE":
        if not rules:
            return f"Promote {who}: nobody was in production, and the policy asks for nothing."
        first = _clause(rules[0], champion)
        rest = f"; the other {len(rules) - 1} rules hold too" if len(rules) > 1 else ""
        return f"Promote {who}: {first}{rest}."
    state = "failed" if verdict.answer == "REJECT" else "open"
    told = [rule for rule in rules if rule.state == state]
    clauses = "; ".join(_clause(rule, champion) for rule in told)
    if verdict.answer == "REJECT":
        return f"Reject {who}: {clauses}."
    return f"Hold {who}, it is not settled: {clauses}. {_outlook(told)}"


def _clause(rule: Rule, champion: str | None) -> str:
    what, _, name = rule.name.partition(" ")
    if math.isnan(rule.gain):
        return f"{what} was not measured, or too rarely"
    if rule.unit == "times":
        subject = {"latency": "time to adapt", "memory": "memory"}[what]
        span = f", {math.exp(-rule.high):.2f} to {math.exp(-rule.low):.2f}" if rule.low < rule.high else ""
        times, most = math.exp(-rule.gain), math.exp(-rule.limit)
        return f"it takes {times:.2f} times {champion}'s {subject} (at most {most:.2f}{span})"
    if rule.unit == "nats":
        may = f"may rise by {-rule.limit:.3f}"
        return (
            f"its negative log likelihood differs by {_signed(-rule.gain, 3)} "
            f"({_signed(-rule.high, 3)} to {_signed(-rule.low, 3)}; {may})"
        )
    digits = 1 if max(abs(rule.low), abs(rule.high)) >= 0.01 else 2
    span = f"{_signed(100 * rule.low, digits)} to {_signed(100 * rule.high, digits)}"
    may = f"; {-100 * rule.limit:.1f} may be lost" if rule.limit else ""
    against = f"the baseline {name}" if what == "baseline" else champion
    where = f" on {name}" if what == "dataset" else ""
    return f"{_signed(100 * rule.gain, digits)} points of accuracy over {against}{where} ({span}{may})"


def _signed(x: float, digits: int) -> str:
    return f"{round(x, digits) + 0.0:+.{digits}f}"  # nothing is −0.0


def _outlook(open_rules: Sequence[Rule]) -> str:
    """What would settle a HOLD."""
    measured = [rule for rule in open_rules if not math.isnan(rule.gain)]
    if len(measured) < len(open_rules):
        return "Measure that and judge again."
    if all(rule.more_episodes is not None for rule in measured):
        most = max(rule.more_episodes or 0 for rule in measured)
        return f"About {most:,} more episodes a cell would settle it if the figures stay as they are."
    datasets = [rule.more_datasets for rule in measured if rule.more_datasets is not None]
    if datasets:
        return (
            f"No number of episodes would, as the datasets differ too much; {max(datasets)} more like these might "
            "(gate.over: episodes asks about these alone)."
        )
    return "No number of episodes would: the models are as good as equal there."
