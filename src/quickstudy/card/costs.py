"""What the model cost, and what training each task separately would have cost."""

import math

from quickstudy.card.separately import TASKS, mean_difference, paired_with_scratch
from quickstudy.report.evidence import Evidence
from quickstudy.report.words import counts, difference, duration, examples, listed, marked, percent, plain, rows


def cost(evidence: Evidence) -> list[str]:
    """The table of what meta-training took, and how its energy is known."""
    told = evidence.training
    body = [[f"{what} time", duration(1000 * told[name])] for name, what in TIMES.items() if name in told]
    parts = [(name, told[f"{key}_wh"]) for key, name in ENERGIES.items() if f"{key}_wh" in told]
    if parts:
        whole = math.fsum(wh for _, wh in parts)
        body.append(["energy", f"{_energy(whole)} ({listed(f'{name} {_energy(wh)}' for name, wh in parts)})"])
    if not body:
        return ["It was not measured."]
    told_of = "Of meta-training, over all its runs and processes."
    if parts:
        cpu = told.get("cpu_energy", "estimated")
        source = (
            "read from its counters"
            if cpu == "measured"
            else ("an estimate from its load and rated power, as this machine shows no counter of it")
        )
        told_of += (
            f" Energy is of the whole machine, whoever else worked on it, by codecarbon, offline: the processor's is "
            f"{source}; the memory's is always an estimate"
            + ("; the GPU's is read from its counter." if "gpu_wh" in told else ".")
        )
    else:
        told_of += " Energy was not measured: codecarbon is not installed where it was trained."
    return [rows(["what", "meta-training"], body, "lr"), told_of]


TIMES = {"seconds": "wall clock", "cpu_seconds": "processor", "gpu_seconds": "GPU"}
ENERGIES = {"cpu": "processor", "gpu": "GPU", "memory": "memory"}


def _energy(wh: float) -> str:
    if wh < 0.1:
        return f"{1000 * wh:.0f} mWh"
    return f"{wh:.2g} Wh" if wh < 10 else f"{wh:.0f} Wh" if wh < 1000 else f"{wh / 1000:.2g} kWh"


def separately(evidence: Evidence, pretrained: bool) -> list[str]:
    """The founding promise, measured: a sentence, a table, and what they rest on.

    Args:
        pretrained: texts are read by an encoder that began pretrained.
    """
    both = paired_with_scratch(evidence)
    if both.empty:
        return ["Training from scratch was not run beside it (`evaluate.scratch_episodes` in params.yaml)."]
    shot = int(both["shot"].iloc[0])
    ours, scratch = both["ours_ms"].mean(), both["scratch_ms"].mean()
    points, half = mean_difference(evidence, both["suite"].tolist(), shot)
    paid = _paid(evidence, scratch - ours)
    right, separate = (percent(both[f"{who}_accuracy"].mean()) for who in ("ours", "scratch"))
    text = (
        f"**Training each of {TASKS} such tasks separately would have cost {duration(TASKS * scratch)} and reached "
        f"{separate} %; the one model adapts to all of them in {duration(TASKS * ours)} and reaches {right} %: "
        f"{difference(points, half)} points.**{paid}"
    )
    table = [
        [
            plain(row["suite"]),
            duration(TASKS * row["ours_ms"]),
            duration(TASKS * row["scratch_ms"]),
            percent(row["ours_accuracy"]),
            percent(row["scratch_accuracy"]),
            marked(row["difference"], row["difference_ci95"]),
            _after(row.get("paid_after", math.inf)),
        ]
        for _, row in both.iterrows()
    ]
    head = ["suite", f"{TASKS} tasks", "separately", "right, %", "separately, %", "points", "paid for after"]
    how = (
        f"With {examples(shot)} a class, on the same {counts(both['episodes'])} episodes of each suite: the same "
        "network trained anew for each task, from random weights, beside adapting. Times are "
        f"{TASKS} times the median of a task, from its examples' files to what answers; points are the mean of the "
        "differences, episode by episode, ± half the 95% interval (▲: all of it above 0; ▼: below). *Paid for after*: "
        "so many tasks of the suite save the time that meta-training took; –: adapting saves none there, what it "
        "brings is accuracy."
    )
    if pretrained:
        how += " Text keeps its pretrained sentence encoder in both, and reading by it is most of their time."
    return [text, rows(head, table, "l" + "r" * 6), how]


def _paid(evidence: Evidence, saved_ms: float) -> str:
    if "seconds" not in evidence.training:
        return ""
    took = f" Meta-training itself took {duration(1000 * evidence.training['seconds'])}"
    if saved_ms <= 0:
        return f"{took}, which adapting does not save."
    return f"{took}: after {math.ceil(1000 * evidence.training['seconds'] / saved_ms):,} tasks it has paid for itself."


def _after(tasks: float) -> str:
    return "–" if math.isinf(tasks) else f"{tasks:,.0f} tasks"
