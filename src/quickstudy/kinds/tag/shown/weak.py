"""Whole sets of tags, calibration and failures in words and tables."""

from collections.abc import Mapping, Sequence

import pandas as pd

from quickstudy.kinds.tag.shown.calibration import calibrations
from quickstudy.kinds.tag.shown.cells import Cell, by_number, by_tag
from quickstudy.kinds.tag.shown.episodes import ShownEpisode, episodes_to_look_at
from quickstudy.kinds.tag.shown.figures import MOST_SUITES, MOST_TAGS, weakest_tags
from quickstudy.report.calibration import EXPLAINED, biases, calibration_table
from quickstudy.report.evidence import KindEvidence
from quickstudy.report.extremes import TITLES, shown_episodes
from quickstudy.report.words import (
    Chapter,
    Markdown,
    bullets,
    counted,
    excerpt,
    figure,
    interval,
    listed,
    percent,
    plain,
    rows,
)
from quickstudy.stats.intervals import OURS, mean_interval

METRICS = {"score": "micro F1", "macro_f1": "macro F1", "exact": "whole sets"}
NAMED = 3  # of a suite's weakest tags


def whole_sets(evidence: KindEvidence, found: Sequence[Cell]) -> Chapter:
    """Return the further metrics, and how they depend on the number of tags that an example has."""
    own = evidence.episodes[evidence.episodes["method"] == OURS]
    known = [name for name in METRICS if name in own]
    body = []
    for (suite, shot), part in own.groupby(["suite", "shot"], sort=False):
        body.append([suite, shot, *(interval(*mean_interval(part[name].to_numpy())) for name in known)])
    parts = [
        Markdown(
            "Micro F1 counts every tag of every question alike; macro F1 is the mean of each tag's own, so that a rare "
            "tag weighs as much as a frequent one; *whole sets* is the share of questions that were given exactly "
            "their tags. All in %, means over episodes ± half the 95% interval."
        ),
        rows(["suite", "examples", *(METRICS[name] for name in known)], body, "lr" + "r" * len(known)),
    ]
    if found:
        table = by_number(found)
        parts += [
            Markdown(
                "By the number of a task's tags that a question has, over all suites: how many questions had their "
                "whole set found, how many of their tags were found, and the mean number of wrong tags that a question "
                "was given."
            ),
            _numbers(table),
        ]
    return Chapter("Whole sets of tags", parts)


def _numbers(table: pd.DataFrame) -> Markdown:
    body = [
        [row.tags, row.shot, f"{row.queries:,}", percent(row.exact), percent(row.recall), f"{row.extra:.2f}"]
        for row in table.sort_values(["tags", "shot"]).itertuples()
    ]
    head = ["tags", "examples", "questions", "whole sets, %", "tags found, %", "wrong tags"]
    return rows(head, body, "r" * len(head))


def calibration(kind: str, found: Sequence[Cell]) -> Chapter:
    """Return what its probabilities are worth."""
    told = calibrations(found)
    how = biases(told, high="too sure of tags", low="too careful with tags")
    return Chapter(
        "Calibration",
        [
            Markdown(
                f"Over all questions and tags it is {how}: the mean of the probabilities, less how often the tags are "
                "there."
            ),
            calibration_table(told, given="says", true="there"),
            Markdown(
                f"{EXPLAINED} Here a probability is the one that a question has a tag, for each of the task's tags. "
                "nll is the mean negative log likelihood of having or not having a tag in nats, ± half its 95% "
                "interval over episodes. All numbers of examples and suites of a modality count alike. The figure's "
                "bands are 95% intervals, often narrower than its lines."
            ),
            figure(
                kind,
                "calibration",
                "How often examples have a tag by the probability it was given with, for each modality",
            ),
        ],
    )


def failures(evidence: KindEvidence, found: Sequence[Cell]) -> Chapter:
    """Return the suites from the weakest on with their weakest tags, and the episodes to look at."""
    table = by_tag(found)
    order = {suite: evidence.rows(suite, OURS)["score"].mean() for suite in evidence.suites}
    items = [_suite(evidence, table, suite) for suite in sorted(order, key=order.__getitem__)]
    weakest = weakest_tags(found)
    parts = [
        Markdown(
            "Suites from the weakest on, and the tags of each with the lowest F1, over all numbers of examples. *a: "
            "3 of 10 missed, 2 of 9 wrong*: of 10 questions that have a, 3 were not given it; of 9 that were given it, "
            "2 have it not."
        ),
        bullets(items),
        Markdown(
            f"In the figure the {MOST_TAGS} weakest tags at most of each suite"
            + (f", of the {MOST_SUITES} weakest suites" if len(evidence.suites) > MOST_SUITES else "")
            + ": F1 over all questions of its episodes that asked about a tag."
        ),
        figure(evidence.kind, "tags", _alternative(weakest)),
        Markdown(
            "The episodes below are of the weakest suite of each modality at "
            f"{counted(evidence.shots[0], 'example')} a tag: the one whose score is nearest to the median of those "
            "with mistakes, and the worst one; of equals the first."
        ),
    ]
    parts += shown_episodes(evidence.kind, episodes_to_look_at(evidence), _texts, _seen)
    return Chapter("Where it fails", parts)


