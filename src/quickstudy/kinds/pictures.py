"""An example as a small picture, for the figures of every kind of task."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from quickstudy.config import AudioInput
from quickstudy.data.dataset import Modality
from quickstudy.data.media import decode_image
from quickstudy.encoders.audio import AudioEncoder
from quickstudy.report.evidence import KindEvidence
from quickstudy.report.extremes import Looked
from quickstudy.report.style import NARROW, ORANGE, WIDE, blank

PIXELS = 64  # a side of an image, at most
CELL = 84  # pixels of a side of an example in a figure, before it is scaled

See = Callable[[bytes], np.ndarray]
"""The bytes of a file → uint8 [H, W] or [H, W, 3]."""


_Episode = TypeVar("_Episode", bound=Looked)


def episode_figures(
    evidence: KindEvidence,
    found: Sequence[Sequence[_Episode]],
    draw: Callable[[Sequence[_Episode], See, bool], Figure],
    narrow: bool,
) -> dict[str, Figure]:
    """Draw episodes to look at, a figure a modality; texts are shown as text.

    Args:
        found: a list a modality.
        draw: episodes of one modality, what makes a picture of an example, whether for a narrow screen.
    """
    audio = AudioInput.model_validate(evidence.model["inputs"]["audio"])
    drawn = {}
    for episodes in found:
        if (see := eye(episodes[0].modality, audio)) is not None:
            drawn[f"episodes_{episodes[0].modality}"] = draw(episodes, see, narrow)
    return drawn


def side_by_side(count: int, width: float, height: float, narrow: bool) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel for each of two episodes at most, or on a narrow one below the other.

    Args:
        width, height: of a panel, in widths of an example.
    """
    beside = 1 if narrow else 2
    inches = (NARROW if narrow else WIDE) / beside
    down = count if narrow else 1
    figure = blank(inches * beside, inches * height / width * down + 0.25 * down)
    return figure, [*figure.subplots(down, beside, squeeze=False).ravel()]


def frame(panels: Sequence[Axes], xlim: tuple[float, float], ylim: tuple[float, float]) -> None:
    """Give panels of `side_by_side` one scale, and no axes."""
    for panel in panels:
        panel.set(xlim=xlim, ylim=ylim, aspect="equal")
        panel.set_anchor("N")
        panel.axis("off")


def eye(modality: Modality, audio: AudioInput) -> See | None:
    """Return what makes a picture of an example; None for texts, of which there is none."""
    match modality:
        case "image":
            return _whole
        case "audio":
            return _ear(audio)
        case "text":
            return None


def paste(canvas: np.ndarray, picture: np.ndarray, x: float, y: float) -> None:
    """Put a picture onto a canvas, uint8 [H, W, 3], at a place in widths of an example."""
    cell = Image.fromarray(picture).convert("RGB").resize((CELL, CELL), Image.Resampling.NEAREST)
    top, left = round(y * CELL), round(x * CELL)
    canvas[top : top + CELL, left : left + CELL] = np.asarray(cell)


def clipped(name: str, most: int) -> str:
    """Return the end of a name, which tells classes apart: what comes before a slash is their group."""
    name = "".join(c if c.isprintable() else " " for c in name.rpartition("/")[2] or name)
    return name if len(name) <= most else f"{name[: most - 1]}…"


def ring(x: float, y: float) -> FancyBboxPatch:
    """Return a ring around an example at a place: a mistake."""
    return FancyBboxPatch(
        (x, y),
        1,
        1,
        boxstyle="round,pad=0.03,rounding_size=0.14",
        fill=False,
        edgecolor=ORANGE,
        linewidth=2.0,
        zorder=5,
        clip_on=False,
    )


def _whole(data: bytes) -> np.ndarray:
    """Return all of an image, small, on a square."""
    image = Image.fromarray(decode_image(data))
    image.thumbnail((PIXELS, PIXELS), Image.Resampling.BOX)
    side = max(image.size)
    square = Image.new(image.mode, (side, side), "black" if image.mode == "L" else "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(square)


class _Front(AudioEncoder):
    """The frozen front and no network."""

    def forward(self, arrays: torch.Tensor) -> torch.Tensor:
        return arrays


def _ear(inputs: AudioInput) -> See:
    """Return what makes the log-mel spectrogram of a recording that an audio encoder is given, low tones below."""
    front = _Front(inputs)

    def hear(data: bytes) -> np.ndarray:
        mels = front.prepare([data])[0, 0, ::-1].astype(np.float32)
        return np.asarray(colormaps["magma"]((mels - mels.min()) / max(np.ptp(mels), 1e-6), bytes=True))[..., :3]

    return hear
