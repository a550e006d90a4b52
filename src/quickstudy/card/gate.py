"""The gate's word on this version, and what it answered beside the champion, in tables."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from quickstudy.card.part import Part
from quickstudy.errors import QuickstudyError
from quickstudy.report.evidence import GateWord
from quickstudy.report.words import Markdown, difference, marked, plain, rows, signed
from quickstudy.stats.intervals import OURS, mean_interval, paired_interval, times_of

UNITS = {"points": (100, 2, " points"), "nats": (1, 3, " nats")}


def rules(gate: GateWord) -> Markdown:
    """Return a row a rule: its gain, what was asked, and whether it passed."""
    verdict = gate.verdict
    body = [
        [rule["name"], _gain(rule), _span(rule), _limit(rule), Markdown(f"**{plain(rule['state'])}**")]
        for rule in verdict["rules"]
    ]
    return rows(["rule", "gain", f"{100 * verdict['confidence']:g}% interval", "asked", "it"], body, "lrrrl")


def champion_summary(part: Part) -> Mapping[tuple[str, int], tuple[float, float, int]]:
    """Return of the champion by suite and shot: score, half the width of its interval, episodes."""
    if part.champion.empty:
        return {}
    return {
        (suite, shot): (*mean_interval(these["score"].to_numpy()), len(these))
        for (suite, shot), these in part.champion.groupby(["suite", "shot"], sort=False)
    }


def paired_with_champion(part: Part) -> pd.DataFrame:
    """Return of the episodes that both answered suite, shot, episode and the scores ``ours`` and ``champion``.

    Raises:
        QuickstudyError: there is no such episode.
    """
    assert part.gate is not None
    own = part.evidence.episodes[part.evidence.episodes["method"] == OURS]
    keys = ["dataset", "suite", "shot", "episode"]
    theirs = part.champion[[*keys, "score"]].rename(columns={"score": "champion"})
    both = own[[*keys, "score"]].rename(columns={"score": "ours"}).merge(theirs, on=keys)
    if both.empty:
        raise QuickstudyError(
            f"{part.gate.name} answered no episode that this version was judged on",
            where="champion.parquet",
            fix="Ask the gate again, on today's frozen episodes",
        )
    return both


class Beside(NamedTuple):
    """The model beside the champion, episode by episode."""

    mean: str
    """of the difference, over the cells"""
    table: Markdown


def beside_champion(part: Part) -> Beside:
    """Return the difference a suite and number of shots."""
    both = paired_with_champion(part)
    body = []
    for suite in dict.fromkeys(both["suite"]):
        cells = dict.fromkeys(part.evidence.shots, "–")
        for shot, these in both[both["suite"] == suite].groupby("shot"):
            cells[int(shot)] = marked(*_difference([these]))
        body.append([suite, *cells.values()])
    head = ["suite", *map(part.shots, part.evidence.shots)]
    groups = [these for _, these in both.groupby(["suite", "shot"])]
    return Beside(difference(*_difference(groups)), rows(head, body, "l" + "r" * len(part.evidence.shots)))


def _difference(parts: list[pd.DataFrame]) -> tuple[float, float]:
    ours, theirs = ([part[who].to_numpy(dtype=np.float64) for part in parts] for who in ("ours", "champion"))
    return paired_interval(ours, theirs)


def _is_loss(rule: Mapping[str, Any]) -> bool:
    """Whether it says that this version lacks a part that the champion has."""
    return "kind" in rule and rule["name"] == f"part {rule['kind']}"


def _gain(rule: Mapping[str, Any]) -> str:
    if _is_loss(rule):
        return "lost"
    if rule["gain"] is None:
        return "not measured"
    if rule["unit"] == "times":
        return f"×{times_of(rule['gain']):.2f}"
    scale, digits, unit = UNITS[rule["unit"]]
    return signed(scale * rule["gain"], digits) + unit


def _span(rule: Mapping[str, Any]) -> str:
    if rule["low"] is None or rule["low"] == rule["high"]:
        return "–"
    if rule["unit"] == "times":
        return f"×{times_of(rule['high']):.2f} to {times_of(rule['low']):.2f}"
    scale, digits, _ = UNITS[rule["unit"]]
    return f"{signed(scale * rule['low'], digits)} to {signed(scale * rule['high'], digits)}"


def _limit(rule: Mapping[str, Any]) -> str:
    if _is_loss(rule):
        return "kept"
    if rule["unit"] == "times":
        return f"at most ×{times_of(rule['limit']):.2f}"
    scale, digits, _ = UNITS[rule["unit"]]
    return f"above {signed(scale * rule['limit'], digits)}" if rule["limit"] else "above 0"
