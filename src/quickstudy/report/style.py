"""How the card's figures look.

Colours are of the Okabe-Ito palette, told apart by the colour-blind; lines differ in their markers too and are
labelled where they end.
"""

import io

import numpy as np
from matplotlib import patheffects
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from quickstudy.data.dataset import MODALITIES
from quickstudy.stats.intervals import OURS

BLUE, GREEN, ORANGE, PURPLE = "#0072B2", "#00795A", "#B85400", "#8C5A7D"
INK, MUTED, GRID = "#1B1F24", "#59636E", "#E4E8EC"
LOOK = {OURS: (BLUE, "o"), "encoder": (GREEN, "s"), "raw": (ORANGE, "^"), "scratch": (PURPLE, "D")}
TONES = dict(zip(MODALITIES, (BLUE, ORANGE, GREEN), strict=True))
STYLE = {
    "font.family": "DejaVu Sans",  # matplotlib carries it: the same picture everywhere
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # names of datasets may hold dollars
    "axes.edgecolor": "#B8C0C8",
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}
WIDE, NARROW = 10.4, 4.0  # inches
HALO = [patheffects.withStroke(linewidth=2.5, foreground="white")]


def blank(width: float, height: float) -> Figure:
    """A figure of so many inches."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.08))


def webp(png: bytes) -> bytes:
    """Return the same picture as lossless WebP: three quarters of the size, for a page that holds it."""
    buffer = io.BytesIO()
    # A higher method saves 4% more, in thirty times the time.
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, format="webp", lossless=True, quality=100, method=4)
    return buffer.getvalue()


def png(figure: Figure) -> bytes:
    """As PNG bytes. Nothing of the machine or the time goes into them."""
    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    # A palette of few colours: a third of the size, and nothing that the eye would miss.
    few = drawn.quantize(96, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(buffer, format="png", optimize=True)
    return buffer.getvalue()
