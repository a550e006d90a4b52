"""Ask an adapted task about many examples, from a Parquet file of any size to another one, in bounded memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.adaptation.adapted import Answers, answer, answers_of, encode, fault, restored
from quickstudy.adaptation.state import TaskState
from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.encoding import half
from quickstudy.ingest.importers.formats import cells_of
from quickstudy.ingest.importers.usual import CONTENT_COLUMNS, usual
from quickstudy.kinds.kind import Targets
from quickstudy.kinds.targets import targets_of
from quickstudy.model.metamodel import MetaModel
from quickstudy.system.atomic import draft

BATCH = 256  # examples that are answered together
BUFFER = 1 << 20  # bytes read at once: of a row group, however large, no more is held
FLUSH_ROWS, FLUSH_BYTES = 16_384, 8 << 20  # what is held of the answers before it is written as one row group


Ask = Callable[[Sequence[Any]], Answers]
"""Texts, or bytes of files [n] → what the task says."""


def asker(model: MetaModel, state: TaskState) -> Ask:
    """Return how to ask a task that was adapted and kept in a file."""
    if state.support is None:
        return lambda examples: answers_of(model, state, examples)
    adapted = restored(model, state)
    return lambda examples: answer(model, adapted, encode(model, state.modality, examples))


@dataclass
class Summary:
    """What was answered."""

    rows: int = 0
    unreadable: int = 0
    """rows that were left without an answer"""
    unknown: int = 0
    labelled: int = 0
    """rows with a label that the task knows"""
    hits: int = 0
    """of them, those whose answer is their label"""
    metric: str = ""
    """what the share of hits is called"""


def predict_table(
    source: Path,
    out: Path,
    ask: Ask,
    kind: str,
    modality: Modality,
    *,
    content: str | None = None,
    keep: Sequence[str] | None = None,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Answer every row of a Parquet file: the columns kept, ``answer``, ``probability``, and ``known`` if it is told.

    Rows keep their order. The answers appear when all are there; whatever ends it before leaves nothing behind.

    Args:
        content: the column of texts, images or recordings; None for the usual names.
        keep: columns of the source that the answers have too; None for all but the content.
        skip_bad: leave a row that cannot be read without an answer, instead of giving up.
        progress: told (done, total).

    Raises:
        QuickstudyError: no Parquet, no such column, a column of the same name as ours, a row that cannot be read.
    """
    if out.suffix != ".parquet":
        raise QuickstudyError("answers are written as Parquet", where=out, fix="Name it .parquet")
    if out.exists() and source.exists() and out.samefile(source):
        raise QuickstudyError("the answers would take the place of the examples", where=out, fix="Name another --out")
    summary = Summary(metric=targets_of(kind).HIT)
    with _opened(source) as file:
        plan = _plan(file.schema_arrow, source, targets_of(kind), modality, content, keep)
        total = file.metadata.num_rows
        with draft(out) as part, pq.ParquetWriter(part, plan.schema) as writer:
            held: list[pa.Table] = []
            rows = size = 0
            for batch in _batches(file, plan, source):
                table = _answered(batch, plan, ask, targets_of(kind), modality, skip_bad, source, summary)
                progress(summary.rows, total)
                held.append(table)
                rows, size = rows + table.num_rows, size + table.nbytes
                if rows >= FLUSH_ROWS or size >= FLUSH_BYTES:
                    writer.write_table(pa.concat_tables(held))
                    held, rows, size = [], 0, 0
            if held:
                writer.write_table(pa.concat_tables(held))
    return summary


@dataclass(frozen=True)
class _Plan:
    """Which columns are read, and which are written."""

    content: str
    label: str | None
    keep: tuple[str, ...]
    schema: pa.Schema

    @property
    def read(self) -> list[str]:
        return list(dict.fromkeys([self.content, *self.keep, *([] if self.label is None else [self.label])]))


def _opened(source: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False)
    except FileNotFoundError:
        raise QuickstudyError("not found", where=source, fix="Check the path") from None
    except (pa.ArrowException, OSError) as error:
        what = f"not complete Parquet ({' '.join(str(error).split())[:100]})"
        raise QuickstudyError(what, where=source, fix="Answers to other files: --json FILE instead of --out") from None


