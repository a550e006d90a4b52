"""What the gate asks, as rules: each a gain with its interval, and a limit that the gain has to lie above. Pure.

    passed   the whole interval lies above the limit
    failed   the whole interval lies below it
    open     the limit lies within: the evidence does not say

PROMOTE where every rule passed, REJECT where one failed, HOLD otherwise. As all of them have to pass, each may be
tested at the full level (Berger 1982, "Multiparameter hypothesis testing and acceptance sampling", Technometrics
24(4)), however many kinds of task they are of; among the datasets of a kind one failure is enough, so theirs is divided
by their number (Bonferroni).

Each kind has rules of its own: it loses no more than its margins, costs no more than it may, and beats its baselines.
Where ``gate.score`` is superior, the challenger shall be better too, in one kind at least. That is claimed if any of K
kinds seems better, and each has a chance of its own to seem so by luck. So each is tested at 1/K of the level: equal
models are promoted no more often than with one kind, whatever the kinds have in common (Bonferroni). K counts the parts
that changed: one with the same bits gains exactly 0 and cannot seem better. Where a single part changed, its claim
takes the place of the rule that it loses no more than its margin. A part for a kind that the champion has none for is a
gain as soon as it beats its baselines, as a first model does; no other need be better then.

The gain in score is claimed for what ``gate.over`` says: other datasets like these, or these alone. The other rules ask
about what stands here: these datasets, at these costs, against these baselines.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from quickstudy.config import Gate
from quickstudy.stats.intervals import Cells, Estimate, estimate, student_quantile, times_of
from quickstudy.stats.sequential import look_levels

Answer = Literal["PROMOTE", "HOLD", "REJECT"]
State = Literal["passed", "open", "failed"]
Unit = Literal["points", "nats", "times"]
Part = Literal["changed", "same", "new", "lost"]
"""A kind's part of the challenger, beside the champion's: both have one, of other or of the same bits, or one alone."""

MOST = 100  # times as many episodes, or datasets: whoever would need more is told that it cannot be settled

# Which levels, datasets and groups (suites), are a sample of others that the gain shall hold for too.
SAMPLED = {"datasets": (True, True), "groups": (False, True), "episodes": (False, False)}


@dataclass(frozen=True)
class Rule:
    """What the policy asks, and what the evidence says to it."""

    name: str
    """the kind's name of its score, superior, dataset NAME, calibration, latency, memory, baseline NAME; in front of it
    "KIND: " where there are several kinds. part KIND: of one that the challenger lacks"""
    unit: Unit
    """points: gains are of the score, 0.01 is a point. nats: of the likelihood. times: logarithms of a ratio"""
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
    kind: str = "classify"
    """of task. Records of before there were kinds have none"""

    @staticmethod
    def of(record: Mapping[str, Any]) -> "Rule":
        """Return a rule of `quickstudy.evaluation.gate.Verdict.record`."""
        nan = {name: math.nan for name in ("gain", "low", "high") if record[name] is None}
        return Rule(**{**record, **nan})

    @property
    def what(self) -> str:
        """Its name without the kind."""
        return self.name.removeprefix(f"{self.kind}: ")

    @property
    def is_loss(self) -> bool:
        """Whether it says that the challenger lacks a part."""
        return self.name == f"part {self.kind}"

    def cells(self) -> tuple[str, str, str, str]:
        """Return name, gain, interval and what is asked, for a table."""
        if self.is_loss:
            return self.name, "lost", "", "kept"
        if self.unit == "times":
            asked = f"at most ×{times_of(self.limit):.2f}"
        else:
            scale, digits = (100, 2) if self.unit == "points" else (1, 3)
            asked = f"above {scale * self.limit:+.{digits}f}" if self.limit else "above 0"
        if math.isnan(self.gain):
            return self.name, "not measured, or too rarely", "", asked
        if self.unit == "times":
            return (
                self.name,
                f"×{times_of(self.gain):.2f}",
                f"{times_of(self.high):.2f} to {times_of(self.low):.2f}",
                asked,
            )
        gain, low, high = (signed(scale * x, digits) for x in (self.gain, self.low, self.high))
        return self.name, f"{gain} {self.unit}", f"{low} to {high}", asked

    def __str__(self) -> str:
        name, gain, interval, asked = self.cells()
        return f"{name}: {gain} [{interval}], {asked}: {self.state}" if interval else f"{name}: {gain}"


def signed(x: float, digits: int) -> str:
    """Return a number with its sign."""
    return f"{round(x, digits) + 0.0:+.{digits}f}"  # nothing is −0.0


@dataclass(frozen=True)
class Gains:
    """What the challenger gains in a kind."""

    part: Part = "changed"
    score: str = "accuracy"
    """what the kind calls it"""
    cells: Mapping[str, Cells] = field(default_factory=dict)
    """score, calibration (nats) and latency (logarithms of ratios; of the episodes that both were timed on) over the
    champion, ``baseline NAME`` (score) over that. Of a new part the baselines alone, of others that did not change,
    none"""
    memory: float | None = None
    """times the champion's"""
    planned: int | None = None
    """episodes a cell at its last look, where they are fewer than other kinds have"""


