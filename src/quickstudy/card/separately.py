"""What training each task separately would have cost, on the same episodes, in time and in score."""

import math

import pandas as pd

from quickstudy.report.evidence import KindEvidence
from quickstudy.stats.intervals import OURS, mean_interval, paired_interval

TASKS = 100


def paired_with_scratch(evidence: KindEvidence) -> pd.DataFrame:
    """Return ours and training from scratch on the episodes that both answered, at five shots or the nearest number
    there is.

    Returns:
        one row a suite: suite, modality, shot, episodes; for ``ours`` and ``scratch`` score, ci95 (half width) and
        ms (median, of a task); difference (ours − scratch) and difference_ci95; and paid_after, the tasks whose saved
        time adds up to that of meta-training (infinite where none is saved). Suites without both, or without times,
        are left out.
    """
    frame = evidence.episodes
    scratch = frame[frame["method"] == "scratch"]
    rows = []
    if len(scratch):
        shot = min((int(shot) for shot in scratch["shot"].unique()), key=lambda shot: (abs(shot - 5), shot))
        keys = ["suite", "modality", "episode"]
        ours = frame[(frame["method"] == OURS) & (frame["shot"] == shot)]
        both = scratch[scratch["shot"] == shot].merge(ours, on=keys, suffixes=("_scratch", "_ours"))
        for (suite, modality), part in both.groupby(["suite", "modality"], sort=False):
            row: dict[str, object] = {"suite": suite, "modality": modality, "shot": shot, "episodes": len(part)}
            for who in ("ours", "scratch"):
                row[f"{who}_score"], row[f"{who}_ci95"] = mean_interval(part[f"score_{who}"].to_numpy())
                row[f"{who}_ms"] = part[f"adapt_ms_{who}"].median()
            answered = [[part[f"score_{who}"].to_numpy()] for who in ("ours", "scratch")]
            row["difference"], row["difference_ci95"] = paired_interval(answered[0], answered[1])
            rows.append(row)
    found = pd.DataFrame(rows).dropna(subset=["ours_ms", "scratch_ms"]) if rows else pd.DataFrame()
    if len(found) and "seconds" in evidence.training:
        saved = (found["scratch_ms"] - found["ours_ms"]) / 1000
        found["paid_after"] = [math.ceil(evidence.training["seconds"] / s) if s > 0 else math.inf for s in saved]
    return found


def mean_difference(evidence: KindEvidence, suites: list[str], shot: int) -> tuple[float, float]:
    """Return the mean over suites of ours − scratch, and half the width of its 95% interval."""
    frame = evidence.episodes[evidence.episodes["shot"] == shot]
    pairs = []
    for suite in suites:
        part = frame[frame["suite"] == suite].pivot_table(index="episode", columns="method", values="score")
        pairs.append(part[[OURS, "scratch"]].dropna().to_numpy())
    return paired_interval([pair[:, 0] for pair in pairs], [pair[:, 1] for pair in pairs])
