"""What a request brings, checked: bodies as JSON or as forms with files, and no more than the limits allow.

Sizes are read from a file's header before anything is decoded; the decoders (data/media.py) have bounds of their own.
"""

import asyncio
import io
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import soundfile
from fastapi import Request
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from quickstudy.config import Serve
from quickstudy.data.coded import decoded
from quickstudy.data.dataset import Modality
from quickstudy.data.media import IMAGE_FORMATS
from quickstudy.errors import QuickstudyError

FORM = "multipart/form-data"
LARGE = 1 << 18  # bytes of JSON
FRAMES = 1 << 16  # read at once
PLAIN = ("WAV", "WAVEX", "RF64")  # formats that may hold samples as they are


def _is_a_name(value: str) -> str:
    # Control characters would break the lines of logs; a NUL no database of text can hold.
    if not value.strip() or any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ValueError("is empty or holds control characters")
    return value


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_is_a_name)]


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ExampleBody(Body):
    input: str = Field(description="the text itself, or the base64 of an image's or a recording's file")
    label: Name


_EXAMPLES: list[JsonValue] = [
    {"input": "My card was charged twice.", "label": "billing"},
    {"input": "Please send me the invoice again.", "label": "billing"},
    {"input": "The parcel has not arrived.", "label": "delivery"},
    {"input": "Where is my order now?", "label": "delivery"},
]


class ExamplesBody(Body):
    """More examples of a task."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"examples": _EXAMPLES[:1]}]})
    examples: tuple[ExampleBody, ...] = Field(min_length=1)


class HeadBody(Body):
    """What a task is, beside its examples."""

    name: Name
    modality: Literal["text", "image", "audio"]


class LabelsBody(Body):
    """The labels of a form's files."""

    label: tuple[Name, ...]


class TaskBody(HeadBody):
    """A new task."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "tickets", "modality": "text", "examples": _EXAMPLES}]}
    )
    examples: tuple[ExampleBody, ...] = Field(min_length=1)


class ExportBody(TaskBody):
    """A task as it is exported."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"format": 1, "name": "tickets", "modality": "text", "examples": _EXAMPLES}]}
    )
    format: Literal[1]


