"""Is the challenger better, or lucky? Evidence → PROMOTE, HOLD or REJECT, with every figure. Pure.

Champion and challenger have answered the same frozen episodes of meta-test groups, of every kind of task that either
has a part for; the difference is taken episode by episode. What the policy (params.yaml, section gate) asks becomes
rules (`quickstudy.evaluation.rules`), those of a kind by its own evidence, and one verdict stands over them.
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from quickstudy.config import Gate
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.rules import Answer, Decision, Gains, Part, Rule, decide, signed
from quickstudy.stats.intervals import OURS, Cells, times_of

KEYS = ["dataset", "suite", "shot", "episode"]


@dataclass(frozen=True)
class Contender:
    """A model's part for a kind of task, and what it answered."""

    name: str
    """of the model, as the verdict calls it: "version 7" """
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
    part_digest: str = ""
    """of its weights and settings: two parts of the same answer alike. Of "" nobody knows"""


@dataclass(frozen=True)
class Evidence:
    """Of one kind of task."""

    challenger: Contender | None
    """None: it has no part for the kind, which the champion has"""
    champion: Contender | None
    """None: nobody was in production before, or who was has no part for the kind"""
    baselines: pd.DataFrame
    """rows of the scikit-learn methods, as `evaluate` returns them; those of other methods are not read"""
    meta_test: Mapping[str, Collection[str]]
    """today's meta-test groups by dataset (splits.yaml), which the episodes are drawn from"""
    data_digest: str
    """of today's data"""
    episodes_digest: str
    """of today's frozen episodes"""
    kind: str = "classify"
    score: str = "accuracy"
    """what the kind calls it"""
    planned: int | None = None
    """episodes a cell at the last look, where they are fewer than other kinds have"""

    @property
    def part(self) -> Part:
        """What became of the champion's part. One that did not change need not have answered."""
        if self.challenger is None:
            return "lost"
        if self.champion is None:
            return "new"
        same = self.challenger.part_digest == self.champion.part_digest != ""
        return "same" if same else "changed"

    def first(self, n: int) -> "Evidence":
        """Return what there is of the first n episodes of each cell."""
        champion, challenger = (
            contender and replace(contender, episodes=contender.episodes[contender.episodes["episode"] < n])
            for contender in (self.champion, self.challenger)
        )
        return replace(self, champion=champion, challenger=challenger)


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
    """a cell, that each model answered; 0 where no part changed"""
    looks: tuple[int, ...]
    """episodes a cell at each look so far, this one the last"""
    planned: int
    """episodes a cell at the last look"""
    confidence: float
    over: str
    data_digest: str
    episodes_digest: str
    """of several kinds of that of each"""
    kinds: Mapping[str, Answer]
    """of each kind: `quickstudy.evaluation.rules.Decision`"""

    def record(self) -> dict[str, Any]:
        """Return it as JSON can hold it: what was not measured is None."""
        values = asdict(self)
        for rule in values["rules"]:
            rule |= {name: None for name, value in rule.items() if isinstance(value, float) and math.isnan(value)}
        return values


def judge(evidence: Evidence, policy: Gate, before: Sequence[int] = (), planned: int | None = None) -> Verdict:
    """Decide on models of one kind of task: `judge_kinds`."""
    return judge_kinds([evidence], policy, before, planned)


