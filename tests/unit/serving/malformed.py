"""Bodies with something wrong, the same every time; benchmarks/serving_fuzz.py sends them too."""

import base64
import json
import random
from collections.abc import Iterator, Sequence

NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "-0", "1.5", "true", "null")
ODD = ("\u202e", "😀", "漢字かな", "مرحبا", "\ufeff", "e\u0301" * 50, "<script>", "'; DROP TABLE tasks", "\x07", "\0")
JSON = "application/json"
FORM = "multipart/form-data; boundary=x"
HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


def malformed(files: Sequence[bytes], count: int, seed: int = 0) -> Iterator[tuple[str, bytes, str]]:
    """Bodies, each with the modality of the task that it is meant for and its content type.

    Args:
        files: sound images and recordings, which are cut, changed and mixed.
    """
    drawn = random.Random(seed)
    for _ in range(count):
        modality = drawn.choice(("text", "image", "audio"))
        make = drawn.choice((_cut_json, _wrong_numbers, _other_alphabets, _broken_file, _broken_form))
        body, kind = make(drawn, modality, files)
        yield modality, body, kind


def _cut_json(drawn: random.Random, modality: str, files: Sequence[bytes]) -> tuple[bytes, str]:
    data = _broken(drawn, json.dumps(_task(modality, "a", "a")).encode(), 4)
    return data[: drawn.randrange(len(data))], JSON


def _wrong_numbers(drawn: random.Random, modality: str, files: Sequence[bytes]) -> tuple[bytes, str]:
    value = drawn.choice(NUMBERS)
    keys = drawn.choice((("queries",), ("examples",), ("name", "modality", "examples")))
    return ("{" + ", ".join(f'"{key}": [{value}]' for key in keys) + "}").encode(), JSON


def _other_alphabets(drawn: random.Random, modality: str, files: Sequence[bytes]) -> tuple[bytes, str]:
    words = "".join(drawn.choices(ODD, k=5)) * drawn.choice((1, 1, 1, 1000))
    body = drawn.choice((_task(modality, words, words[:9]), {"queries": [words]}))
    return json.dumps(body, ensure_ascii=drawn.random() < 0.5).encode(), JSON


def _broken_file(drawn: random.Random, modality: str, files: Sequence[bytes]) -> tuple[bytes, str]:
    data = drawn.choice(files)
    if drawn.random() < 0.5:  # two things at once
        data = data[: drawn.randrange(len(data))] + drawn.choice(files)[drawn.randrange(40) :]
    coded = base64.b64encode(_broken(drawn, data, 30)).decode()
    body = drawn.choice(
        (_task(modality, coded, "a"), {"queries": [coded]}, {"examples": [{"input": coded, "label": "a"}]})
    )
    return json.dumps(body).encode(), JSON


def _broken_form(drawn: random.Random, modality: str, files: Sequence[bytes]) -> tuple[bytes, str]:
    data = _broken(drawn, HEAD + drawn.choice(files) + b"\r\n--x--\r\n", 8)
    return data[: drawn.randrange(1, len(data) + 1)], FORM


def _task(modality: str, content: str, label: str) -> dict[str, object]:
    return {"name": label, "modality": modality, "examples": [{"input": content, "label": label}]}


def _broken(drawn: random.Random, data: bytes, most: int) -> bytes:
    """Some bytes are others."""
    changed = bytearray(data)
    for _ in range(drawn.randrange(most)):
        changed[drawn.randrange(len(changed))] = drawn.randrange(256)
    return bytes(changed)
