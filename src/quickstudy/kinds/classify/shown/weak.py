"""Calibration and failures in words and tables."""

from collections.abc import Sequence

from quickstudy.kinds.classify.shown.episodes import shown_classes, shown_queries
from quickstudy.kinds.classify.shown.failures import Confusion, ShownEpisode, confusions, episodes_to_look_at
from quickstudy.report.calibration import EXPLAINED, Calibration, biases, calibration_table
from quickstudy.report.evidence import KindEvidence
from quickstudy.report.extremes import TITLES, shown_episodes, told
from quickstudy.report.words import (
    Chapter,
    Markdown,
    bullets,
    counted,
    excerpt,
    figure,
    listed,
    percent,
    plain,
)
from quickstudy.stats.intervals import OURS

ALTERNATIVE = "How often answers are right by the probability they were given with, for each modality"
ASKED = 2  # texts a class that are shown


def calibration(kind: str, found: Sequence[Calibration]) -> Chapter:
    """Return what its probabilities are worth."""
    how = biases(found, high="too sure of itself", low="too careful")
    return Chapter(
        "Calibration",
        [
            Markdown(
                f"Over all its answers it is {how}: the mean of the probabilities that it gives its answers, less how "
                "often they are right."
            ),
            calibration_table(found, given="says", true="right"),
            Markdown(
                f"{EXPLAINED} Here a probability is the one that it gives its answer. nll is the mean negative log "
                "likelihood of the true class in nats, ± half its 95% interval over episodes. All shots and suites of "
                "a modality count alike. The figure's bands are 95% intervals, often narrower than its lines."
            ),
            figure(kind, "calibration", ALTERNATIVE),
        ],
    )


def failures(evidence: KindEvidence) -> Chapter:
    """Return the suites from the weakest on, what each takes for what, and the episodes to look at."""
    order = {suite: evidence.rows(suite, OURS)["score"].mean() for suite in evidence.suites}
    items = []
    for suite in sorted(order, key=order.__getitem__):
        own = evidence.rows(suite, OURS)
        wrong = listed(percent(1 - score) for score in own["score"])
        taken = [_taken(one) for one in confusions(evidence, suite)]
        at = listed(int(shot) for shot in own["shot"])
        what = f"{wrong} % wrong with {at} example{'s' if at != '1' else ''} a class"
        items.append(Markdown(f"**{plain(suite)}**: {what}. {'; '.join(taken) or 'No class was taken for another'}."))
    parts = [
        Markdown(
            "Suites from the weakest on, and the three confusions of each that happened most often, over all shots. "
            "*a → b: 3 of 10*: of 10 questions about a in tasks that held b too, 3 were answered by b."
        ),
        bullets(items),
        Markdown(
            f"The episodes below are of the weakest suite of each modality at {counted(evidence.shots[0], 'shot')}: "
            "the one whose error is nearest to the median of those with mistakes, and the worst one; of equals the "
            "first."
        ),
    ]
    parts += shown_episodes(evidence.kind, episodes_to_look_at(evidence), _texts, _alternative, _told)
    return Chapter("Where it fails", parts)


def _taken(one: Confusion) -> str:
    share = f"{one.times:,} of {one.asked:,} ({100 * one.times / one.asked:.0f} %)"
    return f"{plain(one.true)} → {plain(one.given)}: {share}"


def _told(episodes: Sequence[ShownEpisode]) -> Markdown:
    """Return where episodes come from, and whether all of their classes are shown."""
    left = [episode for episode in episodes if len(shown_classes(episode)) < len(episode.classes)]
    return Markdown(told(episodes) + (" Of their classes, those with most mistakes." if left else ""))


def _alternative(episodes: Sequence[ShownEpisode]) -> str:
    """Return what a picture of episodes shows, for those who do not see it."""
    told = []
    for episode in episodes:
        wrong = [
            f"{episode.classes[n]} taken for {episode.classes[episode.answers[n, q]]}"
            for n, q in zip(*episode.wrong.nonzero(), strict=True)
        ]
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        told.append(f"{episode.why}: {episode.answered}, {', '.join(wrong[:4])}{more}")
    what = {"image": "Images", "audio": "Log-mel spectrograms of recordings"}[episodes[0].modality]
    return f"{what} of an episode, what was taught and what was asked, mistakes ringed. {'; '.join(told)}"


def _texts(episode: ShownEpisode) -> list[Markdown]:
    """Return an episode of texts as a list: what was taught of each class, what was asked, what it answered."""
    items = []
    for place in shown_classes(episode):
        items.append(f"- **{plain(episode.classes[place])}**: {excerpt(episode.taught[place][0])}")
        for query in shown_queries(episode, place, ASKED):
            given = episode.classes[episode.answers[place, query]]
            mark = f"✗ *{plain(given)}*:" if episode.wrong[place, query] else "✓"
            items.append(f"  - {mark} {excerpt(episode.asked[place][query])}")
    return [
        Markdown(
            f"{TITLES[episode.why]}, {episode.answered}; of each class one example that was taught and {ASKED} "
            "questions, mistakes first; ✓ right, ✗ answered by another class."
        ),
        Markdown("\n".join(items)),
    ]
