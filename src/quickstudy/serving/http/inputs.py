"""How a request's body is read and checked: JSON, or a form with files, and no more than the settings allow.

Sizes are read from a file's header before anything is decoded; the decoders (data/media.py) have bounds of their own.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import soundfile
from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from quickstudy.config import Serve
from quickstudy.data.coded import decoded
from quickstudy.data.dataset import Modality
from quickstudy.data.media import extent
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.targets import targets_of
from quickstudy.serving.engine import cost
from quickstudy.serving.engine.engine import Engine
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
from quickstudy.serving.http.shape import check_shape
from quickstudy.serving.http.trimmed import trimmed
from quickstudy.serving.http.watch import CLOSING

SMALL = 512
"""Bytes of JSON that cannot hold much."""
LARGE = 1 << 15
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
    costs: Sequence[float]
    """of each file, in units (cost.py)"""

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


@dataclass(frozen=True)
class NewQueries:
    """Queries of a request, checked."""

    inputs: Sequence[str | bytes]
    costs: Sequence[float]
    """of each file, in units (cost.py)"""


class Tally:
    """What the files of a request come to together, by their headers.

    Args:
        settings: pixels and seconds, of one and of all, at most.
    """

    def __init__(self, settings: Serve):
        self._settings, self._pixels, self._seconds = settings, 0, 0.0
        self.costs: list[float] = []

    def add(self, data: bytes, modality: Modality, where: str) -> None:
        """Count a file.

        Raises:
            QuickstudyError: it is too large, or all are together.
        """
        own = self._settings
        said = extent(data, modality)
        self.costs.append(cost.of_file(said, len(data)))
        if said is None:  # the decoder tells better why
            return
        if said.pixels > own.pixels:
            raise QuickstudyError(f"{said.pixels:,} pixels, more than the {own.pixels:,} allowed", where=where)
        if said.samples and _longer_than(data, own.seconds):
            raise QuickstudyError(f"longer than the {own.seconds:g} seconds allowed", where=where)
        self._pixels, self._seconds = self._pixels + said.pixels, self._seconds + min(said.seconds, own.seconds)
        if self._pixels > own.request_pixels:
            what = f"more than the {own.request_pixels:,} pixels allowed in one request"
            raise QuickstudyError(what, where=where, fix="Send several requests")
        if self._seconds > own.request_seconds:
            what = f"more than the {own.request_seconds:g} seconds allowed in one request"
            raise QuickstudyError(what, where=where, fix="Send several requests")


# ---- what routes read


async def read_task(request: Request, who: str, engine: Engine) -> NewTask:
    """Return a new task, from JSON or a form.

    Args:
        who: the tenant.

    Raises:
        QuickstudyError: see `read_json`, `read_form` and `checked`.
        Overdrawn, Busy: the tenant, or all, want too much.
    """
    if is_form(request):
        form = await read_form(request, ("name", "kind", "modality", "label"), engine.settings.examples, who, engine)
        said = {name: form.one(name) for name in ("name", "kind", "modality")}
        head = _parsed(TaskHead, json.dumps({k: v for k, v in said.items() if k != "kind" or v is not None}).encode())
        examples = await _examples_of_form(form, head.kind, head.modality, who, engine)
        return NewTask(head.name, head.kind, head.modality, examples)
    return await _task_of_json(await read_json(request, TaskCreate, who, engine), who, engine)


async def read_export(request: Request, who: str, engine: Engine) -> NewTask:
    """Return a task that was exported; raises as `read_task`."""
    return await _task_of_json(await read_json(request, TaskImport, who, engine), who, engine)


async def _task_of_json(task: TaskCreate, who: str, engine: Engine) -> NewTask:
    examples = await _examples_of_json(task.examples, task.kind, task.modality, who, engine)
    return NewTask(task.name, task.kind, task.modality, examples)


async def read_examples(request: Request, kind: str, modality: Modality, who: str, engine: Engine) -> NewExamples:
    """Return more examples of a task of this kind and modality; raises as `read_task`."""
    if is_form(request):
        form = await read_form(request, ("label",), engine.settings.examples, who, engine)
        return await _examples_of_form(form, kind, modality, who, engine)
    body = await read_json(request, ExamplesCreate, who, engine)
    return await _examples_of_json(body.examples, kind, modality, who, engine)


async def read_queries(request: Request, modality: Modality, who: str, engine: Engine) -> NewQueries:
    """Return queries of a task of this modality; raises as `read_task`."""
    if is_form(request):
        form = await read_form(request, (), engine.settings.queries, who, engine)
        if not form.files:
            raise QuickstudyError("there is no file", where="the body")
        return NewQueries(*await _files(form, modality, who, engine))
    queries = (await read_json(request, Queries, who, engine)).queries
    check_count(len(queries), engine.settings.queries, "queries")
    tally = Tally(engine.settings)

    def check() -> list[str | bytes]:
        return [checked(one, modality, engine.settings, f"queries.{place}", tally) for place, one in enumerate(queries)]

    found = check() if modality == "text" else await engine.pools.decoding.run(who, check)
    return NewQueries(found, tally.costs)


# ---- examples, as each of the two brings them


async def _examples_of_json(
    examples: Sequence[Example], kind: str, modality: Modality, who: str, engine: Engine
) -> NewExamples:
    tally = Tally(engine.settings)

    def check() -> NewExamples:
        check_count(len(examples), engine.settings.examples, "examples")
        targets = [one.target(kind, f"examples.{place}") for place, one in enumerate(examples)]
        found = [
            checked(one.input, modality, engine.settings, f"examples.{place}.input", tally)
            for place, one in enumerate(examples)
        ]
        return NewExamples(targets, found, tally.costs)

    pool = engine.pools.parsing if modality == "text" else engine.pools.decoding
    return await pool.run(who, check)


async def _examples_of_form(form: "Form", kind: str, modality: Modality, who: str, engine: Engine) -> NewExamples:
    if len(form.all("label")) != len(form.files) or not form.files:
        raise QuickstudyError(f"{len(form.all('label'))} labels and {len(form.files)} files; say one for each")
    part = targets_of(kind)
    targets = [part.from_text(text, f"label.{place}") for place, text in enumerate(form.all("label"))]
    return NewExamples(targets, *await _files(form, modality, who, engine))


async def _files(form: "Form", modality: Modality, who: str, engine: Engine) -> tuple[list[str | bytes], list[float]]:
    tally = Tally(engine.settings)

    def check() -> list[str | bytes]:
        return [
            checked(data, modality, engine.settings, f"file {place}", tally) for place, data in enumerate(form.files)
        ]

    return await engine.pools.decoding.run(who, check), tally.costs


# ---- JSON


async def read_json(request: Request, body: type[_Body], who: str, engine: Engine) -> _Body:
    """Return the body of a request.

    Raises:
        QuickstudyError: it is no JSON, or not this.
        Overdrawn: see `Allowance.holding`.
    """
    holds, parts = holding(request, who, engine), []
    async for part in request.stream():
        holds(len(part))
        parts.append(part)
    data = b"".join(parts)
    most = max(engine.settings.examples, engine.settings.classes, engine.settings.queries)

    def parse() -> _Body:
        if len(data) > SMALL:
            check_shape(data, most)
        return _parsed(body, data)

    return await engine.pools.parsing.run(who, parse) if len(data) > LARGE else parse()


def holding(request: Request, who: str, engine: Engine) -> Callable[[int], None]:
    """Return what is to be told of bytes of a request's body, which are held until it is answered."""
    closing: ExitStack = request.scope[CLOSING]
    return closing.enter_context(engine.allowance.holding(who))


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


