"""How a request's body is read and checked: JSON, or a form with files, and no more than the settings allow.

Sizes are read from a file's header before anything is decoded; the decoders (data/media.py) have bounds of their own.
"""

import asyncio
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import soundfile
from fastapi import Request
from PIL import Image
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from quickstudy.config import Serve
from quickstudy.data.coded import decoded
from quickstudy.data.dataset import Modality
from quickstudy.data.media import IMAGE_FORMATS
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.targets import targets_of
from quickstudy.serving.http.bodies import (
    FORM,
    Body,
    Example,
    ExamplesCreate,
    Queries,
    TaskCreate,
    TaskHead,
    TaskImport,
)
from quickstudy.serving.http.trimmed import trimmed

LARGE = 1 << 18
"""Bytes of JSON that are parsed on another thread, so that others are answered meanwhile."""
FRAMES = 1 << 16
"""Of a recording, read at once."""
PLAIN = ("WAV", "WAVEX", "RF64")
"""Formats of recordings that may hold samples as they are."""

_Body = TypeVar("_Body", bound=Body)


@dataclass(frozen=True)
class NewExamples:
    """Examples of a request, checked."""

    targets: Sequence[Any]
    """as JSON has them"""
    inputs: Sequence[str | bytes]
    """as the encoder takes them"""

    def contents(self) -> list[bytes]:
        """Return the inputs as they are kept: files without what follows their end."""
        return [one.encode() if isinstance(one, str) else trimmed(one) for one in self.inputs]


@dataclass(frozen=True)
class NewTask:
    """A task of a request, checked."""

    name: str
    kind: str
    modality: Modality
    examples: NewExamples


# ---- what routes read


async def read_task(request: Request, settings: Serve) -> NewTask:
    """Return a new task, from JSON or a form.

    Raises:
        QuickstudyError: see `read_json`, `read_form` and `checked`.
    """
    if is_form(request):
        form = await read_form(request, ("name", "kind", "modality", "label"), settings.examples)
        said = {name: form.one(name) for name in ("name", "kind", "modality")}
        head = _parsed(TaskHead, json.dumps({k: v for k, v in said.items() if k != "kind" or v is not None}).encode())
        return NewTask(
            head.name, head.kind, head.modality, await _examples_of_form(form, head.kind, head.modality, settings)
        )
    return await _task_of_json(await read_json(request, TaskCreate), settings)


async def read_export(request: Request, settings: Serve) -> NewTask:
    """Return a task that was exported; raises as `read_task`."""
    return await _task_of_json(await read_json(request, TaskImport), settings)


async def _task_of_json(task: TaskCreate, settings: Serve) -> NewTask:
    examples = await _examples_of_json(task.examples, task.kind, task.modality, settings)
    return NewTask(task.name, task.kind, task.modality, examples)


async def read_examples(request: Request, kind: str, modality: Modality, settings: Serve) -> NewExamples:
    """Return more examples of a task of this kind and modality; raises as `read_task`."""
    if is_form(request):
        form = await read_form(request, ("label",), settings.examples)
        return await _examples_of_form(form, kind, modality, settings)
    return await _examples_of_json((await read_json(request, ExamplesCreate)).examples, kind, modality, settings)


async def read_queries(request: Request, modality: Modality, settings: Serve) -> list[str | bytes]:
    """Return queries of a task of this modality; raises as `read_task`."""
    if is_form(request):
        form = await read_form(request, (), settings.queries)
        if not form.files:
            raise QuickstudyError("there is no file", where="the body")
        return await _files(form, modality, settings)
    queries = (await read_json(request, Queries)).queries
    check_count(len(queries), settings.queries, "queries")

    def check() -> list[str | bytes]:
        return [checked(one, modality, settings, f"queries.{place}") for place, one in enumerate(queries)]

    return check() if modality == "text" else await asyncio.to_thread(check)


# ---- examples, as each of the two brings them


async def _examples_of_json(examples: Sequence[Example], kind: str, modality: Modality, settings: Serve) -> NewExamples:
    targets = [one.target(kind, f"examples.{place}") for place, one in enumerate(examples)]

    def check() -> list[str | bytes]:
        check_count(len(examples), settings.examples, "examples")
        return [checked(one.input, modality, settings, f"examples.{place}.input") for place, one in enumerate(examples)]

    return NewExamples(targets, await asyncio.to_thread(check))


async def _examples_of_form(form: "Form", kind: str, modality: Modality, settings: Serve) -> NewExamples:
    if len(form.all("label")) != len(form.files) or not form.files:
        raise QuickstudyError(f"{len(form.all('label'))} labels and {len(form.files)} files; say one for each")
    part = targets_of(kind)
    targets = [part.from_text(text, f"label.{place}") for place, text in enumerate(form.all("label"))]
    return NewExamples(targets, await _files(form, modality, settings))


async def _files(form: "Form", modality: Modality, settings: Serve) -> list[str | bytes]:
    def check() -> list[str | bytes]:
        return [checked(data, modality, settings, f"file {place}") for place, data in enumerate(form.files)]

    return await asyncio.to_thread(check)


# ---- JSON