@dataclass(frozen=True)
class Decision:
    """What the rules say."""

    answer: Answer
    rules: tuple[Rule, ...]
    kinds: Mapping[str, Answer]
    """of each kind. PROMOTE: it passes its rules and is better, where that is asked for. HOLD: it is no better, or that
    is not certain. REJECT: a rule of it failed"""
    gained: tuple[Rule, ...]
    """what is told of a promotion: of each kind that is better its claim, of a new one the baseline that it beats; the
    score of each part that changed, where nothing need be better"""


def decide(
    gains: Mapping[str, Gains], policy: Gate, looks: Sequence[int], planned: int, own: Mapping[str, Gate] | None = None
) -> Decision:
    """Make the rules of every kind, and say what follows from them all.

    Args:
        gains: by kind.
        policy: what is asked of all: ``score``, ``over``, ``confidence``.
        looks: episodes a cell at each look, the present one the last. planned: those at the last look.
        own: policies of kinds whose margins, costs and baselines differ.
    """
    alpha = (1 - policy.confidence) / 2
    superior = policy.score == "superior"
    kept = [kind for kind, one in gains.items() if one.part in ("changed", "same")]
    claimed = [kind for kind in kept if gains[kind].part == "changed"] or kept
    new = any(one.part == "new" for one in gains.values())
    asked = superior and not new  # a new part that passes is better than none
    several = len(gains) > 1
    rules: dict[str, list[Rule]] = {}
    claims: dict[str, Rule] = {}
    for kind, one in gains.items():
        last = planned if one.planned is None else min(one.planned, planned)
        times = tuple(dict.fromkeys(min(n, last) / last for n in looks)) if last else (1.0,)
        test = _Test(kind, f"{kind}: " if several else "", times, alpha)
        alone = asked and claimed == [kind]
        rules[kind] = _rules(test, one, policy, (own or {}).get(kind, policy), alone)
        if superior and kind in kept:
            one_of = _Test(kind, test.prefix, times, alpha / len(claimed))
            claims[kind] = rules[kind][0] if alone else _score(one_of, "superior", one, None, SAMPLED[policy.over])
    everything = [rule for found in rules.values() for rule in found]
    if asked and len(claimed) > 1:
        everything.insert(0, _best(claims[kind] for kind in claimed))
    kinds = {kind: answer_of(found) for kind, found in rules.items()}
    kinds |= {kind: "HOLD" for kind, claim in claims.items() if kinds[kind] == "PROMOTE" and claim.state != "passed"}
    scores = claims if superior else {kind: rules[kind][0] for kind in kept if gains[kind].part == "changed"}
    gained = [rule for rule in scores.values() if rule.state == "passed"]
    gained += [rule for kind, found in rules.items() if gains[kind].part == "new" for rule in found]
    return Decision(answer_of(everything), tuple(everything), kinds, tuple(gained))


