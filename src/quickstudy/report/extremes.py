"""Episodes to look at: a typical one with mistakes and the worst one, whatever the kind of task."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, TypeVar

import pandas as pd

from quickstudy.data.dataset import MODALITIES, Modality
from quickstudy.report.evidence import KindEvidence
from quickstudy.report.words import Markdown, capital, figure, listed, plain

Why = Literal["typical", "worst"]
TITLES: dict[Why, str] = {"typical": "A typical one with mistakes", "worst": "The worst"}


class Extreme(NamedTuple):
    """An episode to look at."""

    why: Why
    row: pd.Series
    """of `KindEvidence.answered`"""


def typical_and_worst(evidence: KindEvidence) -> list[list[Extreme]]:
    """Return, for each modality that made mistakes, of its weakest suite at the fewest shots: the episode whose score
    is nearest to the median of those below 1, and the worst; of equals the first."""
    found = []
    for modality in MODALITIES:
        own = evidence.answered[evidence.answered["modality"] == modality]
        own = own[own["shot"] == own["shot"].min()]
        if len(own) == 0 or own["score"].min() == 1:
            continue
        suite = own.groupby("suite", sort=False)["score"].mean().idxmin()
        own = own[(own["suite"] == suite) & (own["score"] < 1)].sort_values("episode", ignore_index=True)
        typical = (own["score"] - own["score"].median()).abs().idxmin()
        worst = own["score"].idxmin()
        chosen = [Extreme("worst", own.loc[worst])]
        if typical != worst:
            chosen.insert(0, Extreme("typical", own.loc[typical]))
        found.append(chosen)
    return found


class Looked(Protocol):
    """What every kind knows of an episode that is shown."""

    @property
    def why(self) -> Why: ...
    @property
    def suite(self) -> str: ...
    @property
    def modality(self) -> Modality: ...
    @property
    def number(self) -> int: ...
    @property
    def answered(self) -> str:
        """Return how well it was answered: "18 of 25 right"."""


_Episode = TypeVar("_Episode", bound=Looked)


def told(episodes: Sequence[Looked]) -> Markdown:
    """Return where episodes of one modality come from, as a caption."""
    first = episodes[0]
    numbers = listed(f"{episode.number} ({episode.why}, {episode.answered})" for episode in episodes)
    many = "s" if len(episodes) > 1 else ""
    return Markdown(f"**{capital(first.modality)}**: {plain(first.suite)}, episode{many} {numbers}.")


def shown_episodes(
    kind: str,
    found: Sequence[Sequence[_Episode]],
    texts: Callable[[_Episode], Sequence[Markdown]],
    alternative: Callable[[Sequence[_Episode]], str],
    caption: Callable[[Sequence[_Episode]], Markdown] = told,
) -> list[Markdown]:
    """Return the part of a chapter that shows episodes: a caption for each modality, and its texts or its figure.

    Args:
        found: episodes to look at, a list a modality.
        texts: an episode of texts → how it is shown.
        alternative: episodes of images or recordings → what their figure shows, for those who do not see it.
    """
    parts = []
    for episodes in found:
        modality = episodes[0].modality
        parts.append(caption(episodes))
        if modality == "text":
            parts += [part for episode in episodes for part in texts(episode)]
        else:
            parts.append(figure(kind, f"episodes_{modality}", alternative(episodes)))
    return parts
