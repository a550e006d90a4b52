"""The results in tables: what stands first, suite by suite, and all methods."""

import math
from collections.abc import Sequence
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from quickstudy.card.gate import champion_summary
from quickstudy.card.part import Part
from quickstudy.report.words import Markdown, counts, duration, interval, listed, percent, plain, rows
from quickstudy.stats.intervals import OURS


def tiles(part: Part) -> Markdown:
    """Return the kind's first numbers, and the time to learn a task where it was measured."""
    found = [*part.shown.headline(part.evidence)]
    took = part.evidence.own["adapt_ms"].median()
    if not math.isnan(took):
        found.append(("to learn a task", duration(took)))
    head, body = zip(*found, strict=True)
    return rows(head, [body])


def below(part: Part) -> Markdown:
    """Return the places where the model lies below a baseline's interval."""
    places = [
        f"{plain(row['suite'])} with {part.examples(row['shot'])} "
        f"({percent(row['ours'])}; {plain(part.described(row['method']))}: {interval(row['theirs'], row['ci95'])})"
        for row in part.evidence.below
    ]
    return Markdown("; ".join(places) or "nowhere")


def no_better_than_guessing(part: Part) -> Markdown:
    """Return the places where the model's interval does not lie above the score of who knows nothing of the task; empty
    where there is none."""
    found = []
    for _, row in part.evidence.own.iterrows():
        chance = part.shown.chance(part.evidence, row)
        if chance is not None and row["score"] - np.nan_to_num(row["ci95"]) <= chance:
            at = f"{plain(row['suite'])} with {part.examples(int(row['shot']))}"
            found.append(f"{at} ({interval(row['score'], row['ci95'])}; that gives {percent(chance)})")
    return Markdown("; ".join(found))


class Alike(NamedTuple):
    """Suites that have the same thing new about them."""

    title: str
    told: Markdown
    """what that means, and how good the model is there"""
    table: Markdown


def novelties(part: Part) -> list[Alike]:
    """Return suites by what is new about them; what the kind does not know comes last."""
    known, evidence = part.shown.novelties, part.evidence
    of = evidence.table.drop_duplicates("suite").set_index("suite")["novelty"]
    found = []
    for novelty in [*known, *(name for name in of.unique() if name not in known)]:
        suites = [suite for suite in evidence.suites if of[suite] == novelty]
        if suites:
            title, meaning = known.get(novelty, (f"New {novelty}", ""))
            told = Markdown(f"{plain(meaning)} {_in_words(part, suites)}".strip())
            found.append(Alike(title, told, _compared(part, suites)))
    return found


def _in_words(part: Part, suites: Sequence[str]) -> Markdown:
    """Return the mean score in these suites, and that of the best baseline."""
    ours: dict[int, list[float]] = {}
    best: dict[int, list[float]] = {}
    for suite in suites:
        for row in part.evidence.rows(suite, OURS).itertuples():
            ours.setdefault(row.shot, []).append(row.score)
            if len(rivals := _rivals(part, suite, row)):
                best.setdefault(row.shot, []).append(rivals["score"].max())
    reached = listed(f"{percent(mean(ours[shot]))} % with {shot}" for shot in sorted(ours))
    counted = f"example{'s' if [*ours] != [1] else ''} {part.shown.per}".strip()
    text = f"Its {plain(part.shown.score)} is {reached} {counted}"
    if best:
        text += f", that of the best baseline {listed(f'{percent(mean(best[shot]))} %' for shot in sorted(best))}"
    return Markdown(text + (f" (means of {len(suites)} suites)." if len(suites) > 1 else "."))


