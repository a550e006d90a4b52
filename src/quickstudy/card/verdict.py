"""The gate's word on this version, and what it answered beside the champion."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from quickstudy.errors import QuickstudyError
from quickstudy.report.evidence import Evidence
from quickstudy.report.words import difference, marked, plain, rows, shots, signed
from quickstudy.stats.intervals import OURS, mean_interval, paired_interval

UNITS = {"points": (100, 2, " points"), "nats": (1, 3, " nats")}


def gates_word(evidence: Evidence) -> list[str]:
    """The sections; none where the gate has not been asked."""
    if evidence.gate is None:
        return []
    verdict = evidence.gate.verdict
    body = [
        [plain(rule["name"]), _gain(rule), _span(rule), _limit(rule), f"**{rule['state']}**"]
        for rule in verdict["rules"]
    ]
    parts = [
        "## The gate's word",
        f"**{plain(verdict['answer'])}.** {plain(verdict['sentence'])}",
        rows(["rule", "gain", f"{100 * verdict['confidence']:g}% interval", "asked", "it"], body, "lrrrl"),
        "A gain above 0 is better; of times and memory the rule gives how many times the champion's. Passed: the whole "
        "interval lies above what is asked; failed: below it; open: the evidence does not say.",
    ]
    if len(evidence.gate.champion):
        parts += ["### Beside the champion", _beside(evidence)]
    return parts


def champion_summary(evidence: Evidence) -> Mapping[tuple[str, int], tuple[float, float, int]]:
    """Of the champion by suite and shot: accuracy, half the width of its interval, episodes."""
    if evidence.gate is None or evidence.gate.champion.empty:
        return {}
    return {
        (suite, shot): (*mean_interval(part["accuracy"].to_numpy()), len(part))
        for (suite, shot), part in evidence.gate.champion.groupby(["suite", "shot"], sort=False)
    }


def paired_with_champion(evidence: Evidence) -> pd.DataFrame:
    """Of the episodes that both answered, suite, shot, episode and the accuracies ``ours`` and ``champion``.

    Raises:
        QuickstudyError: there is no such episode.
    """
    assert evidence.gate is not None
    own = evidence.episodes[evidence.episodes["method"] == OURS]
    keys = ["dataset", "suite", "shot", "episode"]
    theirs = evidence.gate.champion[[*keys, "accuracy"]].rename(columns={"accuracy": "champion"})
    both = own[[*keys, "accuracy"]].rename(columns={"accuracy": "ours"}).merge(theirs, on=keys)
    if both.empty:
        raise QuickstudyError(
            f"{evidence.gate.name} answered no episode that this version was judged on",
            where="champion.parquet",
            fix="Ask the gate again, on today's frozen episodes",
        )
    return both


def _beside(evidence: Evidence) -> str:
    assert evidence.gate is not None
    both = paired_with_champion(evidence)
    body = []
    for suite in dict.fromkeys(both["suite"]):
        cells = dict.fromkeys(evidence.shots, "–")
        for shot, part in both[both["suite"] == suite].groupby("shot"):
            cells[int(shot)] = marked(*_difference([part]))
        body.append([plain(suite), *cells.values()])
    groups = [part for _, part in both.groupby(["suite", "shot"])]
    whole = difference(*_difference(groups))
    table = rows(["suite", *(shots(shot) for shot in evidence.shots)], body, "l" + "r" * len(evidence.shots))
    return (
        f"Accuracy in points over {plain(evidence.gate.name)}, episode by episode, ± half the 95% interval. ▲: the "
        f"whole interval is above 0; ▼: below. Mean over the cells: {whole}, of such episodes of these suites; what it "
        f"says of other data is the gate's first rule.\n\n{table}"
    )


def _difference(parts: list[pd.DataFrame]) -> tuple[float, float]:
    ours, theirs = ([part[who].to_numpy(dtype=np.float64) for part in parts] for who in ("ours", "champion"))
    return paired_interval(ours, theirs)


def _gain(rule: Mapping[str, Any]) -> str:
    if rule["gain"] is None:
        return "not measured"
    if rule["unit"] == "times":
        return f"×{math.exp(-rule['gain']):.2f}"
    scale, digits, unit = UNITS[rule["unit"]]
    return signed(scale * rule["gain"], digits) + unit


def _span(rule: Mapping[str, Any]) -> str:
    if rule["low"] is None or rule["low"] == rule["high"]:
        return "–"
    if rule["unit"] == "times":
        return f"×{math.exp(-rule['high']):.2f} to {math.exp(-rule['low']):.2f}"
    scale, digits, _ = UNITS[rule["unit"]]
    return f"{signed(scale * rule['low'], digits)} to {signed(scale * rule['high'], digits)}"


def _limit(rule: Mapping[str, Any]) -> str:
    if rule["unit"] == "times":
        return f"at most ×{math.exp(-rule['limit']):.2f}"
    scale, digits, _ = UNITS[rule["unit"]]
    return f"above {signed(scale * rule['limit'], digits)}" if rule["limit"] else "above 0"
