"""Where tasks are kept: keys, tasks, their examples as they came, and what those are to each model.

SQLite or PostgreSQL, by SQLAlchemy. Every replica of the service works on the same database and keeps nothing that is
not in it: a task's revision says whether what a replica remembers is still true. A database that goes away for a
while is waited for; what was begun is then done again from the start.
"""

import contextlib
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError

PREFIX = "qs_"
"""Of a key, so that one that was committed by mistake can be found."""

LOCAL = "local"
"""The tenant of who calls on this machine while there are no keys."""

SHORT = 16
"""Digits of a model's digest that its vectors are kept under."""

_Result = TypeVar("_Result")

_metadata = sa.MetaData()
_keys = sa.Table(
    "keys",
    _metadata,
    sa.Column("digest", sa.String(64), primary_key=True),  # sha256; the key itself is kept nowhere
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("created", sa.String(25), nullable=False),
)
_tasks = sa.Table(
    "tasks",
    _metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("modality", sa.String(8), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("last", sa.Integer, nullable=False),  # number of the newest example; none is given twice
    sa.Column("created", sa.String(25), nullable=False),
    sa.Index("tasks_of_tenant", "tenant", "id"),
)
# SQLite keeps these rows in the tree of their key and not beside it, which makes a task a third smaller.
_examples = sa.Table(
    "examples",
    _metadata,
    sa.Column("task", sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
_vectors = sa.Table(
    "vectors",
    _metadata,
    sa.Column("task", sa.String(32), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("model", sa.String(16), primary_key=True),  # the start of its digest
    sa.Column("packed", sa.LargeBinary, nullable=False),
    sa.ForeignKeyConstraint(["task", "number"], ["examples.task", "examples.number"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)


class Unavailable(QuickstudyError):
    """The database does not answer."""


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
    modality: Modality
    revision: int
    created: str
    """UTC, ISO 8601"""
    classes: Mapping[str, int]
    """examples of each, sorted by name"""


@dataclass(frozen=True)
class Example:
    number: int
    label: str
    content: bytes
    """a text in UTF-8, or the file"""


@dataclass(frozen=True)
class Contents:
    """All of a task at one revision."""

    modality: Modality
    revision: int
    examples: tuple[Example, ...]
    packed: Mapping[int, bytes]
    """of the examples by number, as far as the model that was asked for has seen them"""


class Store:
    """Tenants' keys and tasks.

    Args:
        url: SQLAlchemy's. patience: seconds that a database which has gone away is waited for.

    Raises:
        QuickstudyError: there is no such database.
    """

    def __init__(self, url: str, patience: float = 20.0):
        self.patience = patience
        try:
            parsed = sa.make_url(url)
            self._sqlite = parsed.get_backend_name() == "sqlite"
            if self._sqlite:
                if parsed.database:
                    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
                self._engine = sa.create_engine(parsed, connect_args={"timeout": 10})
                sa.event.listen(self._engine, "connect", _prepare_sqlite)
                sa.event.listen(self._engine, "begin", _begin_sqlite)
            else:
                self._engine = sa.create_engine(parsed, pool_pre_ping=True, isolation_level="REPEATABLE READ")
        except (ArgumentError, ModuleNotFoundError) as error:
            raise QuickstudyError(
                f"is no database that can be used ({error})",
                where="serve.database",
                fix="Say one like postgresql+psycopg://USER@HOST/NAME, or null for .cache/serve.db",
            ) from None
        for left in (2, 1, 0):
            try:
                self._write(lambda connection: _metadata.create_all(connection))
                return
            except (ProgrammingError, IntegrityError):  # another replica makes the tables at this moment
                if not left:
                    raise
                time.sleep(0.5)

    def close(self) -> None:
        self._engine.dispose()

    def ping(self) -> None:
        """Raises Unavailable where the database does not answer now."""
        self._run(lambda connection: connection.execute(sa.select(1)).scalar(), patience=0.0)

    # ---- keys

    def add_key(self, tenant: str) -> str:
        """Make a key for a tenant. It is told here and never again."""
        key = PREFIX + secrets.token_urlsafe(32)
        row = {"digest": _digest(key), "tenant": tenant, "created": _now()}
        self._write(lambda connection: connection.execute(_keys.insert().values(row)))
        return key

    def all_keys(self) -> list[Key]:
        rows = self._read(lambda connection: connection.execute(_keys.select().order_by(_keys.c.created)).all())
        return [Key(row.digest[:12], row.tenant, row.created) for row in rows]

    def remove_key(self, id: str) -> bool:
        """Whether there was one whose digest begins so."""
        if len(id) < 12:
            return False
        gone = _keys.delete().where(_keys.c.digest.startswith(id, autoescape=True))
        return bool(self._write(lambda connection: connection.execute(gone).rowcount))

    def tenant_of(self, key: str) -> str | None:
        query = sa.select(_keys.c.tenant).where(_keys.c.digest == _digest(key))
        return self._read(lambda connection: connection.execute(query).scalar())

    def has_keys(self) -> bool:
        return (
            self._read(lambda connection: connection.execute(sa.select(_keys.c.digest).limit(1)).scalar()) is not None
        )

    # ---- tasks

    def create(
        self,
        tenant: str,
        name: str,
        modality: Modality,
        labels: Sequence[str],
        contents: Sequence[bytes],
        packed: Sequence[bytes],
        model: str,
    ) -> Kept:
        """Keep a new task with its first examples.

        Args:
            packed: see `quickstudy.serving.engine.packing`. model: sha256 of the weights that made them.
        """
        # Sorted by time, so that a list of tasks has an order; the rest cannot be guessed.
        id = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
        created = _now()
        row = {
            "id": id,
            "tenant": tenant,
            "name": name,
            "modality": modality,
            "revision": 1,
            "last": len(labels),
            "created": created,
        }

        def work(connection: sa.Connection) -> None:
            connection.execute(_tasks.insert().values(row))
            _insert_examples(connection, id, 1, labels, contents, packed, model)

        self._write(work)
        return Kept(id, name, modality, 1, created, _count(labels))

    def tasks(self, tenant: str, limit: int, after: str | None) -> list[Kept]:
        """Oldest first, those after the task of this id."""
        query = _tasks.select().where(_tasks.c.tenant == tenant).order_by(_tasks.c.id).limit(limit)
        if after:
            query = query.where(_tasks.c.id > after)

        def work(connection: sa.Connection) -> list[Kept]:
            rows = connection.execute(query).all()
            counts = _classes(connection, [row.id for row in rows])
            return [_kept(row, counts[row.id]) for row in rows]

        return self._read(work)

    def task(self, tenant: str, id: str) -> Kept | None:
        def work(connection: sa.Connection) -> Kept | None:
            row = connection.execute(_own(_tasks.select(), tenant, id)).first()
            return None if row is None else _kept(row, _classes(connection, [id])[id])

        return self._read(work)

    def revisions(self, ids: Collection[str]) -> dict[str, tuple[str, int, Modality]]:
        """Tenant, revision and modality of tasks now, of those that there are: the least that must be known before they
        are asked."""
        query = sa.select(_tasks.c.id, _tasks.c.tenant, _tasks.c.revision, _tasks.c.modality).where(
            _tasks.c.id.in_(ids)
        )
        rows = self._read(lambda connection: connection.execute(query).all())
        return {row.id: (row.tenant, row.revision, row.modality) for row in rows}

    def delete(self, tenant: str, id: str) -> bool:
        return bool(self._write(lambda connection: connection.execute(_own(_tasks.delete(), tenant, id)).rowcount))

    def add(
        self,
        tenant: str,
        id: str,
        labels: Sequence[str],
        contents: Sequence[bytes],
        packed: Sequence[bytes],
        model: str,
        check: Callable[[Mapping[str, int]], None],
    ) -> tuple[Kept, list[int]] | None:
        """Give a task more examples.

        Args:
            check: gets the examples of each class as they will be; what it raises leaves the task as it is.

        Returns:
            the task, and the new examples' numbers.
        """

        def work(connection: sa.Connection) -> tuple[Kept, list[int]] | None:
            row = _touch(connection, tenant, id, {"last": _tasks.c.last + len(labels)})
            if row is None:
                return None
            first = row.last - len(labels) + 1
            _insert_examples(connection, id, first, labels, contents, packed, model)
            kept = _kept(row, _classes(connection, [id])[id])
            check(kept.classes)
            return kept, list(range(first, row.last + 1))

        return self._write(work)

    def remove(self, tenant: str, id: str, number: int) -> Kept | None:
        """Take an example out of a task; None where there is no such task or example."""

        def work(connection: sa.Connection) -> Kept | None:
            row = _touch(connection, tenant, id, {})
            gone = _examples.delete().where(_examples.c.task == id, _examples.c.number == number)
            if row is None or not connection.execute(gone).rowcount:
                raise _Nothing  # the revision stays as it was
            return _kept(row, _classes(connection, [id])[id])

        try:
            return self._write(work)
        except _Nothing:
            return None

    def contents(self, id: str, model: str) -> Contents | None:
        """All of a task, whosever it is, and what it is to a model."""
        query = (
            sa.select(_examples.c.number, _examples.c.label, _examples.c.content, _vectors.c.packed)
            .select_from(_examples.outerjoin(_vectors, _seen_by(model)))
            .where(_examples.c.task == id)
            .order_by(_examples.c.number)
        )

        def work(connection: sa.Connection) -> Contents | None:
            task = connection.execute(_tasks.select().where(_tasks.c.id == id)).first()
            if task is None:
                return None
            rows = connection.execute(query).all()
            examples = tuple(Example(row.number, row.label, row.content) for row in rows)
            packed = {row.number: row.packed for row in rows if row.packed is not None}
            return Contents(task.modality, task.revision, examples, packed)

        return self._read(work)

    # ---- what examples are to a model

    def keep_vectors(self, id: str, model: str, packed: Mapping[int, bytes]) -> None:
        """Keep what a model made of examples, as far as they are still there and nobody else has kept it."""

        def work(connection: sa.Connection) -> None:
            there = set(connection.execute(sa.select(_examples.c.number).where(_examples.c.task == id)).scalars())
            known = sa.select(_vectors.c.number).where(_vectors.c.task == id, _vectors.c.model == model[:SHORT])
            there -= set(connection.execute(known).scalars())
            rows = [
                {"task": id, "model": model[:SHORT], "number": number, "packed": data}
                for number, data in packed.items()
                if number in there
            ]
            if rows:
                connection.execute(_vectors.insert(), rows)

        with contextlib.suppress(IntegrityError):  # another replica was faster, or an example has just gone
            self._write(work)

    def unseen(self, model: str, after: str, limit: int) -> list[str]:
        """Tasks with examples that a model has not seen, in order of their ids, those after one."""
        query = (
            sa.select(_examples.c.task)
            .where(_examples.c.task > after, ~sa.exists().where(_seen_by(model)))
            .distinct()
            .order_by(_examples.c.task)
            .limit(limit)
        )
        return list(self._read(lambda connection: connection.execute(query).scalars().all()))

    def forget_vectors(self, id: str, models: Sequence[str]) -> None:
        """Drop what models other than these made of a task."""
        gone = _vectors.delete().where(
            _vectors.c.task == id, _vectors.c.model.not_in([model[:SHORT] for model in models])
        )
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
        _vectors.c.task == _examples.c.task,
        _vectors.c.number == _examples.c.number,
        _vectors.c.model == model[:SHORT],
    )


def _own(statement: Any, tenant: str, id: str) -> Any:
    return statement.where(_tasks.c.id == id, _tasks.c.tenant == tenant)


def _touch(connection: sa.Connection, tenant: str, id: str, values: Mapping[str, Any]) -> Any:
    """Make the next revision of a task, which keeps others from it until the end of the transaction."""
    update = _own(_tasks.update(), tenant, id).values({"revision": _tasks.c.revision + 1, **values})
    return connection.execute(update.returning(*_tasks.c)).first()


def _insert_examples(
    connection: sa.Connection,
    id: str,
    first: int,
    labels: Sequence[str],
    contents: Sequence[bytes],
    packed: Sequence[bytes],
    model: str,
) -> None:
    numbers = range(first, first + len(labels))
    rows = zip(numbers, labels, contents, strict=True)
    examples = [{"task": id, "number": n, "label": label, "content": content} for n, label, content in rows]
    connection.execute(_examples.insert(), examples)
    vectors = [
        {"task": id, "model": model[:SHORT], "number": n, "packed": data}
        for n, data in zip(numbers, packed, strict=True)
    ]
    connection.execute(_vectors.insert(), vectors)


def _classes(connection: sa.Connection, ids: Sequence[str]) -> dict[str, dict[str, int]]:
    query = (
        sa.select(_examples.c.task, _examples.c.label, sa.func.count())
        .where(_examples.c.task.in_(ids))
        .group_by(_examples.c.task, _examples.c.label)
    )
    counts: dict[str, dict[str, int]] = {id: {} for id in ids}
    for task, label, count in sorted(cast(Any, connection.execute(query).all())):
        counts[task][label] = count
    return counts


def _kept(row: Any, classes: Mapping[str, int]) -> Kept:
    return Kept(row.id, row.name, row.modality, row.revision, row.created, classes)


def _count(labels: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(labels).items()))


def _digest(key: str) -> str:
    # 256 random bits need no slow hash: there is nothing to guess.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _reason(error: DBAPIError) -> str:
    return str(error.orig).splitlines()[0] if error.orig and str(error.orig) else type(error).__name__
