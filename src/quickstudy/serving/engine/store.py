"""Where tasks are kept: keys, tasks, their examples as they came, and what those are to each model.

SQLite or PostgreSQL, by SQLAlchemy. Every replica of the service works on the same database and keeps nothing that is
not in it: a task's revision says whether what a replica remembers is still true. A database that goes away for a
while is waited for; what was begun is then done again from the start.
"""

import contextlib
import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InterfaceError, OperationalError

from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.serving.engine import schema
from quickstudy.serving.engine.schema import examples, keys, tasks, vectors

PREFIX = "qs_"
"""Of a key, so that one that was committed by mistake can be found."""

LOCAL = "local"
"""The tenant of who calls on this machine while there are no keys."""

SHORT = 16
"""Digits of a model's digest that its vectors are kept under."""

ROW = 500
"""Bytes that an example takes beside its content and target, about: its vector and two rows."""
PIECE = 1_000_000
"""Bytes of examples that are read at once where all of a task are asked for; one alone may have more."""

_Result = TypeVar("_Result")


class Unavailable(QuickstudyError):
    """The database does not answer. The line names its host and user: it is for who runs the service alone."""


class _Nothing(Exception):
    """There is nothing to change."""


@dataclass(frozen=True)
class Key:
    id: str
    """the start of its digest"""
    tenant: str
    created: str


@dataclass(frozen=True)
class Kept:
    """A task as the database knows it."""

    id: str
    name: str
    kind: str
    modality: Modality
    revision: int
    created: str
    """UTC, ISO 8601"""
    classes: Mapping[str, int]
    """examples of each, sorted by name; one whose target names several counts for each"""
    examples: int
    """how many there are"""


@dataclass(frozen=True)
class Example:
    number: int
    target: Any
    """a JSON value of the form that the task's kind has: of classify a string, the class"""
    content: bytes
    """a text in UTF-8, or the file"""


@dataclass(frozen=True)
class Room:
    """Bytes of examples as they will be, about."""

    task: int
    tenant: int
    """of all its tasks"""


Fits = Callable[[Room], None]
"""Asked before a change is kept; what it raises leaves all as it is."""


@dataclass(frozen=True)
class Listed:
    """A task at one revision, and what must be known to read its examples piece by piece."""

    task: Kept
    sizes: tuple[tuple[int, int], ...]
    """of each example in order: its number, and its bytes, about"""

    def pieces(self) -> Iterator[tuple[int, int, int]]:
        """Yield the first number, the last number and how many examples there are of each piece."""
        piece: list[int] = []
        held = 0
        for number, size in self.sizes:
            if piece and held + size > PIECE:
                yield piece[0], piece[-1], len(piece)
                piece, held = [], 0
            piece.append(number)
            held += size
        if piece:
            yield piece[0], piece[-1], len(piece)


@dataclass(frozen=True)
class Contents:
    """All of a task at one revision."""

    kind: str
    modality: Modality
    revision: int
    examples: tuple[Example, ...]
    """files that the model has seen are left out, as nobody needs them: empty"""
    packed: Mapping[int, bytes]
    """of the examples by number, as far as the model that was asked for has seen them"""