def judge_kinds(
    evidence: Sequence[Evidence],
    policy: Gate,
    before: Sequence[int] = (),
    planned: int | None = None,
    own: Mapping[str, Gate] | None = None,
) -> Verdict:
    """Decide.

    Args:
        evidence: of each kind that either model has a part for; the challenger has one at least.
        before: episodes a cell at each earlier look at the same evidence, where it is gathered step by step.
        planned: episodes a cell at the last look; those there are where left out, which makes this the only look.
        own: policies of kinds whose margins, costs and baselines differ.

    Raises:
        QuickstudyError: the evidence does not allow a comparison: other episodes or data, groups that a model was
            trained on, other modalities or format.
        ValueError: looks that do not grow or go beyond what was planned.
    """
    answered = [one for one in evidence if one.part in ("changed", "new")]
    counts: list[int] = []
    datasets: set[str] = set()
    for one in answered:
        with about(one.kind, len(evidence) > 1):
            _check(one)
        challenger = _own(one.challenger)
        counts.append(int(challenger.groupby(["dataset", "suite", "shot"])["episode"].size().min()))
        datasets |= set(challenger["dataset"])
    episodes = max(counts, default=0)
    looks = (*before, episodes)
    planned = episodes if planned is None else planned
    if answered and (list(looks) != sorted(set(looks)) or looks[-1] > planned):
        raise ValueError(f"looks at {looks} episodes of {planned} planned do not grow towards it")
    decision = decide({one.kind: gains_of(one) for one in evidence}, policy, looks, planned, own)
    digests = [one.episodes_digest for one in answered]
    together = hashlib.sha256("".join(digests).encode()).hexdigest()
    verdict = Verdict(
        answer=decision.answer,
        sentence="",
        rules=decision.rules,
        challenger=next(one.challenger.name for one in evidence if one.challenger),
        champion=next((one.champion.name for one in evidence if one.champion), None),
        datasets=tuple(sorted(datasets)),
        episodes=episodes,
        looks=looks,
        planned=planned,
        confidence=policy.confidence,
        over=policy.over,
        data_digest=evidence[0].data_digest,
        episodes_digest=digests[0] if len(digests) == 1 else together,
        kinds=decision.kinds,
    )
    return replace(verdict, sentence=_sentence(verdict, decision, evidence))


def judge_until_settled(
    answer: Callable[[int], Sequence[Evidence]],
    policy: Gate,
    planned: int,
    own: Mapping[str, Gate] | None = None,
) -> Verdict:
    """Gather evidence until it is settled: after so many episodes a cell that PROMOTE or REJECT is certain enough, and
    at most ``planned``. The looks share the error rate (`quickstudy.stats.sequential.look_levels`).

    Args:
        answer: evidence of the first n episodes of each cell, of every kind. It is asked for growing n.
        planned: 0 where no kind has to answer.
        own: see `judge_kinds`.
    """
    steps = sorted({max(2, math.ceil(planned * k / policy.looks)) for k in range(1, policy.looks + 1)})
    before: tuple[int, ...] = ()
    for n in steps:
        verdict = judge_kinds(answer(n), policy, before, planned, own)
        if verdict.answer != "HOLD":
            break
        before = verdict.looks
    return verdict


# What may be compared


@contextlib.contextmanager
def about(kind: str, several: bool) -> Iterator[None]:
    """Name the kind in what is refused, where there are several."""
    try:
        yield
    except QuickstudyError as error:
        if not several:
            raise
        where = kind if error.where is None else f"{error.where}, {kind}"
        raise QuickstudyError(error.what, where=where, fix=error.fix) from None


def _check(evidence: Evidence) -> None:
    champion, challenger = evidence.champion, evidence.challenger
    assert challenger is not None
    if champion is not None:
        check_comparable(champion, challenger)
    for contender in (challenger,) if champion is None else (champion, challenger):
        _check_today(contender, evidence)
    if champion is not None:
        _check_pairs(champion, challenger)


def check_comparable(champion: Contender, challenger: Contender) -> None:
    """Raise QuickstudyError where the two are not models of the same make, whatever they may answer."""
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


def _own(contender: Contender | None) -> pd.DataFrame:
    """A contender's rows in the order of the keys."""
    assert contender is not None
    frame = contender.episodes
    if "method" in frame:
        frame = frame[frame["method"] == OURS]
    if frame.empty:
        raise QuickstudyError("no episodes were answered", where=contender.name, fix="`quickstudy evaluate` does it")
    return frame.sort_values(KEYS, ignore_index=True)


# Differences, episode by episode


def gains_of(evidence: Evidence) -> Gains:
    """Return what the challenger gains in a kind.

    Raises:
        QuickstudyError: a baseline lacks episodes.
    """
    part, memory = evidence.part, None
    cells = gained(evidence) if part in ("changed", "new") else {}
    if evidence.challenger and evidence.champion:
        memory = evidence.challenger.mebibytes / evidence.champion.mebibytes
    return Gains(part, evidence.score, cells, memory, evidence.planned)