def _suite(evidence: KindEvidence, table: pd.DataFrame, suite: str) -> Markdown:
    own = evidence.rows(suite, OURS)
    scores = listed(f"{percent(score)} %" for score in own["score"])
    at = listed(int(shot) for shot in own["shot"])
    sums = table[table["suite"] == suite].groupby("tag")[["there", "given", "hits"]].sum()
    f1 = 2 * sums["hits"] / (sums["there"] + sums["given"])
    weakest = [_missed(str(tag), sums.loc[tag]) for tag in f1.sort_values(kind="stable").index[:NAMED]]
    what = f"micro F1 {scores} with {at} example{'s' if at != '1' else ''} a tag"
    return Markdown(f"**{plain(suite)}**: {what}. {'; '.join(weakest)}.")


def _missed(tag: str, count: pd.Series) -> str:
    there, given, hits = (int(count[name]) for name in ("there", "given", "hits"))
    missed = f"{there - hits:,} of {there:,} missed ({100 * (there - hits) / there:.0f} %)"
    wrong = f"{given - hits:,} of {given:,} wrong ({100 * (given - hits) / given:.0f} %)" if given else "never given"
    return f"{plain(tag)}: {missed}, {wrong}"


def _alternative(weakest: Mapping[str, pd.DataFrame]) -> str:
    """Return what the figure of tags shows, for those who do not see it."""
    told = [f"{suite}: {', '.join(_few(tags))}" for suite, tags in weakest.items()]
    return f"F1 of the weakest tags of each suite by the number of examples. {'; '.join(told)}"


def _few(tags: pd.DataFrame) -> list[str]:
    return [f"{name} {percent(f1)} %" for name, f1 in tags.mean(axis=1).head(NAMED).items()]


def _texts(episode: ShownEpisode) -> list[Markdown]:
    """Return an episode of texts as a list: what was taught, what was asked, which tags it gave."""
    items = ["- taught"]
    items += [
        f"  - *{plain(', '.join(episode.named(episode.known[place])))}*: {excerpt(episode.taught[place])}"
        for place in episode.shown_taught
    ]
    items.append("- asked")
    items += [f"  - {_marked(episode, place)}: {excerpt(episode.asked[place])}" for place in episode.shown_asked]
    return [
        Markdown(
            f"{TITLES[episode.why]}, {episode.answered}; a few of the examples that were taught and of the questions, "
            "those with most mistakes among them; ✓ given exactly its tags, ✗ not: missed tags that it has, or wrong "
            "ones that it has not."
        ),
        Markdown("\n".join(items)),
    ]


def _marked(episode: ShownEpisode, place: int) -> Markdown:
    """Return which tags a question was given, and what is wrong with them."""
    there, given = episode.there[place], episode.given[place]
    told = []
    for what, which in (("", there & given), ("missed ", there & ~given), ("wrong ", given & ~there)):
        if which.any():
            told.append(what + ", ".join(f"*{plain(name)}*" for name in episode.named(which)))
    return Markdown(f"{'✓' if episode.right[place] else '✗'} {'; '.join(told)}")


def _seen(episodes: Sequence[ShownEpisode]) -> str:
    """Return what a picture of episodes shows, for those who do not see it."""
    told = []
    for episode in episodes:
        wrong = [f"missed {name}" for row in episode.there & ~episode.given for name in episode.named(row)]
        wrong += [f"wrong {name}" for row in episode.given & ~episode.there for name in episode.named(row)]
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        told.append(f"{episode.why}: {episode.answered}, {', '.join(wrong[:4])}{more}")
    what = {"image": "Images", "audio": "Log-mel spectrograms of recordings"}[episodes[0].modality]
    return f"{what} of an episode with their tags, what was taught and what was asked. {'; '.join(told)}"