class Store:
    """Tenants' keys and tasks.

    A database of an earlier layout is upgraded in place when it is opened.

    Args:
        url: SQLAlchemy's. patience: seconds that a database which has gone away is waited for.

    Raises:
        QuickstudyError: there is no such database, or it is of a layout that came after this code.
    """

    def __init__(self, url: str, patience: float = 20.0):
        self.patience = patience
        try:
            parsed = sa.make_url(url)
            self._sqlite = parsed.get_backend_name() == "sqlite"
            if self._sqlite:
                if parsed.database:
                    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
                # Neither an error nor its trace shows what somebody's examples are.
                self._engine = sa.create_engine(parsed, connect_args={"timeout": 10}, hide_parameters=True)
                sa.event.listen(self._engine, "connect", _prepare_sqlite)
                sa.event.listen(self._engine, "begin", _begin_sqlite)
            else:
                self._engine = sa.create_engine(
                    parsed, pool_pre_ping=True, isolation_level="REPEATABLE READ", hide_parameters=True
                )
        except (ArgumentError, ModuleNotFoundError) as error:
            raise QuickstudyError(
                f"is no database that can be used ({error})",
                where="serve.database",
                fix="Say one like postgresql+psycopg://USER@HOST/NAME, or null for .cache/serve.db",
            ) from None
        if self._read(schema.is_behind):
            self._write(schema.upgrade)

    def close(self) -> None:
        self._engine.dispose()

    def ping(self) -> None:
        """Raises Unavailable where the database does not answer now."""
        self._run(lambda connection: connection.execute(sa.select(1)).scalar(), patience=0.0)

    # ---- keys

    def add_key(self, tenant: str) -> str:
        """Make a key for a tenant. It is told here and never again."""
        key = PREFIX + secrets.token_urlsafe(32)
        row = {"digest": key_digest(key), "tenant": tenant, "created": _now()}
        self._write(lambda connection: connection.execute(keys.insert().values(row)))
        return key

    def all_keys(self) -> list[Key]:
        """Those that open something."""
        query = keys.select().where(keys.c.removed.is_(None)).order_by(keys.c.created)
        rows = self._read(lambda connection: connection.execute(query).all())
        return [Key(row.digest[:12], row.tenant, row.created) for row in rows]

    def remove_key(self, id: str) -> bool:
        """Whether there was one whose digest begins so."""
        if len(id) < 12:
            return False
        gone = keys.update().where(keys.c.digest.startswith(id, autoescape=True), keys.c.removed.is_(None))
        # Nor does it open a replica of before, which knows nothing of removed rows and still runs.
        spoilt = sa.literal("-") + sa.func.substr(keys.c.digest, 2)
        gone = gone.values(removed=_now(), digest=spoilt)
        return bool(self._write(lambda connection: connection.execute(gone).rowcount))

    def tenant_of(self, key: str) -> str | None:
        query = sa.select(keys.c.tenant).where(keys.c.digest == key_digest(key), keys.c.removed.is_(None))
        return self._read(lambda connection: connection.execute(query).scalar())

    def has_keys(self) -> bool:
        """Whether there is a key that opens something."""
        query = sa.select(keys.c.digest).where(keys.c.removed.is_(None)).limit(1)
        return self._read(lambda connection: connection.execute(query).scalar()) is not None

    def had_keys(self) -> bool:
        """Whether a key was ever made, be it removed or not: then nobody is answered without one."""
        return self._read(lambda connection: connection.execute(sa.select(keys.c.digest).limit(1)).scalar()) is not None

    # ---- tasks

    def create(
        self,
        tenant: str,
        name: str,
        kind: str,
        modality: Modality,
        targets: Sequence[Any],
        contents: Sequence[bytes],
        packed: Sequence[bytes],
        model: str,
        fits: Fits = lambda room: None,
    ) -> Kept:
        """Keep a new task with its first examples.

        Args:
            targets: of the examples, JSON values of the form that the kind has.
            packed: see `quickstudy.serving.engine.packing`. model: sha256 of the weights that made them.
        """
        # Sorted by time, so that a list of tasks has an order; the rest cannot be guessed.
        id = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
        created = _now()
        size = _bytes(targets, contents)
        row = {
            "id": id,
            "tenant": tenant,
            "name": name,
            "kind": kind,
            "modality": modality,
            "revision": 1,
            "last": len(targets),
            "created": created,
            "bytes": size,
        }

        def work(connection: sa.Connection) -> None:
            connection.execute(tasks.insert().values(row))
            _insert_examples(connection, id, 1, targets, contents, packed, model)
            fits(Room(size, _use(connection, tenant, size)))

        self._write(work)
        counts = Counter(map(_as_json, targets))
        return Kept(id, name, kind, modality, 1, created, _classes(counts), len(targets))

    def tasks(self, tenant: str, limit: int, after: str | None) -> list[Kept]:
        """Oldest first, those after the task of this id."""
        query = tasks.select().where(tasks.c.tenant == tenant).order_by(tasks.c.id).limit(limit)
        if after:
            query = query.where(tasks.c.id > after)

        def work(connection: sa.Connection) -> list[Kept]:
            rows = connection.execute(query).all()
            counts = _counts(connection, [row.id for row in rows])
            return [_kept(row, counts[row.id]) for row in rows]

        return self._read(work)

    def task(self, tenant: str, id: str) -> Kept | None:
        def work(connection: sa.Connection) -> Kept | None:
            row = connection.execute(_own(tasks.select(), tenant, id)).first()
            return None if row is None else _kept(row, _counts(connection, [id])[id])

        return self._read(work)

    def revisions(self, ids: Collection[str]) -> dict[str, tuple[str, int, str, Modality]]:
        """Tenant, revision, kind and modality of tasks now, of those that there are: the least that must be known
        before they are asked."""
        columns = tasks.c.id, tasks.c.tenant, tasks.c.revision, tasks.c.kind, tasks.c.modality
        query = sa.select(*columns).where(tasks.c.id.in_(ids))
        rows = self._read(lambda connection: connection.execute(query).all())
        return {row.id: (row.tenant, row.revision, row.kind, row.modality) for row in rows}

    def delete(self, tenant: str, id: str) -> bool:
        def work(connection: sa.Connection) -> bool:
            gone = connection.execute(_own(tasks.delete(), tenant, id).returning(tasks.c.bytes)).scalar()
            if gone is not None:
                _use(connection, tenant, -gone)
            return gone is not None

        return self._write(work)

    def add(
        self,
        tenant: str,
        id: str,
        targets: Sequence[Any],
        contents: Sequence[bytes],
        packed: Sequence[bytes],
        model: str,
        check: Callable[[Kept], None],
        fits: Fits = lambda room: None,
    ) -> tuple[Kept, list[int]] | None:
        """Give a task more examples.

        Args:
            targets: as `create`'s. check: gets the task as it will be; what it raises leaves it as it is.

        Returns:
            the task, and the new examples' numbers.
        """

        size = _bytes(targets, contents)

        def work(connection: sa.Connection) -> tuple[Kept, list[int]] | None:
            more = {"last": tasks.c.last + len(targets), "bytes": tasks.c.bytes + size}
            row = _touch(connection, tenant, id, more)
            if row is None:
                return None
            first = row.last - len(targets) + 1
            _insert_examples(connection, id, first, targets, contents, packed, model)
            kept = _kept(row, _counts(connection, [id])[id])
            check(kept)
            fits(Room(row.bytes, _use(connection, tenant, size)))
            return kept, list(range(first, row.last + 1))

        return self._write(work)

    def remove(self, tenant: str, id: str, number: int) -> Kept | None:
        """Take an example out of a task; None where there is no such task or example."""

        def work(connection: sa.Connection) -> Kept | None:
            gone = examples.delete().where(examples.c.task == id, examples.c.number == number)
            if _touch(connection, tenant, id, {}) is None:
                raise _Nothing
            held = connection.execute(gone.returning(examples.c.target, examples.c.content)).first()
            if held is None:
                raise _Nothing  # the revision stays as it was
            size = _bytes([json.loads(held.target)], [held.content])
            less = _own(tasks.update(), tenant, id).values(bytes=tasks.c.bytes - size)
            row = connection.execute(less.returning(*tasks.c)).one()
            _use(connection, tenant, -size)
            return _kept(row, _counts(connection, [id])[id])

        try:
            return self._write(work)
        except _Nothing:
            return None

    def listed(self, tenant: str, id: str) -> Listed | None:
        """A task, and how large its examples are; `some` reads them."""
        size = sa.func.length(examples.c.content) + sa.func.length(examples.c.target)
        sizes = sa.select(examples.c.number, size).where(examples.c.task == id).order_by(examples.c.number)

        def work(connection: sa.Connection) -> Listed | None:
            row = connection.execute(_own(tasks.select(), tenant, id)).first()
            if row is None:
                return None
            found = tuple((number, held) for number, held in connection.execute(sizes))
            return Listed(_kept(row, _counts(connection, [id])[id]), found)

        return self._read(work)

    def some(self, id: str, first: int, last: int, files: bool = True) -> list[Example]:
        """Examples of a task by their numbers, both included. An example never changes: only that it has gone since
        shows that the task is another one now.

        Args:
            files: whether their contents are read; else they are empty.
        """
        content = examples.c.content if files else sa.literal(b"", sa.LargeBinary).label("content")
        query = (
            sa.select(examples.c.number, examples.c.target, content)
            .where(examples.c.task == id, examples.c.number.between(first, last))
            .order_by(examples.c.number)
        )
        rows = self._read(lambda connection: connection.execute(query).all())
        return [Example(row.number, json.loads(row.target), row.content) for row in rows]

    def contents(self, id: str, model: str) -> Contents | None:
        """All of a task, whosever it is, and what it is to a model."""
        # A file that the model has seen is not read again: those of a task may be hundreds of megabytes.
        needed = sa.case((vectors.c.packed.is_(None), examples.c.content), else_=sa.literal(b"", sa.LargeBinary))
        kept = {True: examples.c.content, False: needed.label("content")}

        def work(connection: sa.Connection) -> Contents | None:
            task = connection.execute(tasks.select().where(tasks.c.id == id)).first()
            if task is None:
                return None
            query = (
                sa.select(examples.c.number, examples.c.target, kept[task.modality == "text"], vectors.c.packed)
                .select_from(examples.outerjoin(vectors, _seen_by(model)))
                .where(examples.c.task == id)
                .order_by(examples.c.number)
            )
            rows = connection.execute(query).all()
            found = tuple(Example(row.number, json.loads(row.target), row.content) for row in rows)
            packed = {row.number: row.packed for row in rows if row.packed is not None}
            return Contents(task.kind, task.modality, task.revision, found, packed)

        return self._read(work)

    # ---- what examples are to a model

    def keep_vectors(self, id: str, model: str, packed: Mapping[int, bytes]) -> None:
        """Keep what a model made of examples, as far as they are still there and nobody else has kept it."""

        def work(connection: sa.Connection) -> None:
            there = set(connection.execute(sa.select(examples.c.number).where(examples.c.task == id)).scalars())
            known = sa.select(vectors.c.number).where(vectors.c.task == id, vectors.c.model == model[:SHORT])
            there -= set(connection.execute(known).scalars())
            rows = [
                {"task": id, "model": model[:SHORT], "number": number, "packed": data}
                for number, data in packed.items()
                if number in there
            ]
            if rows:
                connection.execute(vectors.insert(), rows)

        with contextlib.suppress(IntegrityError):  # another replica was faster, or an example has just gone
            self._write(work)

    def unseen(self, model: str, kind: str, after: str, limit: int) -> list[str]:
        """Return tasks of a kind with examples that a model has not seen, in order of their ids, those after one."""
        query = (
            sa.select(examples.c.task)
            .join(tasks, tasks.c.id == examples.c.task)
            .where(tasks.c.kind == kind, examples.c.task > after, ~sa.exists().where(_seen_by(model)))
            .distinct()
            .order_by(examples.c.task)
            .limit(limit)
        )
        return list(self._read(lambda connection: connection.execute(query).scalars().all()))

    def forget_vectors(self, id: str, models: Sequence[str]) -> None:
        """Drop what models other than these made of a task."""
        gone = vectors.delete().where(vectors.c.task == id, vectors.c.model.not_in([model[:SHORT] for model in models]))
        self._write(lambda connection: connection.execute(gone))

    # ---- connections

    def _read(self, work: Callable[[sa.Connection], _Result]) -> _Result:
        return self._run(work, patience=self.patience)

    def _write(self, work: Callable[[sa.Connection], _Result]) -> _Result:
        return self._run(work, patience=self.patience, writes=True)

    def _run(self, work: Callable[[sa.Connection], _Result], *, patience: float, writes: bool = False) -> _Result:
        # SQLite takes the lock for writing at once; PostgreSQL lets who comes second to a row see it as it is then.
        options: dict[str, Any] = {"writes": writes}
        if writes and not self._sqlite:
            options["isolation_level"] = "READ COMMITTED"
        until = time.monotonic() + patience
        begun: tuple[str, _Result] | None = None
        while True:
            try:
                with self._engine.connect().execution_options(**options) as connection, connection.begin():
                    if begun is not None and _committed(connection, begun[0]):
                        return begun[1]
                    result, begun = work(connection), None
                    if writes and not self._sqlite and (number := connection.execute(_NUMBER).scalar()) is not None:
                        begun = number, result
                return result
            except (OperationalError, InterfaceError) as error:
                if time.monotonic() > until:
                    raise Unavailable(f"the database does not answer ({_reason(error)})") from None
                time.sleep(0.1)