async def read_form(request: Request, names: Sequence[str], files: int, who: str, engine: Engine) -> Form:
    """Return the body of a request that brings files.

    Args:
        names: of its fields, beside `file`. files: at most.

    Raises:
        QuickstudyError: no such form, an unknown field, or text where a file belongs.
        Overdrawn: see `Allowance.holding`.
    """
    holds = holding(request, who, engine)
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
                    holds(len(contents[-1]))
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


def checked(value: str | bytes, modality: Modality, settings: Serve, where: str, tally: Tally) -> str | bytes:
    """Return an input as the encoder takes it: a text, or a file's bytes.

    Args:
        value: a text, the base64 of a file, or a file's bytes. settings: characters of a text, at most. where: it
            stands, for errors. tally: of the files of the request.

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
    try:
        tally.add(data, modality, where)
    except QuickstudyError as error:
        raise QuickstudyError(error.what, where=where, fix=error.fix) from None
    return data


def _text(value: str | bytes, where: str) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise QuickstudyError("is no text in UTF-8", where=where) from None


def _longer_than(data: bytes, seconds: float) -> bool:
    """Return whether a recording is longer by what can be read, as headers lie; of a file that cannot be read the
    decoder tells better."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            left = int(seconds * file.samplerate)
            if file.format in PLAIN and file.subtype.startswith("PCM_") and len(data) <= left * file.channels:
                return False  # a sample takes a byte or more
            while length := len(file.read(FRAMES, dtype="int16")):
                left -= length
                if left < 0:
                    return True
    except Exception:
        pass
    return False
