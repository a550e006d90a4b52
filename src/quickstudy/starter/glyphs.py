"""glyphs: characters of many scripts, each drawn many times as if by different hands. Image, group = script.

A character is outlined by a font, thinned to the path of a pen, and drawn again along that path: bent, slanted,
stretched, with another pen each time. What is learned on these drawings has to hold for real handwriting, so the
digits, which judge it, are left out here.
"""

import io
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from quickstudy.data.dataset import DatasetInfo, make_table
from quickstudy.starter.work import Progress, generator, silent
from quickstudy.system.workers import workers

DRAWINGS = 20
SIZE = 28  # pixels of a drawing
CANVAS = 64  # pixels of the outlines and paths that drawings are made from
INK = 48  # of these, the longer side of the character
EM = 64  # font size in which characters are measured

SANS = ("DejaVuSans", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Oblique")
SERIF = ("DejaVuSerif", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralItalic")
BOLD = ("DejaVuSans-Bold", "DejaVuSerif-Bold", "STIXGeneralBol")
FACES = SANS + SERIF + BOLD
DIGIT_FACES = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral")

ALIKE = 0.92  # correlation of two blurred pictures above which they are one character
LIKE_A_DIGIT = 0.79

# script: what the Unicode name starts with, and the range of code points. Earlier scripts win a shape that two share.
SCRIPTS: dict[str, tuple[str, tuple[tuple[int, int], ...]]] = {
    "latin": ("LATIN ", ((0x41, 0x5A), (0x61, 0x7A), (0xC6, 0x17F))),
    "greek": ("GREEK ", ((0x370, 0x3FF),)),
    "cyrillic": ("CYRILLIC ", ((0x400, 0x45F),)),
    "cyrillic extended": ("CYRILLIC ", ((0x460, 0x52F), (0xA640, 0xA69F))),
    "coptic": ("COPTIC ", ((0x3E2, 0x3EF), (0x2C80, 0x2CFF))),
    "phonetic": ("LATIN ", ((0x250, 0x2AF), (0x1D00, 0x1D7F))),
    "african latin": ("LATIN ", ((0x180, 0x24F), (0x2C60, 0x2C7F))),
    "armenian": ("ARMENIAN ", ((0x531, 0x587),)),
    "georgian": ("GEORGIAN ", ((0x10A0, 0x10FF), (0x2D00, 0x2D2F))),
    "hebrew": ("HEBREW LETTER ", ((0x5D0, 0x5EA),)),
    "arabic": ("ARABIC LETTER ", ((0x620, 0x6D5),)),
    "nko": ("NKO LETTER ", ((0x7CA, 0x7EA),)),
    "lao": ("LAO ", ((0xE81, 0xEDF),)),
    "tifinagh": ("TIFINAGH LETTER ", ((0x2D30, 0x2D67),)),
    "ogham": ("OGHAM LETTER ", ((0x1680, 0x169C),)),
    "lisu": ("LISU LETTER ", ((0xA4D0, 0xA4F7),)),
    "old italic": ("OLD ITALIC LETTER ", ((0x10300, 0x1031F),)),
    "common syllabics": ("CANADIAN SYLLABICS ", ((0x1401, 0x14FF),)),
    "carrier syllabics": ("CANADIAN SYLLABICS ", ((0x1500, 0x1676),)),
    "fraktur": ("MATHEMATICAL FRAKTUR ", ((0x1D504, 0x1D537),)),
    "script": ("MATHEMATICAL SCRIPT ", ((0x1D49C, 0x1D4CF),)),
    "double-struck": ("MATHEMATICAL DOUBLE-STRUCK ", ((0x1D538, 0x1D56B),)),
    "arrows": ("", ((0x2190, 0x21FF), (0x27F0, 0x27FF))),
    "relations": ("", ((0x2200, 0x22FF),)),
    "apl": ("APL FUNCTIONAL SYMBOL ", ((0x2336, 0x237A),)),
    "tetragrams": ("TETRAGRAM FOR ", ((0x1D306, 0x1D356),)),
    "currency": ("", ((0x20A0, 0x20BF), (0x24, 0x24), (0xA2, 0xA5))),
}


def build(progress: Progress = silent, limit: int | None = None) -> tuple[DatasetInfo, pa.Table]:
    """Draw the dataset.

    Args:
        progress: told (done, total) in characters.
        limit: characters a script, for tests; None for all.
    """
    chosen = characters(limit)
    chunks = [chosen[i : i + 8] for i in range(0, len(chosen), 8)]
    images: list[bytes] = []
    with workers() as pool:
        for drawn in pool.map(_draw_all, ["".join(c for _, c in chunk) for chunk in chunks]):
            images += drawn
            progress(len(images) // DRAWINGS, len(chosen))
    labels = [f"{script}/{_short_name(script, char)}" for script, char in chosen for _ in range(DRAWINGS)]
    groups = [script for script, _ in chosen for _ in range(DRAWINGS)]
    info = DatasetInfo(
        name="glyphs",
        modality="image",
        description=f"{len(chosen)} characters of {len(set(groups))} scripts, {DRAWINGS} drawings each: outlines of "
        "fonts, thinned to a pen's path and drawn again with varied face, slant, proportions, wobble and pen. Light "
        "ink on dark ground. Numerals of every script, and characters that closely resemble 0 to 9, are left out: the "
        "dataset digits judges.",
        licence="Drawings of DejaVu (Bitstream Vera licence, public-domain changes) and STIX (SIL OFL 1.1) fonts",
        source="fonts shipped with matplotlib (mpl-data/fonts/ttf)",
        citation="DejaVu Fonts, https://dejavu-fonts.github.io; STIX Fonts, https://www.stixfonts.org",
        group="script",
    )
    return info, make_table("image", images, labels, groups)


def characters(limit: int | None = None) -> list[tuple[str, str]]:
    """(script, character) that the fonts hold and that look unlike each other and unlike every digit."""
    digits = np.stack([_print(digit, face) for digit in "0123456789" for face in DIGIT_FACES])
    seen = np.zeros((8192, digits.shape[1]), np.float32)
    used = 0
    kept = []
    for script, (start, ranges) in SCRIPTS.items():
        count = 0
        for code in (code for first, last in ranges for code in range(first, last + 1)):
            char = chr(code)
            if count == limit or not _is_wanted(char, start):
                continue
            if _is_dot(char):
                continue
            shape = _print(char, _faces(char)[0])
            if (digits @ shape).max() > LIKE_A_DIGIT or (seen[:used] @ shape).max(initial=0) > ALIKE:
                continue
            seen[used] = shape
            used += 1
            kept.append((script, char))
            count += 1
    return kept


def _is_wanted(char: str, start: str) -> bool:
    name = unicodedata.name(char, "")
    return (
        bool(name)
        and name.startswith(start)
        and unicodedata.category(char) in {"Lu", "Ll", "Lo", "Lt", "Sm", "So", "Sc"}
        and unicodedata.numeric(char, None) is None
        and not any(word in name for word in ("DIGIT", "NUMBER", "CIRCLED"))
        # An accent is too small a difference to survive a hand: only characters that stand for themselves.
        and (not unicodedata.decomposition(char) or "font" in unicodedata.decomposition(char))
        and bool(_faces(char))
    )


def _short_name(script: str, char: str) -> str:
    return unicodedata.name(char).removeprefix(SCRIPTS[script][0]).lower()


@lru_cache
def _covered(face: str) -> frozenset[int]:
    return frozenset(TTFont(_font_file(face)).getBestCmap())


def _font_file(face: str) -> Path:
    # Found without importing matplotlib, which would read the user's settings.
    spec = find_spec("matplotlib")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{face}.ttf"


def _faces(char: str) -> list[str]:
    return [face for face in FACES if ord(char) in _covered(face)]


@lru_cache
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_font_file(face), size, layout_engine=ImageFont.Layout.BASIC)


def _ink(char: str, face: str, size: int) -> np.ndarray:
    """bool [H, W]: the character in a font size, cut out."""
    page = Image.new("L", (3 * size, 3 * size))
    ImageDraw.Draw(page).text((size, size // 2), char, fill=255, font=_font(face, size))
    left, top, right, bottom = page.getbbox() or (0, 0, 1, 1)
    return np.asarray(page)[top:bottom, left:right] > 127


def _is_dot(char: str) -> bool:
    """Whether it is a dot, a small mark, a filled shape or a blank: nothing that a pen would draw as a path."""
    ink = _ink(char, _faces(char)[0], EM)
    long, short = max(ink.shape), min(ink.shape)
    return long < 0.25 * EM or (long < 2 * short and bool(ink.mean() > 0.7))


def _outline(char: str, face: str) -> np.ndarray:
    """bool [CANVAS, CANVAS]: the character, its longer side about INK pixels, in the middle."""
    ink = _ink(char, face, round(EM * INK / max(_ink(char, face, EM).shape)))[:CANVAS, :CANVAS]
    page = np.zeros((CANVAS, CANVAS), bool)
    top, left = (CANVAS - ink.shape[0]) // 2, (CANVAS - ink.shape[1]) // 2
    page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return page


def _print(char: str, face: str) -> np.ndarray:
    """float32 [1024]: a blurred, small, unit-length picture; the product of two says how alike they look."""
    field = ndimage.gaussian_filter(_outline(char, face).astype(np.float32), 1.5)[::2, ::2].ravel()
    field -= field.mean()
    return field / np.linalg.norm(field)


def _draw_all(chars: str) -> list[bytes]:
    return [png for char in chars for png in _draw(char)]


def _draw(char: str) -> Iterator[bytes]:
    """DRAWINGS files of one character; the random numbers are its own."""
    rng = generator("glyphs", char)
    faces = _faces(char)
    light = [face for face in faces if face not in BOLD] or faces
    fields: dict[tuple[str, bool], np.ndarray] = {}
    for _ in range(DRAWINGS):
        pen = bool(rng.random() < 0.75)
        choice = light if pen else faces
        face = choice[rng.integers(len(choice))]
        if (face, pen) not in fields:
            ink = _outline(char, face)
            if pen:  # distance to the pen's path
                fields[face, pen] = ndimage.distance_transform_edt(~_thin(ink))
            else:  # distance to the outline, negative inside
                fields[face, pen] = ndimage.distance_transform_edt(~ink) - ndimage.distance_transform_edt(ink) + 0.5
        grey = _stroke(fields[face, pen].astype(np.float32), pen, rng)
        file = io.BytesIO()
        Image.fromarray(grey).save(file, "PNG", compress_level=6)
        yield file.getvalue()


def _hats(knots: int) -> np.ndarray:
    """float [SIZE, knots]: smooth interpolation from a few values to every pixel."""
    at = np.linspace(0, knots - 1, SIZE)[:, None] - np.arange(knots)
    weight = np.exp(-0.5 * (at / 0.6) ** 2)
    return weight / weight.sum(1, keepdims=True)


COARSE, FINE = _hats(3), _hats(6)


def _stroke(distance: np.ndarray, pen: bool, rng: np.random.Generator) -> np.ndarray:
    """uint8 [SIZE, SIZE]: one drawing from a field of distances [CANVAS, CANVAS] to a path or an outline."""
    angle, shear = np.radians(rng.normal(0, 7)), rng.normal(0, 0.16)
    # Characters fill between half and nearly all of the frame.
    scale = rng.uniform(0.62, 1.0) * SIZE / INK * np.exp(rng.normal(0, 0.11, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    affine = turn @ np.array([[1, 0], [shear, 1]]) @ np.diag(scale)  # canvas -> drawing, rows (y, x)
    inverse = np.linalg.inv(affine)
    grid = np.stack(np.meshgrid(*[np.arange(SIZE) - (SIZE - 1) / 2] * 2, indexing="ij")).reshape(2, -1)
    grid = grid - rng.normal(0, 1.0, (2, 1)).clip(-2, 2)
    at = inverse @ grid + (CANVAS - 1) / 2
    # Proportions bend slowly over the character, the hand wobbles quickly.
    bend, wobble = rng.uniform(1.5, 4.5), rng.uniform(0.3, 1.6)
    for axis in range(2):
        at[axis] += bend * (COARSE @ rng.normal(size=(3, 3)) @ COARSE.T).ravel()
        at[axis] += wobble * (FINE @ rng.normal(size=(6, 6)) @ FINE.T).ravel()
    field = ndimage.map_coordinates(distance, at, order=1, mode="nearest").reshape(SIZE, SIZE)
    field *= np.sqrt(abs(np.linalg.det(affine)))  # in pixels of the drawing
    if pen:
        width = np.exp(rng.uniform(np.log(0.45), np.log(1.9)))
        pressure = 1 + 0.25 * (FINE @ rng.normal(size=(6, 6)) @ FINE.T)
        reach = width * pressure.clip(0.5, 1.6)
    else:
        reach = rng.uniform(-0.25, 0.5)
    soft = 1.0 if rng.random() < 0.7 else rng.uniform(1.0, 2.5)  # the share of blurred scans
    ink = (0.5 + (reach - field) / soft).clip(0, 1)
    peak = ink.max()
    return np.round(255 * ink / peak if peak > 0.2 else ink).astype(np.uint8)


# Zhang and Suen 1984: for every 8-neighbourhood, coded in bits clockwise from north, may the pixel go in pass 0 or 1?
_BITS = np.array([[128, 1, 2], [64, 0, 4], [32, 16, 8]])


def _removable() -> np.ndarray:
    table = np.zeros((2, 256), bool)
    for code in range(256):
        p = [code >> bit & 1 for bit in range(8)]
        steps = sum(p[i] == 0 and p[(i + 1) % 8] == 1 for i in range(8))
        north, east, south, west = p[0], p[2], p[4], p[6]
        if 2 <= sum(p) <= 6 and steps == 1:
            table[0, code] = not north * east * south and not east * south * west
            table[1, code] = not north * east * west and not north * south * west
    return table


_REMOVABLE = _removable()


def _thin(ink: np.ndarray) -> np.ndarray:
    """bool [H, W]: lines one pixel wide along the middle of the strokes."""
    ink = ink.copy()
    while True:
        before = ink.sum()
        for table in _REMOVABLE:
            ink &= ~table[ndimage.correlate(ink.astype(np.uint8), _BITS.astype(np.uint8), mode="constant")]
        if ink.sum() == before:
            return ink