def _compared(part: Part, suites: Sequence[str]) -> Markdown:
    """Return a row a suite, a column a number of shots, in each cell ours beside the best baseline and who is ahead."""
    evidence = part.evidence
    below = {(row["suite"], row["shot"]) for row in evidence.below}
    body = []
    for suite in suites:
        ours = evidence.rows(suite, OURS)
        cells = dict.fromkeys(evidence.shots, "–")
        for row in ours.itertuples():
            rivals = _rivals(part, suite, row)
            cell = percent(row.score)
            if len(rivals):
                cell += f" ({percent(rivals['score'].max())})"
            if (suite, row.shot) in below:
                cell += " ▼"
            elif len(rivals) and (row.score > rivals["score"] + rivals["ci95"].fillna(0.0)).all():
                cell += " ▲"
            cells[int(row.shot)] = cell
        body.append([suite, *cells.values(), ours["modality"].iloc[0], part.shown.size(ours).number])
    size = part.shown.size(evidence.own).what
    head = ["suite", *map(part.shots, evidence.shots), "modality", size]
    return rows(head, body, align="l" + "r" * len(evidence.shots) + "lr")


def _rivals(part: Part, suite: str, ours: Any) -> pd.DataFrame:
    """Return the baselines that answered as many episodes as we did."""
    table = part.evidence.table
    same = (table["suite"] == suite) & (table["shot"] == ours.shot) & (table["episodes"] == ours.episodes)
    return table[same & (table["method"] != OURS)]


class Methods(NamedTuple):
    """All methods, in one table."""

    table: Markdown
    partly: bool
    """some answered fewer episodes"""
    below: bool
    """somewhere the model lies below a baseline's interval"""
    meanings: str
    """what the baselines are, in words"""


def all_methods(part: Part) -> Methods:
    """Return a row a suite and number of shots, a column a method; the champion's after ours."""
    evidence = part.evidence
    below = {(row["suite"], row["shot"]) for row in evidence.below}
    champion = champion_summary(part)
    partly = False
    body = []
    for (suite, shot), these in evidence.table.groupby(["suite", "shot"], sort=False):
        by_method = these.set_index("method")
        count = by_method.loc[OURS, "episodes"]
        best = by_method.loc[by_method["episodes"] == count, "score"].max()
        cells: list[object] = [suite, shot]
        for method in part.methods:
            if method in by_method.index:
                row = by_method.loc[method]
                cell = interval(row["score"], row["ci95"])
                highest = row["score"] == best and row["episodes"] == count
                cell = (f"**{cell}**" if highest else cell) + _of(row["episodes"], count)
                partly |= row["episodes"] != count
                cells.append(Markdown(cell + (" ▼" if method == OURS and (suite, shot) in below else "")))
            else:
                cells.append("–")
            if method == OURS and champion:
                if (suite, shot) in champion:
                    score, half, episodes = champion[suite, shot]
                    cells.append(interval(score, half) + _of(episodes, count))
                    partly |= episodes != count
                else:
                    cells.append("–")
        body.append([*cells, count])
    head = ["suite", f"{part.shown.unit}s", *(part.called(name) for name in part.methods), "episodes"]
    if champion and part.gate is not None:
        head.insert(3, f"champion, {part.gate.name}")
    meanings = Markdown(
        "; ".join(
            f"*{plain(part.called(name))}*: {plain(part.described(name))}"
            for name in part.methods
            if name in part.shown.methods and part.shown.methods[name].family != "scratch"
        )
    )
    return Methods(rows(head, body, align="l" + "r" * (len(head) - 1)), partly, bool(below), meanings)


class Weakest(NamedTuple):
    """Where the model is weakest."""

    suite: str
    examples: str
    score: str
    chance: str | None
    """of who knows nothing of the task; None where there is no such score"""


def weakest(part: Part) -> Weakest:
    """Return the suite and number of shots with the lowest score."""
    evidence = part.evidence
    own = evidence.own
    row = own.loc[own["score"].idxmin()]
    chance = part.shown.chance(evidence, row)
    return Weakest(
        row["suite"],
        part.examples(int(row["shot"])),
        percent(row["score"]),
        None if chance is None else percent(chance),
    )


def scratch_episodes(part: Part) -> str:
    """Return on how many episodes training from scratch was tried."""
    table = part.evidence.table
    return counts(table.loc[table["method"] == "scratch", "episodes"])


def _of(episodes: int, count: int) -> str:
    return f" (of {episodes})" if episodes != count else ""