def gained(evidence: Evidence) -> dict[str, Cells]:
    """Return what the challenger gains episode by episode, by the name of what is asked (`Gains.cells`).

    Raises:
        QuickstudyError: a baseline lacks episodes.
    """
    new = _own(evidence.challenger)
    found: dict[str, Cells] = {}
    if evidence.champion is not None:
        old = _own(evidence.champion)
        found["score"] = _cells(new, new["score"] - old["score"])
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


# Words


def _sentence(verdict: Verdict, decision: Decision, evidence: Sequence[Evidence]) -> str:
    who, champion, rules = verdict.challenger, verdict.champion, verdict.rules
    by_kind = {one.kind: one for one in evidence}
    several = len(evidence) > 1

    def clause(rule: Rule) -> str:
        one = by_kind[rule.kind]
        said = _clause(rule, champion, one.score)
        if rule.is_loss or not several:
            return said
        return f"in {rule.kind}{', which is new,' if champion and one.part == 'new' else ''} {said}"

    if verdict.answer == "PROMOTE":
        if not rules and champion is None:
            return f"Promote {who}: nobody was in production, and the policy asks for nothing."
        told = decision.gained if several else rules[:1]
        said = [clause(rule) for rule in told]
        untold = [kind for kind in by_kind if all(rule.kind != kind for rule in told)]
        said += [f"{kind} is new" for kind in untold if by_kind[kind].part == "new"]
        said += [f"{kind} did not change" for kind in untold if several and by_kind[kind].part == "same"]
        others = sum(rule not in told and by_kind[rule.kind].part != "same" for rule in rules)
        said += {0: [], 1: ["the other rule holds too"]}.get(others, [f"the other {others} rules hold too"])
        return f"Promote {who}: {'; '.join(said)}."
    state = "failed" if verdict.answer == "REJECT" else "open"
    because = [rule for rule in rules if rule.state == state]
    clauses = "; ".join(map(clause, because))
    if verdict.answer == "REJECT":
        return f"Reject {who}: {clauses}."
    return f"Hold {who}, it is not settled: {clauses}. {_outlook(because)}"


def _clause(rule: Rule, champion: str | None, score: str) -> str:
    """``score``: what the rule's kind calls it."""
    if rule.is_loss:
        return (
            f"it has no part for {rule.kind}, which {champion} has: tasks of {rule.kind} would get no answers any more "
            '(quickstudy promote --approve --reason "…" overrules that)'
        )
    overall = rule.what in (score, "superior")
    what, _, name = ("score", "", "") if overall else rule.what.partition(" ")
    if math.isnan(rule.gain):
        return f"{score if overall else what} was not measured, or too rarely"
    if rule.unit == "times":
        subject = {"latency": "time to adapt", "memory": "memory"}[what]
        span = f", {times_of(rule.high):.2f} to {times_of(rule.low):.2f}" if rule.low < rule.high else ""
        times, most = times_of(rule.gain), times_of(rule.limit)
        return f"it takes {times:.2f} times {champion}'s {subject} (at most {most:.2f}{span})"
    if rule.unit == "nats":
        may = f"may rise by {-rule.limit:.3f}"
        return (
            f"its negative log likelihood differs by {signed(-rule.gain, 3)} "
            f"({signed(-rule.high, 3)} to {signed(-rule.low, 3)}; {may})"
        )
    digits = 1 if max(abs(rule.low), abs(rule.high)) >= 0.01 else 2
    span = f"{signed(100 * rule.low, digits)} to {signed(100 * rule.high, digits)}"
    may = f"; {-100 * rule.limit:.1f} may be lost" if rule.limit else ""
    against = f"the baseline {name}" if what == "baseline" else champion
    where = f" on {name}" if what == "dataset" else ""
    return f"{signed(100 * rule.gain, digits)} points of {score} over {against}{where} ({span}{may})"


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
