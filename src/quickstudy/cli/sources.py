"""How a source is read: the options of every verb that reads one, defined once.

A verb takes them as one parameter, ``how``; its command has them all in its place.
"""

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from quickstudy.data.dataset import Reading
    from quickstudy.ingest.importers.options import ImportOptions


class ModalityName(StrEnum):
    image = "image"
    audio = "audio"
    text = "text"


PANEL = "How the source is read"


def _option(*names: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=PANEL)


@dataclass(frozen=True)
class _Said:
    """An option of the command line, and what it is called where a source is read."""

    type: Any
    default: Any
    field: str


_OPTIONS: dict[str, _Said] = {
    "kind": _Said(
        Annotated[
            str | None,
            _option(
                "--kind",
                metavar="KIND",
                help="What is learned: [b]classify[/b] (one class each) or [b]tag[/b] (several, or none). Told from "
                "the source where it is left out: a column of lists is tags.",
            ),
        ],
        None,
        "kind",
    ),
    "modality": _Said(
        Annotated[ModalityName | None, _option("--modality", "-m", help="Told from the files where it is left out.")],
        None,
        "modality",
    ),
    "text": _Said(
        Annotated[
            str | None,
            _option(
                "--text",
                "--content",
                metavar="COLUMN",
                help="Column of the examples. Usual names are found: text …; else the longest texts.",
            ),
        ],
        None,
        "content",
    ),
    "label": _Said(
        Annotated[
            str | None,
            _option(
                "--label",
                metavar="COLUMN",
                help="Column of the class, or tags. Usual names are found: label, intent, tags …; else the one of few "
                "values. [b]file[/b]: the name of the file is the class.",
            ),
        ],
        None,
        "label",
    ),
    "separator": _Said(
        Annotated[
            str | None,
            _option(
                "--separator", metavar="TEXT", help="What is between the tags of one cell, e.g. ';' in 'late;refund'."
            ),
        ],
        None,
        "separator",
    ),
    "label_columns": _Said(
        Annotated[
            str | None,
            _option(
                "--label-columns",
                metavar="COLUMNS",
                help="Columns of 0 and 1, one a tag: late,refund or 'is_*', or '*' for all that hold nothing else.",
            ),
        ],
        None,
        "label_columns",
    ),
    "group": _Said(
        Annotated[
            str | None,
            _option(
                "--group",
                metavar="GROUP",
                help="What never crosses the meta-split: a COLUMN, a {field} of --pattern, a folder level (0 is the "
                "top), a FILE.json that maps groups to classes, [b]class[/b] (each is its own) or [b]none[/b].",
            ),
        ],
        None,
        "group",
    ),
    "domain": _Said(
        Annotated[
            str | None,
            _option(
                "--domain",
                metavar="DOMAIN",
                help="Who spoke, drew, took it: a COLUMN, a {field} of --pattern or a folder level.",
            ),
        ],
        None,
        "domain",
    ),
    "pattern": _Said(
        Annotated[
            str | None,
            _option(
                "--pattern",
                metavar="PATTERN",
                help="How file names are made, e.g. '{class}_{speaker}_{}'; {x:8} has 8 characters.",
            ),
        ],
        None,
        "pattern",
    ),
    "header": _Said(
        Annotated[
            bool | None,
            _option(
                "--header/--no-header",
                help="Whether the first row names the columns; else these are called 1, 2, … Told from the rows.",
            ),
        ],
        None,
        "header",
    ),
    "delimiter": _Said(
        Annotated[
            str | None,
            _option(
                "--delimiter", metavar="TEXT", help="What is between the fields of a row: , ; | tab. Told from them."
            ),
        ],
        None,
        "delimiter",
    ),
    "encoding": _Said(
        Annotated[
            str | None,
            _option(
                "--encoding", metavar="NAME", help="Of text files and names in a .zip: cp1252, gbk … Told from them."
            ),
        ],
        None,
        "encoding",
    ),
    "exclude_label": _Said(
        Annotated[
            list[str] | None,
            _option("--exclude-label", metavar="CLASS", help="Leave a class or tag out; may be repeated."),
        ],
        None,
        "exclude",
    ),
    "ignore_case": _Said(
        Annotated[
            bool, _option("--ignore-case", help="Cat and cat are one class. What differs in blanks alone always is.")
        ],
        False,
        "ignore_case",
    ),
    "file": _Said(
        Annotated[
            str | None,
            _option(
                "--file", metavar="COLUMN", help="Of a table beside images or recordings: which column names them."
            ),
        ],
        None,
        "file",
    ),
    "follow_links": _Said(
        Annotated[bool, _option("--follow-links", help="Follow links that lead out of the folder.")],
        False,
        "follow_links",
    ),
    "skip_bad": _Said(
        Annotated[bool, _option("--skip-bad", help="Leave out unreadable files and rows, and say so.")],
        False,
        "skip_bad",
    ),
    "drop_duplicates": _Said(
        Annotated[
            bool,
            _option("--drop-duplicates", help="Leave out repetitions, and what stands under two labels."),
        ],
        False,
        "drop_duplicates",
    ),
}


@dataclass(frozen=True)
class How:
    """What was said of how a source is to be read."""

    fields: dict[str, Any]
    """By the names of `Reading` and `ImportOptions`; what was not said is not there."""

    def options(self, **more: Any) -> "ImportOptions":
        """Return it as what an importer is asked, with what else is said of it."""
        from quickstudy.ingest.importers.options import ImportOptions

        return ImportOptions.model_validate(self.fields | more)

    def reading(self) -> "Reading":
        """Return it as what differs from how a dataset was read."""
        from quickstudy.data.dataset import Reading

        return Reading.model_validate(self.fields)


NOTHING = How({})


def reads_source(
    without: Collection[str] = (), default: Callable[[], dict[str, Any]] = dict
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options of a source, in the place of its parameter ``how``.

    Args:
        without: options that mean nothing to it, by their names in Python.
        default: fields that count where nothing else is said.
    """
    options = {name: said for name, said in _OPTIONS.items() if name not in without}

    def given(verb: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(verb, eval_str=True)

        @wraps(verb)
        def called(**values: Any) -> None:
            said = {one.field: values.pop(name) for name, one in options.items()}
            fields = {name: value for name, value in said.items() if value not in (None, False) or name == "header"}
            fields = {name: value for name, value in fields.items() if value is not None}
            if "label_columns" in fields:
                fields["label_columns"] = _names(fields["label_columns"])
            if "exclude" in fields:
                fields["exclude"] = tuple(fields["exclude"])
            if "modality" in fields:
                fields["modality"] = fields["modality"].value
            verb(**values, how=How(default() | fields))

        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if parameter.name != "how":
                parameters.append(parameter)
                continue
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters += [
                inspect.Parameter(name, kind, default=one.default, annotation=one.type) for name, one in options.items()
            ]
        # Those after it are keywords too, as Python wants it of a signature.
        keyword = False
        for place, parameter in enumerate(parameters):
            keyword = keyword or parameter.kind is inspect.Parameter.KEYWORD_ONLY
            if keyword:
                parameters[place] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return given


def _names(columns: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in columns.split(",") if name.strip())