def _plan(
    schema: pa.Schema,
    source: Path,
    part: Targets,
    modality: Modality,
    content: str | None,
    keep: Sequence[str] | None,
) -> _Plan:
    names = schema.names
    there = ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "")
    for name in [*([content] if content else []), *(keep or ())]:
        if name not in names:
            raise QuickstudyError(f"no column {name!r}", where=source, fix=f"It has {there}")
    column = content or usual(names, CONTENT_COLUMNS[modality])
    if column is None:
        raise QuickstudyError(f"no {modality} column among {there}", where=source, fix="Name it by --content")
    kept = tuple(name for name in names if name != column) if keep is None else tuple(dict.fromkeys(keep))
    if clash := {"answer", "probability", "known"} & set(kept):
        what = f"has a column {min(clash)!r} already, as the answers have"
        raise QuickstudyError(what, where=source, fix="Name the columns that you want by --keep")
    labels = [name for name in names if name.lower() in part.USUAL and name != column]
    label = next((name for name in labels if part.is_column(schema.field(name).type)), None)
    ours = (("answer", part.ARROW), ("probability", pa.float64()), ("known", pa.bool_()))
    fields = [*(schema.field(name) for name in kept), *(pa.field(name, kind) for name, kind in ours)]
    return _Plan(column, label, kept, pa.schema(fields))


def _batches(file: pq.ParquetFile, plan: _Plan, source: Path) -> Iterator[pa.RecordBatch]:
    done = 0
    batches = file.iter_batches(BATCH, columns=plan.read, use_threads=False)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            what = f"damaged after row {done} ({' '.join(str(error).split())[:100]})"
            raise QuickstudyError(what, where=source, fix="Download it again") from None
        if batch is None:
            return
        yield batch
        done += batch.num_rows


def _answered(
    batch: pa.RecordBatch,
    plan: _Plan,
    ask: Ask,
    part: Targets,
    modality: Modality,
    skip_bad: bool,
    source: Path,
    summary: Summary,
) -> pa.Table:
    """A batch with its answers; adds to the summary."""
    cells = [cell["bytes"] if isinstance(cell, dict) else cell for cell in cells_of(batch.column(plan.content))]
    places, said = _asked(ask, cells, modality, skip_bad, f"{source}, row", summary.rows + 1)
    labels = [None] * len(cells) if plan.label is None else cells_of(batch.column(plan.label))
    answer: list[Any] = [None] * len(cells)
    probability: list[float | None] = [None] * len(cells)
    known: list[bool | None] = [None] * len(cells)
    if said is not None:
        for i, (place, target) in enumerate(zip(places, said.targets, strict=True)):
            answer[place], probability[place] = target, float(said.confidence[i])
            known[place] = bool(said.known[i]) if not np.isnan(said.unknown[i]) else None
            if labels[place] is not None and part.are_of([labels[place]], said.names):
                summary.labelled += 1
                summary.hits += labels[place] == answer[place]
    summary.rows += len(cells)
    summary.unreadable += len(cells) - len(places)
    summary.unknown += known.count(False)
    kept = [batch.column(name) for name in plan.keep]
    return pa.table([*kept, answer, probability, known], schema=plan.schema)


def _asked(
    ask: Ask, cells: list[Any], modality: Modality, skip_bad: bool, where: str, first: int
) -> tuple[list[int], Answers | None]:
    """Answers, and the places that they are of: all of them, unless what cannot be read may be left out."""
    try:
        if not any(_is_missing(cell, modality) for cell in cells):
            return list(range(len(cells))), ask(cells)
    except QuickstudyError:
        if all(_fault(cell, modality) is None for cell in cells):
            raise
    faults = [_fault(cell, modality) for cell in cells]
    places = [place for place, fault in enumerate(faults) if fault is None]
    if not skip_bad:
        place, fault = next((place, fault) for place, fault in enumerate(faults) if fault is not None)
        fix = "Mend it, or leave it without an answer by --skip-bad"
        raise QuickstudyError(fault, where=f"{where} {first + place}", fix=fix)
    return places, ask([cells[place] for place in places]) if places else None


def _is_missing(cell: Any, modality: Modality) -> bool:
    if isinstance(cell, str) and half(cell) is not None:
        return True
    return not isinstance(cell, str if modality == "text" else bytes) or not cell.strip()


def _fault(cell: Any, modality: Modality) -> str | None:
    """What is wrong with an example."""
    if isinstance(cell, str) and (wrong := half(cell)) is not None:
        return f"the text {wrong}"
    if _is_missing(cell, modality):
        return "the text is missing or empty" if modality == "text" else f"the cell holds no bytes of an {modality}"
    error = fault(cell, modality)
    return error.what if error else None
