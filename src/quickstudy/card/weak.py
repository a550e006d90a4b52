"""Calibration and failures in words and tables."""

from collections.abc import Sequence

from quickstudy.card.calibration import BINS, Calibration
from quickstudy.card.examples import shown_classes, shown_queries
from quickstudy.card.failures import Confusion, Episode, confusions
from quickstudy.report.evidence import Evidence
from quickstudy.report.words import listed, percent, plain, rows, shots
from quickstudy.stats.intervals import OURS

MOST_LETTERS = 180  # of a text that is shown
ASKED = 2  # texts a class that are shown


def calibration(found: Sequence[Calibration]) -> list[str]:
    """What its probabilities are worth."""
    body = [
        [one.modality, f"{100 * one.error:.1f}", percent(one.confidence), percent(one.accuracy), _nats(one)]
        for one in found
    ]
    head = ["modality", "ECE", "says, %", "right, %", "nll"]
    said = []
    for one in found:
        over = one.confidence - one.accuracy
        how = "too sure of itself" if over > 0 else "too careful"
        said.append(f"{how} with {one.modality} by {abs(100 * over):.1f} points")
    return [
        f"Over all its answers it is {listed(said)}: the mean of the probabilities that it gives its answers, less how "
        "often they are right.",
        rows(head, body, "lrrrr"),
        "ECE, the expected calibration error in points, is the mean distance between the probability that it gives its "
        "answer and how often such answers are right (Guo et al. 2017, https://arxiv.org/abs/1706.04599), here over "
        f"{BINS} bins of equally many answers (Nguyen and O'Connor 2015, https://arxiv.org/abs/1508.05154); answers of "
        "the same probability share a bin. nll is the mean negative log likelihood of the true class in nats, ± half "
        "its 95% interval over episodes. All shots and suites of a modality count alike. The figure's bands are 95% "
        "intervals, often narrower than its lines.",
    ]


def _nats(one: Calibration) -> str:
    return f"{one.nll:.3f}" + (f" ± {one.nll_half:.3f}" if one.nll_half == one.nll_half else "")


def failures(evidence: Evidence) -> list[str]:
    """Suites from the weakest on, and what each takes for what."""
    fewest = evidence.shots[0]
    order = {suite: evidence.rows(suite, OURS)["accuracy"].mean() for suite in evidence.suites}
    items = []
    for suite in sorted(order, key=order.__getitem__):
        own = evidence.rows(suite, OURS)
        wrong = listed(percent(1 - accuracy) for accuracy in own["accuracy"])
        taken = [_taken(one) for one in confusions(evidence, suite)]
        at = listed(int(shot) for shot in own["shot"])
        what = f"{wrong} % wrong with {at} example{'s' if at != '1' else ''} a class"
        items.append(f"- **{plain(suite)}**: {what}. {'; '.join(taken) or 'No class was taken for another'}.")
    return [
        "Suites from the weakest on, and the three confusions of each that happened most often, over all shots. "
        "*a → b: 3 of 10*: of 10 questions about a in tasks that held b too, 3 were answered by b.",
        "\n".join(items),
        f"The episodes below are of the weakest suite of each modality at {shots(fewest)}: the one whose error is "
        "nearest to the median of those with mistakes, and the worst one; of equals the first.",
    ]


def _taken(one: Confusion) -> str:
    share = f"{one.times:,} of {one.asked:,} ({100 * one.times / one.asked:.0f} %)"
    return f"{plain(one.true)} → {plain(one.given)}: {share}"


def told_episodes(episodes: Sequence[Episode]) -> str:
    """Where episodes come from, as a caption."""
    first = episodes[0]
    numbers = listed(f"{episode.number} ({episode.why}, {episode.answered})" for episode in episodes)
    many = "s" if len(episodes) > 1 else ""
    text = f"**{first.modality.capitalize()}**: {plain(first.suite)}, episode{many} {numbers}."
    left = [episode for episode in episodes if len(shown_classes(episode)) < len(episode.classes)]
    return text + (" Of their classes, those with most mistakes." if left else "")


def alternative(episodes: Sequence[Episode]) -> str:
    """What a picture of episodes shows, for those who do not see it."""
    told = []
    for episode in episodes:
        wrong = [
            f"{episode.classes[n]} taken for {episode.classes[episode.answers[n, q]]}"
            for n, q in zip(*episode.wrong.nonzero(), strict=True)
        ]
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        told.append(f"{episode.why}: {episode.answered}, {', '.join(wrong[:4])}{more}")
    what = {"image": "Images", "audio": "Log-mel spectrograms of recordings"}[episodes[0].modality]
    return plain(f"{what} of an episode, what was taught and what was asked, mistakes ringed. {'; '.join(told)}")


def texts(episode: Episode) -> list[str]:
    """An episode of texts as a list: what was taught of each class, what was asked, what it answered."""
    items = []
    for place in shown_classes(episode):
        items.append(f"- **{plain(episode.classes[place])}**: {_clipped(episode.taught[place][0])}")
        for query in shown_queries(episode, place, ASKED):
            given = episode.classes[episode.answers[place, query]]
            mark = f"✗ *{plain(given)}*:" if episode.wrong[place, query] else "✓"
            items.append(f"  - {mark} {_clipped(episode.asked[place][query])}")
    title = {"typical": "A typical one with mistakes", "worst": "The worst"}[episode.why]
    return [
        f"{title}, {episode.answered}; of each class one example that was taught and {ASKED} questions, mistakes "
        "first; ✓ right, ✗ answered by another class.",
        "\n".join(items),
    ]


def _clipped(text: str) -> str:
    return plain(text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…")