_NUMBER = sa.text("SELECT pg_current_xact_id_if_assigned()::text")
"""Of PostgreSQL's transaction; none where it has changed nothing."""
_STATUS = sa.text("SELECT pg_xact_status(CAST(CAST(:number AS text) AS xid8))")


def _committed(connection: sa.Connection, number: str) -> bool:
    """Whether a transaction of whose end nothing was heard has happened, so that it is not done twice.

    Raises:
        OperationalError: it has not ended yet.
    """
    status = connection.execute(_STATUS, {"number": number}).scalar()
    if status == "in progress":
        raise OperationalError("", {}, Exception("a transaction has not ended"))
    return bool(status == "committed")


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _seen_by(model: str) -> Any:
    """Joins examples to what they are to a model."""
    return sa.and_(
        vectors.c.task == examples.c.task,
        vectors.c.number == examples.c.number,
        vectors.c.model == model[:SHORT],
    )


def _own(statement: Any, tenant: str, id: str) -> Any:
    return statement.where(tasks.c.id == id, tasks.c.tenant == tenant)


def _touch(connection: sa.Connection, tenant: str, id: str, values: Mapping[str, Any]) -> Any:
    """Make the next revision of a task, which keeps others from it until the end of the transaction."""
    update = _own(tasks.update(), tenant, id).values({"revision": tasks.c.revision + 1, **values})
    return connection.execute(update.returning(*tasks.c)).first()


