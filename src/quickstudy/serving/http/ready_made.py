"""Tasks to try at one click, with examples made on the spot: each is taught shot by shot, so that one sees it learn."""

import base64
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from quickstudy.data.dataset import Modality

SHOTS = 5
SIDE = 112
"""Pixels of a drawing."""
VOICES = ("en-us+Andrea", "en-us+david", "en-gb+linda", "en-gb-scotland+Lee", "en-us+m3", "en-us-nyc+adam")


@dataclass(frozen=True)
class ReadyMade:
    """A task to try."""

    name: str
    modality: Modality
    shots: tuple[dict[str, str], ...]
    """each: an example of every class; texts, or the base64 of files"""
    query: str
    """something to ask first, that is none of the examples"""


def news_or_blog() -> ReadyMade:
    """Tell a piece of news from a blog."""
    return _texts("News or blog", "genre")


def sentiment() -> ReadyMade:
    """Tell a happy message from an unhappy one."""
    return _texts("Happy or unhappy", "sentiment")


def symbols() -> ReadyMade:
    """Draw circle, spiral and zigzag, each time a little otherwise."""
    draw: dict[str, Callable[[np.random.Generator], list[tuple[float, float]]]] = {
        "circle": _circle,
        "spiral": _spiral,
        "zigzag": _zigzag,
    }
    rng = np.random.default_rng(6)
    shots = tuple({name: _picture(path(rng), rng) for name, path in draw.items()} for _ in range(SHOTS))
    return ReadyMade("Three symbols", "image", shots, _picture(_circle(rng), rng))


def command() -> ReadyMade:
    """Speak three commands, by machine; people are understood the better the more of them have taught it."""
    from quickstudy.starter.words import build_few

    words = ("start", "stop", "louder")
    spoken = build_few(words, VOICES)
    shots = tuple({word: _base64(spoken[voice, word]) for word in words} for voice in VOICES[:SHOTS])
    return ReadyMade("A spoken command", "audio", shots, _base64(spoken[VOICES[SHOTS], "stop"]))


READY_MADE: dict[str, Callable[[], ReadyMade]] = {
    "news": cache(news_or_blog),
    "sentiment": cache(sentiment),
    "symbols": cache(symbols),
    "command": cache(command),
}


FAQ = (
    ("When are you open?", "Monday to Friday, nine to six."),
    ("What are your opening hours?", "Monday to Friday, nine to six."),
    ("How long does delivery take?", "Two to four days; you get a link to follow the parcel."),
    ("When will my parcel arrive?", "Two to four days; you get a link to follow the parcel."),
    ("How can I send something back?", "Within 30 days, with the label that lies in the parcel."),
    ("I do not like it and want to return it.", "Within 30 days, with the label that lies in the parcel."),
    ("How can I pay?", "By card, by transfer, or by invoice within 14 days."),
    ("Do you take credit cards?", "By card, by transfer, or by invoice within 14 days."),
    ("I forgot my password.", "Press 'Forgotten' on the page where you log in; a mail brings you a new one."),
    ("I cannot log in.", "Press 'Forgotten' on the page where you log in; a mail brings you a new one."),
)
"""Questions and answers that the chat begins with."""


def _texts(name: str, group: str) -> ReadyMade:
    from quickstudy.starter.phrasebook import sentences

    by_class = {label.partition("/")[2]: sentences(label, SHOTS + 1) for label in sorted(_labels(group))}
    shots = tuple({label: texts[shot] for label, texts in by_class.items()} for shot in range(SHOTS))
    return ReadyMade(name, "text", shots, next(iter(by_class.values()))[SHOTS])


def _labels(group: str) -> list[str]:
    from quickstudy.starter.phrasebook import labels

    return [label for label in labels() if label.startswith(f"{group}/")]


def _circle(rng: np.random.Generator) -> list[tuple[float, float]]:
    return [(math.cos(t), math.sin(t) * 0.9) for t in np.linspace(0, 2 * math.pi, 40) + rng.uniform(0, 6)]


def _spiral(rng: np.random.Generator) -> list[tuple[float, float]]:
    turns = rng.uniform(2.3, 2.8)
    return [
        (t * math.cos(turns * 2 * math.pi * t), t * math.sin(turns * 2 * math.pi * t)) for t in np.linspace(0, 1, 80)
    ]


def _zigzag(rng: np.random.Generator) -> list[tuple[float, float]]:
    return [(x, 0.7 * (-1) ** i + rng.normal(0, 0.1)) for i, x in enumerate(np.linspace(-1, 1, 6))]


def _picture(path: list[tuple[float, float]], rng: np.random.Generator) -> str:
    """Return a pen's path in −1…1 as the base64 of a PNG: turned, shifted and scaled a little."""
    from PIL import Image, ImageDraw

    angle, scale = rng.normal(0, 0.15), rng.uniform(0.28, 0.38) * SIDE
    x0, y0 = SIDE / 2 + rng.normal(0, 4, 2)
    cos, sin = math.cos(angle), math.sin(angle)
    points = [(x0 + scale * (cos * x - sin * y), y0 + scale * (sin * x + cos * y)) for x, y in path]
    image = Image.new("L", (SIDE, SIDE), 255)
    ImageDraw.Draw(image).line(points, fill=0, width=6, joint="curve")
    file = io.BytesIO()
    image.save(file, "PNG")
    return _base64(file.getvalue())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
