"""Episodes of images or recordings as a figure: what was taught and what was asked, each with its tags below."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quickstudy.kinds.pictures import CELL, See, clipped, frame, paste, ring, side_by_side
from quickstudy.kinds.tag.shown.episodes import ShownEpisode
from quickstudy.report.extremes import TITLES
from quickstudy.report.style import INK, MUTED, ORANGE

ACROSS = 5  # examples side by side
PITCH, LINE, GAP = 1.5, 0.17, 0.55  # in widths of an example: to the next, a tag below, between the two parts
ABOVE = 0.85  # the same, for what stands above the first row
LETTERS = 18  # of what stands in a line below an example


def draw_episodes(episodes: Sequence[ShownEpisode], see: See, narrow: bool) -> Figure:
    """Draw episodes side by side, or on a narrow figure one below the other.

    Args:
        episodes: of one modality, image or audio.
        see: makes a picture of an example.
    """
    height = max(_height(episode) for episode in episodes) + ABOVE
    width = ACROSS * PITCH
    figure, panels = side_by_side(len(episodes), width, height, narrow)
    for panel, episode in zip(panels, episodes, strict=False):
        _draw(panel, episode, see)
    frame(panels, (-0.1, width), (height - ABOVE, -ABOVE))
    return figure


def _lines(episode: ShownEpisode) -> int:
    """How many tags stand below an example, at most."""
    either = [episode.known.sum(1).max(), (episode.there | episode.given)[episode.shown_asked].sum(1).max()]
    return max(1, *map(int, either))


def _height(episode: ShownEpisode) -> float:
    row = 1.15 + LINE * _lines(episode)
    return row * (1 + -(-len(episode.shown_asked) // ACROSS)) + GAP


def _draw(panel: Axes, episode: ShownEpisode, see: See) -> None:
    panel.set_title(f"{TITLES[episode.why]}: {episode.answered}", fontsize=8.5)
    row = 1.15 + LINE * _lines(episode)
    panel.text(0, -0.2, "taught", fontsize=8, color=MUTED)
    panel.text(0, row + GAP - 0.2, "asked, mistakes ringed", fontsize=8, color=MUTED)
    # One picture of them all: an axis draws a hundred small ones slowly.
    size = round(_height(episode) * CELL), round(ACROSS * PITCH * CELL)
    canvas = np.full((*size, 3), 255, dtype=np.uint8)
    for place, one in enumerate(episode.shown_taught):
        x = place * PITCH
        paste(canvas, see(episode.taught[one]), x, 0)
        _name(panel, x, 0, [(name, INK) for name in episode.named(episode.known[one])])
    for place, one in enumerate(episode.shown_asked):
        x, y = place % ACROSS * PITCH, row * (1 + place // ACROSS) + GAP
        paste(canvas, see(episode.asked[one]), x, y)
        there, given = episode.there[one], episode.given[one]
        if not episode.right[one]:
            panel.add_patch(ring(x, y))
        told = [(name, INK) for name in episode.named(there & given)]
        told += [(f"missed {name}", ORANGE) for name in episode.named(there & ~given)]
        _name(panel, x, y, [*told, *((f"wrong {name}", ORANGE) for name in episode.named(given & ~there))])
    panel.imshow(canvas, extent=(0, size[1] / CELL, size[0] / CELL, 0), interpolation="nearest")


def _name(panel: Axes, x: float, y: float, names: Sequence[tuple[str, str]]) -> None:
    for line, (name, tone) in enumerate(names):
        at = y + 1.07 + line * LINE
        panel.text(x + 0.5, at, clipped(name, LETTERS), fontsize=6.5, color=tone, ha="center", va="top", zorder=6)