async def read_json(request: Request, body: type[_Body]) -> _Body:
    """Return the body of a request.

    Raises:
        QuickstudyError: it is no JSON, or not this.
    """
    data = await request.body()
    if len(data) > LARGE:
        return await asyncio.to_thread(_parsed, body, data)
    return _parsed(body, data)


def _parsed(body: type[_Body], data: bytes) -> _Body:
    try:
        return body.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise QuickstudyError(message[:1].lower() + message[1:300], where=where[:100] or "the body") from None


# ---- forms


class Form:
    """The fields of a form with files. Files that are large lie on the disk until they are read."""

    def __init__(self, fields: Mapping[str, Sequence[str]], files: Sequence[bytes]):
        self._fields, self.files = fields, files

    def one(self, name: str) -> str | None:
        """Return a field's value, None where it is not there.

        Raises:
            QuickstudyError: it is there more than once.
        """
        values = self._fields.get(name, ())
        if len(values) > 1:
            raise QuickstudyError("is there more than once", where=name)
        return values[0] if values else None

    def all(self, name: str) -> Sequence[str]:
        """Return a field's values, in order."""
        return self._fields.get(name, ())


def is_form(request: Request) -> bool:
    """Return whether a request says that it brings a form with files; else it is taken for JSON."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM


async def read_form(request: Request, names: Sequence[str], files: int) -> Form:
    """Return the body of a request that brings files.

    Args:
        names: of its fields, beside `file`. files: at most.

    Raises:
        QuickstudyError: no such form, an unknown field, or text where a file belongs.
    """
    fields: dict[str, list[str]] = {}
    contents: list[bytes] = []
    try:
        async with request.form(max_files=files, max_fields=files + len(names), max_part_size=10_000) as form:
            for name, value in form.multi_items():
                if (name == "file") != isinstance(value, UploadFile) or name not in (*names, "file"):
                    allowed = ", ".join((*names, "file"))
                    raise QuickstudyError(f"is no field of this form; they are {allowed}", where=name[:100])
                if isinstance(value, UploadFile):
                    contents.append(await value.read())
                else:
                    fields.setdefault(name, []).append(value)
    except HTTPException as error:
        if error.status_code != 400:
            raise
        raise QuickstudyError(str(error.detail), where="the body") from None
    except (UnicodeError, ValueError, LookupError) as error:
        if isinstance(error, QuickstudyError):
            raise
        raise QuickstudyError(f"is no form that can be read ({error})", where="the body") from None
    return Form(fields, contents)


# ---- sizes and files


def check_count(count: int, most: int, what: str) -> None:
    """Refuse more of something than is allowed.

    Raises:
        QuickstudyError: in words.
    """
    if count > most:
        raise QuickstudyError(f"{count} {what}, more than the {most} allowed")


def check_size(classes: int, examples: int, settings: Serve) -> None:
    """Refuse a task that will have too many classes or examples.

    Raises:
        QuickstudyError: see `check_count`.
    """
    check_count(classes, settings.classes, "classes")
    check_count(examples, settings.examples, "examples")


def checked(value: str | bytes, modality: Modality, settings: Serve, where: str) -> str | bytes:
    """Return an input as the encoder takes it: a text, or a file's bytes.

    Args:
        value: a text, the base64 of a file, or a file's bytes. settings: characters of a text, pixels of an image and
            seconds of a recording, at most. where: it stands, for errors.

    Raises:
        QuickstudyError: neither UTF-8 nor base64 where it must be, empty, or beyond a limit.
    """
    if modality == "text":
        text = _text(value, where)
        if len(text) > settings.characters:
            raise QuickstudyError(f"{len(text)} characters, more than the {settings.characters} allowed", where=where)
        return text
    data = value if isinstance(value, bytes) else decoded(value, where)
    if not data:
        raise QuickstudyError("is empty (0 bytes)", where=where)
    if modality == "image" and (pixels := _pixels(data)) > settings.pixels:
        raise QuickstudyError(f"{pixels:,} pixels, more than the {settings.pixels:,} allowed", where=where)
    if modality == "audio" and _longer_than(data, settings.seconds):
        raise QuickstudyError(f"longer than the {settings.seconds:g} seconds allowed", where=where)
    return data


def _text(value: str | bytes, where: str) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise QuickstudyError("is no text in UTF-8", where=where) from None


def _pixels(data: bytes) -> int:
    """Return the pixels that a header announces; 0 where there is none, which the decoder tells better."""
    try:
        width, height = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS).size
    except Image.DecompressionBombError:
        return 2 * (Image.MAX_IMAGE_PIXELS or 0)
    except Exception:
        return 0
    return width * height


def _longer_than(data: bytes, seconds: float) -> bool:
    """Return whether a recording is longer by what can be read, as headers lie; of a file that cannot be read the
    decoder tells better."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            left = int(seconds * file.samplerate)
            if file.channels > 2:
                return False
            if file.format in PLAIN and file.subtype.startswith("PCM_") and len(data) <= left * file.channels:
                return False  # a sample takes a byte or more
            while length := len(file.read(FRAMES, dtype="int16")):
                left -= length
                if left < 0:
                    return True
    except Exception:
        pass
    return False