def answer_of(rules: Iterable[Rule]) -> Answer:
    """Return what follows from rules that all have to pass."""
    states = {rule.state for rule in rules}
    return "REJECT" if "failed" in states else "HOLD" if "open" in states else "PROMOTE"


@dataclass(frozen=True)
class _Test:
    """How a rule of a kind is tested: at a level that all looks share."""

    kind: str
    prefix: str
    """of the rule's name"""
    times: tuple[float, ...]
    """of the looks, as shares of the evidence"""
    alpha: float
    """of all looks together"""

    def rule(
        self,
        name: str,
        unit: Unit,
        values: Cells,
        limit: float,
        sampled: tuple[bool, bool] = (False, False),
        among: int = 1,
    ) -> Rule:
        """``among``: so many rules, of which one failure is enough."""
        name = f"{self.prefix}{name}"
        found = estimate(values, sampled) if values else None
        if found is None or math.isnan(found.variance):
            return Rule(name, unit, math.nan, math.nan, math.nan, limit, "open", kind=self.kind)
        level = look_levels(self.times, self.alpha)[-1]
        low, high = (float(end) for end in found.interval(level / among))
        gain = float(found.mean)
        if low > limit or high < limit:
            return Rule(name, unit, gain, low, high, limit, "passed" if low > limit else "failed", kind=self.kind)
        more = _more(found, values, limit, self.alpha / among, sampled[0])
        return Rule(name, unit, gain, low, high, limit, "open", *more, kind=self.kind)


def _rules(test: _Test, one: Gains, policy: Gate, own: Gate, alone: bool) -> list[Rule]:
    """Those of a kind. ``alone``: no other kind can be better, so that this one has to be."""
    if one.part == "lost":
        nothing = math.nan, math.nan, math.nan
        return [Rule(f"part {test.kind}", "points", *nothing, 0.0, "failed", kind=test.kind)]
    rules = []
    if one.part != "new":
        rules.append(_score(test, one.score, one, None if alone else own.margin, SAMPLED[policy.over]))
    if one.part == "same":
        return rules
    if one.part == "changed":
        datasets = one.cells["score"]
        for name, suites in datasets.items():
            limit = -own.margin_of(name)
            rules.append(test.rule(f"dataset {name}", "points", {name: suites}, limit, among=len(datasets)))
        if own.calibration_margin is not None:
            rules.append(test.rule("calibration", "nats", one.cells["calibration"], -own.calibration_margin))
        if own.latency is not None:
            rules.append(test.rule("latency", "times", one.cells["latency"], -math.log(own.latency)))
        if own.memory is not None and one.memory is not None:
            gain = -math.log(one.memory)
            state: State = "passed" if one.memory <= own.memory else "failed"
            name, limit = f"{test.prefix}memory", -math.log(own.memory)
            rules.append(Rule(name, "times", gain, gain, gain, limit, state, kind=test.kind))
    if own.baselines:
        names = [name for name in one.cells if name.startswith("baseline ")]
        against = [test.rule(name, "points", one.cells[name], 0.0) for name in names]
        rules.append(min(against, key=lambda rule: rule.low, default=test.rule("baseline", "points", {}, 0.0)))
    return rules


def _score(test: _Test, name: str, one: Gains, margin: float | None, sampled: tuple[bool, bool]) -> Rule:
    """The gain in score. ``margin``: that it may lose; None: it shall be better. A part of the same bits gains exactly
    0: it loses nothing, and is not better."""
    limit = 0.0 if margin is None else -margin
    if one.part == "same":
        state: State = "open" if margin is None else "passed"
        return Rule(f"{test.prefix}{name}", "points", 0.0, 0.0, 0.0, limit, state, kind=test.kind)
    return test.rule(name, "points", one.cells["score"], limit, sampled)


def _best(claims: Iterable[Rule]) -> Rule:
    """The claim that decides, as one is enough."""
    order = ("passed", "open", "failed")
    return min(claims, key=lambda rule: (order.index(rule.state), math.inf if math.isnan(rule.low) else -rule.low))


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
