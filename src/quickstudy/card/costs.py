"""What the model cost, and what training each task separately would have cost."""

import math
from typing import NamedTuple

from quickstudy.card.part import Part
from quickstudy.card.separately import TASKS, mean_difference, paired_with_scratch
from quickstudy.report.evidence import KindEvidence
from quickstudy.report.words import Markdown, counts, difference, duration, listed, marked, percent, rows


class Spent(NamedTuple):
    """What meta-training took."""

    table: Markdown
    energy: bool
    measured: bool
    """the processor's energy was read from its counters"""
    gpu: bool


def cost(evidence: KindEvidence) -> Spent | None:
    """Return the table of what meta-training took, and how its energy is known; None where nothing was measured."""
    told = evidence.training
    body = [[f"{what} time", duration(1000 * told[name])] for name, what in TIMES.items() if name in told]
    parts = [(name, told[f"{key}_wh"]) for key, name in ENERGIES.items() if f"{key}_wh" in told]
    if parts:
        whole = math.fsum(wh for _, wh in parts)
        body.append(["energy", f"{_energy(whole)} ({listed(f'{name} {_energy(wh)}' for name, wh in parts)})"])
    if not body:
        return None
    table = rows(["what", "meta-training"], body, "lr")
    return Spent(table, bool(parts), told.get("cpu_energy", "estimated") == "measured", "gpu_wh" in told)


TIMES = {"seconds": "wall clock", "cpu_seconds": "processor", "gpu_seconds": "GPU"}
ENERGIES = {"cpu": "processor", "gpu": "GPU", "memory": "memory"}


def _energy(wh: float) -> str:
    if wh < 0.1:
        return f"{1000 * wh:.0f} mWh"
    return f"{wh:.2g} Wh" if wh < 10 else f"{wh:.0f} Wh" if wh < 1000 else f"{wh / 1000:.2g} kWh"


class Separately(NamedTuple):
    """The founding promise, measured: the one model beside training each task separately."""

    shot: int
    episodes: str
    """of each suite"""
    ours: str
    """time of `TASKS` tasks"""
    scratch: str
    ours_score: str
    scratch_score: str
    difference: str
    training: str | None
    """how long meta-training took, where that is known"""
    paid_after: str | None
    """the number of tasks that save as much; None where adapting saves nothing"""
    table: Markdown


def separately(part: Part) -> Separately | None:
    """Return how both compare; None where training from scratch was not run."""
    evidence = part.evidence
    both = paired_with_scratch(evidence)
    if both.empty:
        return None
    shot = int(both["shot"].iloc[0])
    ours, scratch = both["ours_ms"].mean(), both["scratch_ms"].mean()
    table = [
        [
            row["suite"],
            duration(TASKS * row["ours_ms"]),
            duration(TASKS * row["scratch_ms"]),
            percent(row["ours_score"]),
            percent(row["scratch_score"]),
            marked(row["difference"], row["difference_ci95"]),
            _after(row.get("paid_after", math.inf)),
        ]
        for _, row in both.iterrows()
    ]
    score = part.shown.score
    head = ["suite", f"{TASKS} tasks", "separately", f"{score}, %", "separately, %", "points", "paid for after"]
    seconds = evidence.training.get("seconds")
    saved = scratch - ours
    return Separately(
        shot,
        counts(both["episodes"]),
        duration(TASKS * ours),
        duration(TASKS * scratch),
        percent(both["ours_score"].mean()),
        percent(both["scratch_score"].mean()),
        difference(*mean_difference(evidence, both["suite"].tolist(), shot)),
        None if seconds is None else duration(1000 * seconds),
        None if seconds is None or saved <= 0 else f"{math.ceil(1000 * seconds / saved):,}",
        rows(head, table, "l" + "r" * 6),
    )


def _after(tasks: float) -> str:
    return "–" if math.isinf(tasks) else f"{tasks:,.0f} tasks"
