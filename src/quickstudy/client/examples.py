"""What people hold in their hands, as what a model and a service read: texts, and files of images and recordings.

Pixels become a PNG and samples a WAV, so that an example is the same bytes wherever it is answered.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, cast

import numpy as np

from quickstudy.data.dataset import MODALITIES, Modality
from quickstudy.data.media import AUDIO_SUFFIXES, IMAGE_SUFFIXES
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.encoding import check_whole
from quickstudy.kinds.targets import kind_of, targets_of


@dataclass(frozen=True)
class Examples:
    """Of one modality."""

    modality: Modality
    contents: list[str] | list[bytes]
    """texts, or the bytes of files"""
    names: list[str]
    """how to show each to a person: the text, the path, or what it is"""


def is_one(examples: object) -> bool:
    """Whether this is a single example: a text, a path, bytes, a picture, or (samples, rate).

    A list is many, as is a table's column or an array of more dimensions than a picture has.
    """
    if isinstance(examples, np.ndarray):
        return examples.ndim in (0, 2) or (examples.ndim == 3 and examples.shape[2] in (1, 3, 4))
    if isinstance(examples, str | bytes | Mapping) or not isinstance(examples, Iterable):
        return True
    return _is_recording(examples) or _is_picture(examples)


def read_examples(examples: Any, modality: Modality | None = None) -> Examples:
    """Read one example or many.

    Args:
        examples: texts, paths, bytes of files, PIL images, arrays [H, W] or [H, W, 3] (uint8, or floats in 0 … 1), or
            recordings (samples [n] or [n, 2], rate in Hz).
        modality: image, audio or text; None to tell it from the examples. A string is a path where it ends as the
            name of a picture or recording does, else a text.

    Raises:
        QuickstudyError: naming the example that cannot be read, or modalities that are mixed.
    """
    if modality is not None and modality not in MODALITIES:
        raise QuickstudyError(f"no modality {modality!r}", fix=f"Say {', '.join(MODALITIES)}")
    given = [examples] if is_one(examples) else list(examples)
    if not given:
        raise QuickstudyError("no examples")
    found: list[tuple[Modality, str | bytes, str]] = []
    for number, example in enumerate(given, 1):
        try:
            found.append(_read(example, modality, number))
        except QuickstudyError as error:
            raise QuickstudyError(error.what, where=f"example {number}", fix=error.fix) from None
        except OSError as error:
            what = f"{error.filename} cannot be read ({error.strerror})"
            raise QuickstudyError(what, where=f"example {number}") from None
    for number, one in enumerate(found, 1):
        if one[0] != found[0][0]:
            what = f"is {_a(one[0])}, the first one is {_a(found[0][0])}"
            raise QuickstudyError(what, where=f"example {number}", fix="Name the modality, or give one kind")
    contents = cast(list[str] | list[bytes], [content for _, content, _ in found])
    return Examples(found[0][0], contents, [name for _, _, name in found])


def read_labels(labels: Any, count: int, kind: str | None = None) -> tuple[str, list[Any]]:
    """Return the kind of task, told from its labels where it is not given, and the target of each example.

    Args:
        labels: one an example: a class, or a list of tags; a single class is that of all.

    Raises:
        QuickstudyError: another number of labels than of examples, one that is missing or of another kind, or a kind
            that there is not.
    """
    given = [labels] * count if isinstance(labels, str | Real) else list(labels)
    if len(given) != count:
        raise QuickstudyError(f"{count} examples and {len(given)} labels", fix="Give one label an example")
    kind = kind or kind_of(given)
    part = targets_of(kind)
    for number, label in enumerate(given, 1):
        try:
            check_whole(label, "label")
        except QuickstudyError as error:
            raise QuickstudyError(error.what, where=f"example {number}") from None
    return kind, [part.from_json(label, f"example {number}") for number, label in enumerate(given, 1)]


def _read(example: Any, wanted: Modality | None, number: int) -> tuple[Modality, str | bytes, str]:
    """Modality, content, and how to show it."""
    if isinstance(example, str):
        if wanted == "text" or (wanted is None and not _names_a_file(example)):
            if not example.strip():
                raise QuickstudyError("the text is empty")
            check_whole(example, "text")
            return "text", str(example), str(example)
        example = Path(example)
    if isinstance(example, Path):
        kind = wanted or _modality_of(example.name) or "text"
        if not example.is_file():
            fix = None if wanted else "If that is a text, name the modality text"
            raise QuickstudyError(f"no file {example}", fix=fix)
        if kind == "text":
            try:
                return _read(example.read_text(encoding="utf-8"), "text", number)
            except UnicodeDecodeError:
                raise QuickstudyError(f"{example} is neither a picture, a recording nor UTF-8 text") from None
        return kind, example.read_bytes(), str(example)
    if isinstance(example, bytes):
        kind = wanted or ("audio" if _sounds(example) else "image")
    elif _is_recording(example):
        kind, example = "audio", _wav(*example)
    elif isinstance(example, np.ndarray) or _is_picture(example):
        kind, example = "image", _png(example)
    else:
        what = f"is {type(example).__name__} {str(example)[:40]!r}"
        raise QuickstudyError(what, fix="Give a text, a path, bytes, a PIL image, an array, or (samples, rate)")
    if wanted is not None and wanted != kind:
        raise QuickstudyError(f"is {_a(kind)}, not {_a(wanted)}")
    if kind == "text":
        raise QuickstudyError("is bytes, not a text", fix="Decode it")
    return kind, example, f"{kind} {number}"


def _a(modality: Modality) -> str:
    return {"image": "an image", "audio": "a recording", "text": "a text"}[modality]


def _names_a_file(text: str) -> bool:
    """A sentence may end in "photo.png" as well; it is a path where such a file exists, or where it is one word."""
    if "\n" in text or _modality_of(text) is None:
        return False
    return len(text.split()) == 1 or Path(text).is_file()


def _modality_of(name: str) -> Modality | None:
    suffix = Path(name).suffix.lower()
    return "image" if suffix in IMAGE_SUFFIXES else "audio" if suffix in AUDIO_SUFFIXES else None


def _sounds(data: bytes) -> bool:
    """By its first bytes; what is no recording is left to the reader of images, which says what it is instead."""
    riff = data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE"
    mp3 = data[:3] == b"ID3" or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0)
    return riff or mp3 or data[:4] in (b"fLaC", b"OggS")


def _is_picture(example: object) -> bool:
    from PIL import Image

    return isinstance(example, Image.Image)


def _is_recording(example: object) -> bool:
    if not isinstance(example, tuple) or len(example) != 2 or not isinstance(example[1], Real):
        return False
    return isinstance(example[0], Sequence | np.ndarray) and not isinstance(example[0], str | bytes)


def _png(example: Any) -> bytes:
    from PIL import Image

    image = Image.fromarray(_pixels(example)) if isinstance(example, np.ndarray) else example
    if image.mode == "F":
        raise QuickstudyError("floating-point pixels", fix="Convert the image to 8 bits a channel")
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):  # what a PNG can hold
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _pixels(array: np.ndarray) -> np.ndarray:
    """→ uint8 or uint16 [H, W], or uint8 [H, W, 3 or 4]"""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or not array.size:
        fix = "An image is [H, W] or [H, W, 3], a recording (samples, rate)"
        raise QuickstudyError(f"is an array of shape {list(array.shape)}", fix=fix)
    if array.dtype == np.uint8 or (array.dtype == np.uint16 and array.ndim == 2):
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    top = 1.0 if array.dtype.kind == "f" else 255
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all() or array.min() < 0 or array.max() > top:
        fix = f"Of {array.dtype}, pixels lie in 0 … {top:g}; scale them"
        raise QuickstudyError("is an array of other values than pixels have", fix=fix)
    return (array * (255 if array.dtype.kind == "f" else 1)).round().astype(np.uint8)


def _wav(samples: Any, rate: Any) -> bytes:
    import soundfile

    wave = np.asarray(samples)
    if wave.ndim not in (1, 2) or not wave.size or wave.dtype.kind not in "fi" or int(rate) != rate or rate < 1:
        what = f"is a recording of shape {list(wave.shape)} at {rate} Hz"
        raise QuickstudyError(what, fix="Give (samples [n] or [n, 2], rate in Hz)")
    if wave.dtype.kind == "i":
        wave = wave / -float(np.iinfo(wave.dtype).min)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.astype(np.float32), int(rate), format="WAV", subtype="FLOAT")
    return buffer.getvalue()