class QueriesBody(Body):
    """Queries of a task."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"queries": ["I was billed two times."]}]})
    queries: tuple[str, ...] = Field(min_length=1)


_Body = TypeVar("_Body", bound=Body)


@dataclass(frozen=True)
class Given:
    """Examples of a request: inputs as the encoder takes them."""

    labels: Sequence[str]
    inputs: Sequence[str | bytes]

    def contents(self) -> list[bytes]:
        """The inputs as they are kept."""
        return [one.encode() if isinstance(one, str) else one for one in self.inputs]


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM


async def read_json(request: Request, kind: type[_Body]) -> _Body:
    """The body of a request.

    Raises:
        QuickstudyError: it is no JSON, or not this.
    """
    data = await request.body()
    if len(data) > LARGE:  # others are answered meanwhile
        return await asyncio.to_thread(_parsed, kind, data)
    return _parsed(kind, data)


def _parsed(kind: type[_Body], data: bytes) -> _Body:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise QuickstudyError(message[:1].lower() + message[1:300], where=where[:100] or "the body") from None


class Form:
    """The fields of a form with files. Files that are large lie on the disk until they are read."""

    def __init__(self, fields: Mapping[str, Sequence[str]], files: Sequence[bytes]):
        self._fields, self.files = fields, files

    def one(self, name: str) -> str | None:
        values = self._fields.get(name, ())
        if len(values) > 1:
            raise QuickstudyError("is there more than once", where=name)
        return values[0] if values else None

    def all(self, name: str) -> Sequence[str]:
        return self._fields.get(name, ())


async def read_form(request: Request, known: Sequence[str], files: int) -> Form:
    """The body of a request that brings files.

    Args:
        known: names of its fields, beside the files. files: at most.

    Raises:
        QuickstudyError: no such form, an unknown field, or text where a file belongs.
    """
    fields: dict[str, list[str]] = {}
    contents: list[bytes] = []
    try:
        async with request.form(max_files=files, max_fields=files + len(known), max_part_size=10_000) as form:
            for name, value in form.multi_items():
                if (name == "file") != isinstance(value, UploadFile) or name not in (*known, "file"):
                    allowed = ", ".join((*known, "file"))
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


async def read_examples(request: Request, modality: Modality | None, limits: Serve) -> tuple[str, Modality, Given]:
    """A new task of a request: its name, modality and examples; of a known modality only those.

    Raises:
        QuickstudyError: see `read_json`, `read_form`, `checked`.
    """
    if is_form(request):
        return await _examples_of_form(request, modality, limits)
    name = ""
    if modality is None:
        task = await read_json(request, TaskBody)
        name, modality, examples = task.name, task.modality, task.examples
    else:
        examples = (await read_json(request, ExamplesBody)).examples
    return name, modality, await asyncio.to_thread(given, examples, modality, limits)


def given(examples: Sequence[ExampleBody], modality: Modality, limits: Serve) -> Given:
    """Examples of a JSON body, checked."""
    check_count(len(examples), limits.examples, "examples")
    inputs = [checked(one.input, modality, limits, f"examples.{place}.input") for place, one in enumerate(examples)]
    return Given([one.label for one in examples], inputs)


async def _examples_of_form(request: Request, modality: Modality | None, limits: Serve) -> tuple[str, Modality, Given]:
    known = ("label",) if modality else ("name", "modality", "label")
    form = await read_form(request, known, limits.examples)
    name = ""
    if modality is None:
        head = _parsed(HeadBody, json.dumps({name: form.one(name) for name in ("name", "modality")}).encode())
        name, modality = head.name, head.modality
    if len(form.all("label")) != len(form.files) or not form.files:
        raise QuickstudyError(f"{len(form.all('label'))} labels and {len(form.files)} files; say one for each")
    labels = _parsed(LabelsBody, json.dumps({"label": form.all("label")}).encode()).label
    return name, modality, Given(labels, await _files(form, modality, limits))


async def _files(form: Form, modality: Modality, limits: Serve) -> list[str | bytes]:
    def check() -> list[str | bytes]:
        return [checked(data, modality, limits, f"file {place}") for place, data in enumerate(form.files)]

    return await asyncio.to_thread(check)


async def read_queries(request: Request, modality: Modality, limits: Serve) -> list[str | bytes]:
    """Queries of a request; raises as `read_examples`."""
    if is_form(request):
        form = await read_form(request, (), limits.queries)
        if not form.files:
            raise QuickstudyError("there is no file", where="the body")
        return await _files(form, modality, limits)
    queries = (await read_json(request, QueriesBody)).queries
    check_count(len(queries), limits.queries, "queries")

    def check() -> list[str | bytes]:
        return [checked(one, modality, limits, f"queries.{place}") for place, one in enumerate(queries)]

    return check() if modality == "text" else await asyncio.to_thread(check)


def check_count(count: int, most: int, what: str) -> None:
    if count > most:
        raise QuickstudyError(f"{count} {what}, more than the {most} allowed")


def check_classes(classes: Mapping[str, int], limits: Serve) -> None:
    """Of a task as it will be."""
    check_count(len(classes), limits.classes, "classes")
    check_count(sum(classes.values()), limits.examples, "examples")


def checked(value: str | bytes, modality: Modality, limits: Serve, where: str) -> str | bytes:
    """An input as the encoder takes it: a text, or a file's bytes.

    Raises:
        QuickstudyError: no base64, or beyond a limit.
    """
    if modality == "text":
        text = _text(value, where)
        if len(text) > limits.characters:
            raise QuickstudyError(f"{len(text)} characters, more than the {limits.characters} allowed", where=where)
        return text
    data = value if isinstance(value, bytes) else decoded(value, where)
    if not data:
        raise QuickstudyError("is empty (0 bytes)", where=where)
    if modality == "image" and (pixels := _pixels(data)) > limits.pixels:
        raise QuickstudyError(f"{pixels:,} pixels, more than the {limits.pixels:,} allowed", where=where)
    if modality == "audio" and _longer_than(data, limits.seconds):
        raise QuickstudyError(f"longer than the {limits.seconds:g} seconds allowed", where=where)
    return data


def _text(value: str | bytes, where: str) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise QuickstudyError("is no text in UTF-8", where=where) from None


def _pixels(data: bytes) -> int:
    """As the header has it; 0 where it has none, which the decoder tells better."""
    try:
        width, height = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS).size
    except Image.DecompressionBombError:
        return 2 * (Image.MAX_IMAGE_PIXELS or 0)
    except Exception:
        return 0
    return width * height


def _longer_than(data: bytes, seconds: float) -> bool:
    """By what can be read, as headers lie; a file that cannot be read is not, which the decoder tells better."""
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
