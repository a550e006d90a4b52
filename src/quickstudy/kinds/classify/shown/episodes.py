"""Episodes to look at as a figure: a row a class, what it was taught, what it was asked, mistakes ringed."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quickstudy.kinds.classify.shown.failures import ShownEpisode
from quickstudy.kinds.pictures import CELL, See, clipped, frame, paste, ring, side_by_side
from quickstudy.report.extremes import TITLES
from quickstudy.report.style import INK, MUTED, ORANGE

MOST_CLASSES, MOST_TAUGHT, MOST_ASKED = 10, 2, 5  # shown of an episode
PITCH, GAP, ROW, NAME = 1.14, 0.4, 1.42, 2.5  # in widths of an example: to the next, to the queries, a row, names
ABOVE = 0.85  # the same, for what stands above the first row


def draw_episodes(episodes: Sequence[ShownEpisode], see: See, narrow: bool) -> Figure:
    """Draw episodes side by side, or on a narrow figure one below the other.

    Args:
        episodes: of one modality, image or audio.
        see: makes a picture of an example.
    """
    rows = [shown_classes(episode) for episode in episodes]
    height = max(len(shown) for shown in rows) * ROW + ABOVE
    columns = min(MOST_TAUGHT, episodes[0].support.shape[1]), min(MOST_ASKED, episodes[0].query.shape[1])
    width = NAME + sum(columns) * PITCH + GAP
    figure, panels = side_by_side(len(episodes), width, height, narrow)
    for panel, episode, shown in zip(panels, episodes, rows, strict=False):
        _draw(panel, episode, shown, columns, see)
    frame(panels, (-NAME, sum(columns) * PITCH + GAP - 0.1), (height - ABOVE, -ABOVE))
    return figure


def shown_classes(episode: ShownEpisode) -> list[int]:
    """Return all, or of many those with most mistakes, in their order."""
    wrong = episode.wrong.sum(1)
    return sorted(np.argsort(-wrong, kind="stable")[:MOST_CLASSES].tolist())


def shown_queries(episode: ShownEpisode, place: int, most: int) -> list[int]:
    """Return of a class all, or of many the mistakes first, in their order."""
    return sorted(np.argsort(~episode.wrong[place], kind="stable")[:most].tolist())


def _draw(panel: Axes, episode: ShownEpisode, shown: list[int], columns: tuple[int, int], see: See) -> None:
    taught, asked = columns
    panel.set_title(f"{TITLES[episode.why]}: {episode.answered}", fontsize=9)
    start = taught * PITCH + GAP
    panel.text(0, -0.2, "taught", fontsize=8, color=MUTED)
    panel.text(start, -0.2, "asked, mistakes ringed", fontsize=8, color=MUTED)
    # One picture of them all: an axis draws a hundred small ones slowly.
    size = round(len(shown) * ROW * CELL), round((start + asked * PITCH) * CELL)
    canvas = np.full((*size, 3), 255, dtype=np.uint8)
    for row, place in enumerate(shown):
        y = row * ROW
        name = clipped(episode.classes[place], 15)
        panel.text(-0.15, y + 0.5, name, fontsize=7.5, color=INK, ha="right", va="center")
        for column in range(taught):
            paste(canvas, see(episode.taught[place][column]), column * PITCH, y)
        for column, query in enumerate(shown_queries(episode, place, asked)):
            x = start + column * PITCH
            paste(canvas, see(episode.asked[place][query]), x, y)
            if episode.wrong[place, query]:
                panel.add_patch(ring(x, y))
                said = clipped(episode.classes[episode.answers[place, query]], 9)
                panel.text(x + 0.5, y + 1.07, said, fontsize=6.5, color=ORANGE, ha="center", va="top", zorder=6)
    panel.imshow(canvas, extent=(0, size[1] / CELL, size[0] / CELL, 0), interpolation="nearest")