def _insert_examples(
    connection: sa.Connection,
    id: str,
    first: int,
    targets: Sequence[Any],
    contents: Sequence[bytes],
    packed: Sequence[bytes],
    model: str,
) -> None:
    numbers = range(first, first + len(targets))
    new = [
        {"task": id, "number": n, "target": _as_json(target), "content": content}
        for n, target, content in zip(numbers, targets, contents, strict=True)
    ]
    connection.execute(examples.insert(), new)
    seen = [
        {"task": id, "model": model[:SHORT], "number": n, "packed": data}
        for n, data in zip(numbers, packed, strict=True)
    ]
    connection.execute(vectors.insert(), seen)


def _bytes(targets: Sequence[Any], contents: Sequence[bytes]) -> int:
    """What examples take."""
    return sum(
        len(content) + len(_as_json(target).encode()) + ROW for target, content in zip(targets, contents, strict=True)
    )


_USE = sa.text(
    "INSERT INTO usage (tenant, bytes) VALUES (:tenant, :more) "
    "ON CONFLICT (tenant) DO UPDATE SET bytes = usage.bytes + excluded.bytes RETURNING bytes"
)


def _use(connection: sa.Connection, tenant: str, more: int) -> int:
    """Count bytes of a tenant's, in the transaction that keeps them; return how many there are now. Two that come at
    once come one after the other, so that both together cannot be too many."""
    return int(connection.execute(_USE, {"tenant": tenant, "more": more}).scalar_one())


