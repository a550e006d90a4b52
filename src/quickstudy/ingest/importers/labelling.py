"""What labelling tools write: Label Studio (JSON, JSON-MIN, CSV), Argilla, doccano, Prodigy.

Their exports hold, beside examples and what people said of them, who said it and when. Of each example its fields are
kept, and for each question the answer of the people who gave one; what nobody answered is left out and counted. Where
two people answered differently the row is a bad one.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from quickstudy.data.dataset import Reading
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.records import Broken, Rows, Table

Answered = tuple[dict[str, Any], dict[str, Any]]
"""The fields of an example, and by question what was answered: a name or several; None where nobody did."""

_UNANSWERED = "that nobody has labelled"


def converted(rows: Rows, first: list[dict[str, Any]], reading: Reading) -> Table | None:
    """Return the rows of an export as a table of its examples; None where it is no tool's.

    Args:
        rows: all of them.
        first: so many that they tell what all hold.
        reading: what was said.
    """
    if not first:
        return None
    names = frozenset().union(*first[:20])
    for about, is_of, take in _TOOLS:
        if is_of(first[0], names):
            return _table(about, rows, first, take, reading)
    return None


class _Answers(dict):
    """A row, in which a field may be missing."""

    def __missing__(self, key: str) -> Any:
        return None


class _Left(Exception):
    """No example."""


def _table(
    about: str,
    rows: Rows,
    first: list[dict[str, Any]],
    take: Callable[[dict[str, Any]], Answered],
    reading: Reading,
) -> Table:
    contents: dict[str, Any] = {}
    questions: dict[str, bool] = {}  # and whether one has several answers
    for record in first:
        try:
            fields, answers = take(record)
        except (_Left, QuickstudyError):
            continue
        contents |= {name: cell for name, cell in fields.items() if name not in contents}
        for name, answer in answers.items():
            several = isinstance(answer, list) and len(answer) > 1
            questions[name] = questions.get(name, False) or several
    if not questions:
        kinds = sorted({kind for record in first for kind in _kinds_of_answers(record)})
        what = f"holds {', '.join(kinds)} and no choices" if kinds else "nobody has labelled anything in it"
        raise QuickstudyError(f"{about}: {what}", fix="Of such exports the classes of whole examples are read")
    asked = [name for name in questions if reading.label in (None, name)] or list(questions)
    left_out: Counter[str] = Counter()

    def records() -> Rows:
        for at, record in rows:
            if isinstance(record, Broken):
                yield at, record
                continue
            try:
                fields, answers = take(record)
            except _Left as why:
                left_out[str(why)] += 1
                continue
            except QuickstudyError as error:
                yield at, Broken(error.what)
                continue
            if all(answers.get(name) is None or (answers[name] == [] and not questions[name]) for name in asked):
                left_out[_UNANSWERED] += 1
                continue
            yield at, _Answers({**fields, **{name: _as(answers.get(name), questions[name]) for name in questions}})

    several = any(questions[name] for name in asked)
    samples = {name: [] if questions[name] else "" for name in questions}
    columns = list(dict.fromkeys([*contents, *questions]))
    likely = tuple(name for name, cell in contents.items() if isinstance(cell, str))
    return Table(
        columns,
        records(),
        samples=samples,
        content=likely if len(likely) == 1 else (),
        targets=tuple(asked) if len(asked) == 1 else (),
        several=several,
        about=about,
        left_out=left_out,
    )


def _as(answer: Any, several: bool) -> Any:
    """An answer as a list where answers are, else as one name where it is."""
    if several:
        return answer if isinstance(answer, list) or answer is None else [answer]
    return answer[0] if isinstance(answer, list) and len(answer) == 1 else answer


def _agreed(answers: list[Any]) -> Any:
    """What all answered.

    Raises:
        QuickstudyError: it is not the same.
    """
    apart = {json.dumps(sorted(map(str, one)) if isinstance(one, list) else [str(one)]): one for one in answers}
    if len(apart) > 1:
        said = " and ".join(repr(_shown(one)) for one in list(apart.values())[:2])
        raise QuickstudyError(f"people disagree about it: {said}")
    return answers[0] if answers else None


def _shown(answer: Any) -> str:
    return ", ".join(map(str, answer)) if isinstance(answer, list) else str(answer)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: cell for name, cell in fields.items() if isinstance(cell, str | int | float)}


# Label Studio


def _is_label_studio(record: dict[str, Any], names: frozenset[str]) -> bool:
    return isinstance(record.get("data"), dict) and bool({"annotations", "completions"} & names)


def _label_studio(record: dict[str, Any]) -> Answered:
    said: dict[str, list[Any]] = {}
    for annotation in record.get("annotations") or record.get("completions") or []:
        if not isinstance(annotation, dict) or annotation.get("was_cancelled") or annotation.get("skipped"):
            continue
        own: dict[str, list[Any]] = {}
        for result in annotation.get("result") or []:
            if isinstance(result, dict) and (answer := _choice(result)) is not None:
                own.setdefault(str(result.get("from_name", "label")), []).extend(answer)
        for name, answer in own.items():
            said.setdefault(name, []).append(answer)
    fields = record.get("data")
    return _plain(fields if isinstance(fields, dict) else {}), {name: _agreed(all_) for name, all_ in said.items()}


def _choice(result: dict[str, Any]) -> list[Any] | None:
    value = result.get("value")
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("choices"), list):
        return value["choices"]
    if isinstance(value.get("taxonomy"), list):
        return ["/".join(map(str, path)) if isinstance(path, list) else path for path in value["taxonomy"]]
    return [str(value["rating"])] if "rating" in value else None


def _kinds_of_answers(record: dict[str, Any]) -> Iterator[str]:
    for annotation in record.get("annotations") or record.get("completions") or []:
        if isinstance(annotation, dict):
            yield from (str(one["type"]) for one in annotation.get("result") or [] if isinstance(one, dict))


_OF_THE_TOOL = frozenset(
    {"id", "annotator", "annotation_id", "lead_time", "created_at", "updated_at", "agreement", "inner_id"}
)


def _chosen(cell: Any) -> list[Any] | None:
    """The choices in a cell that holds several: {"choices": […]}, which in CSV is a text."""
    if isinstance(cell, str) and cell.startswith('{"choices"'):
        try:
            cell = json.loads(cell)
        except ValueError:
            return None
    return cell["choices"] if isinstance(cell, dict) and isinstance(cell.get("choices"), list) else None


def flattened(table: Table, first: list[dict[str, Any]]) -> Table:
    """Return Label Studio's JSON-MIN or CSV without what the tool itself needs; of any other table, the table.

    Args:
        table: that may be.
        first: so many of its rows that they tell what all hold.
    """
    several = sorted({name for record in first for name, cell in record.items() if _chosen(cell) is not None})
    names = {*table.columns, *chain(*first[:20])}
    if not several and not ("annotation_id" in names and {"lead_time", "annotator"} & names):
        return table
    columns = [name for name in dict.fromkeys([*table.columns, *chain(*first)]) if name not in _OF_THE_TOOL]
    left_out: Counter[str] = Counter()
    answer = several[0] if len(several) == 1 else None

    def rows() -> Rows:
        for at, record in table.rows:
            if isinstance(record, Broken):
                yield at, record
                continue
            own = {name: record.get(name) for name in columns}
            for name in several:
                cell = own[name]
                own[name] = _chosen(cell) or ([cell] if isinstance(cell, str) and cell else [])
            if answer is not None and not own[answer]:
                left_out[_UNANSWERED] += 1
                continue
            yield at, _Answers(own)

    return Table(
        columns,
        rows(),
        samples={name: [] for name in several},
        encoding=table.encoding,
        header=table.header,
        targets=(answer,) if answer is not None else ("choice", "choices"),
        several=bool(several),
        about="Label Studio's export",
        left_out=left_out,
    )


# Argilla


def _is_argilla(record: dict[str, Any], names: frozenset[str]) -> bool:
    return isinstance(record.get("fields"), dict) and bool({"responses", "suggestions"} & names)


def _argilla(record: dict[str, Any]) -> Answered:
    if record.get("status") in ("discarded", "Discarded"):
        raise _Left("that were discarded")
    said: dict[str, list[Any]] = {}
    responses = record.get("responses")
    if isinstance(responses, dict):  # by question
        for name, answers in responses.items():
            said[name] = _submitted(answers)
    elif isinstance(responses, list):  # by person
        for one in responses:
            if isinstance(one, dict) and one.get("status", "submitted") == "submitted":
                for name, value in (one.get("values") or {}).items():
                    said.setdefault(name, []).append(value.get("value") if isinstance(value, dict) else value)
    fields = record.get("fields")
    plain = _plain(fields if isinstance(fields, dict) else {})
    return plain, {name: _agreed(answers) for name, answers in said.items() if answers}


def _submitted(answers: Any) -> list[Any]:
    found = [one for one in answers if isinstance(one, dict)] if isinstance(answers, list) else []
    return [one.get("value") for one in found if one.get("status") in (None, "submitted")]


def _is_flat_argilla(record: dict[str, Any], names: frozenset[str]) -> bool:
    nested = (_answers_of_people(cell) for cell in record.values())
    return any(name.endswith((".responses", ".suggestion", "-suggestion")) for name in names) or any(nested)


def _answers_of_people(cell: Any) -> bool:
    """Whether a cell lists who answered what."""
    if not isinstance(cell, list) or not cell:
        return False
    return all(isinstance(one, dict) and "value" in one and {"user_id", "status"} & one.keys() for one in cell)


def _flat_argilla(record: dict[str, Any]) -> Answered:
    said: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    for name, cell in record.items():
        if name.endswith(".responses"):
            own = name.removesuffix(".responses")
            states = record.get(f"{own}.responses.status")
            answers = cell if isinstance(cell, list) else []
            if isinstance(states, list) and len(states) == len(answers):
                answers = [one for one, state in zip(answers, states, strict=True) if state in (None, "submitted")]
            said[own] = _agreed(answers)
        elif _answers_of_people(cell) or (isinstance(cell, list) and f"{name}-suggestion" in record):
            said[name] = _agreed(_submitted(cell))
        elif "." not in name and not name.endswith(("-suggestion", "_id")) and name not in ("id", "metadata", "status"):
            fields[name] = cell
    return _plain(fields), {name: answer for name, answer in said.items() if answer is not None}


def _is_old_argilla(record: dict[str, Any], names: frozenset[str]) -> bool:
    return {"annotation", "prediction"} <= names or {"annotation", "annotation_agent"} <= names


def _old_argilla(record: dict[str, Any]) -> Answered:
    if record.get("status") == "Discarded":
        raise _Left("that were discarded")
    inputs = record.get("inputs")
    fields: dict[str, Any] = dict(inputs) if isinstance(inputs, dict) else {}
    if isinstance(record.get("text"), str):
        fields = {"text": record["text"]}
    answer = record.get("annotation")
    return _plain(fields), {} if answer is None else {"annotation": answer}


# doccano


def _is_doccano(record: dict[str, Any], names: frozenset[str]) -> bool:
    """Its rows are numbered, and the labels of each are a list, of one where it is asked for one."""
    cell = record.get("label", record.get("labels"))
    return "id" in names and isinstance(cell, list) and isinstance(record.get("text", record.get("data")), str)


def _doccano(record: dict[str, Any]) -> Answered:
    name = "label" if "label" in record else "labels"
    cell = record.get(name)
    if isinstance(cell, list) and any(isinstance(one, list) for one in cell):
        raise QuickstudyError(f"the {name} is {str(cell)[:40]!r}, a part of a text and not a class of it")
    return {key: value for key, value in record.items() if key not in (name, "id", "Comments")}, {name: cell}


# Prodigy


def _is_prodigy(record: dict[str, Any], names: frozenset[str]) -> bool:
    if bool({"_task_hash", "_input_hash"} & names):
        return "answer" in names
    return record.get("answer") in ("accept", "reject", "ignore") and bool({"accept", "label"} & names)


def _prodigy(record: dict[str, Any]) -> Answered:
    answer = record.get("answer")
    if answer == "reject" and "accept" not in record:
        raise _Left("of which it is said what they are not")
    if answer in ("reject", "ignore"):
        raise _Left("that were rejected or ignored")
    chosen = record.get("accept") if "accept" in record else record.get("label")
    fields = {name: cell for name, cell in _plain(record).items() if not name.startswith("_")}
    for name in ("label", "answer", "config", "timestamp", "session", "priority", "score", "meta"):
        fields.pop(name, None)
    return fields, {"label": chosen}


_TOOLS: tuple[tuple[str, Callable[[dict[str, Any], frozenset[str]], bool], Callable[[dict[str, Any]], Answered]], ...]
_TOOLS = (
    ("Label Studio's export", _is_label_studio, _label_studio),
    ("Prodigy's export", _is_prodigy, _prodigy),
    ("Argilla's export", _is_argilla, _argilla),
    ("Argilla's export", _is_flat_argilla, _flat_argilla),
    ("Argilla's export", _is_old_argilla, _old_argilla),
    ("doccano's export", _is_doccano, _doccano),
)