def _counts(connection: sa.Connection, ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many examples of each task have each target, as JSON."""
    query = (
        sa.select(examples.c.task, examples.c.target, sa.func.count())
        .where(examples.c.task.in_(ids))
        .group_by(examples.c.task, examples.c.target)
    )
    counts: dict[str, dict[str, int]] = {id: {} for id in ids}
    for task, target, count in connection.execute(query):
        counts[task][target] = count
    return counts


def _kept(row: Any, counts: Mapping[str, int]) -> Kept:
    classes, number = _classes(counts), sum(counts.values())
    return Kept(row.id, row.name, row.kind, row.modality, row.revision, row.created, classes, number)


def _classes(counts: Mapping[str, int]) -> dict[str, int]:
    """How many examples are of each class, of how many have each target, as JSON."""
    found: Counter[str] = Counter()
    for target, count in counts.items():
        for name in _named(json.loads(target)):
            found[name] += count
    return dict(sorted(found.items()))


def _named(target: Any) -> Iterable[str]:
    """The classes that a target names: one, each of a list once, or none."""
    names = target if isinstance(target, list) else [target]
    return {name for name in names if isinstance(name, str)}


def _as_json(target: Any) -> str:
    # The same target is the same text, as migration 0002 wrote it too, so that the database can count.
    return json.dumps(target, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def key_digest(key: str) -> str:
    """Return what a key is known by."""
    # 256 random bits need no slow hash: there is nothing to guess.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _reason(error: DBAPIError) -> str:
    return str(error.orig).splitlines()[0] if error.orig and str(error.orig) else type(error).__name__
