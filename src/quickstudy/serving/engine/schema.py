"""The tables of the service's database, and how a database of an earlier layout gets today's.

Migrations are Alembic's and lie in migrations/versions; `Store` runs those that are missing when it opens. To change
the layout: change the tables here, write the migration that makes the same of what is there, and name it in
`REVISIONS`.
"""

import threading
from typing import Any

import sqlalchemy as sa

from quickstudy.errors import QuickstudyError

REVISIONS = ("0001", "0002", "0003")
"""Of the layout, oldest first: those that this code can read or upgrade; the last one is that of the tables below."""

VERSION_TABLE = "serve_version"
"""Not Alembic's usual name: MLflow and Prefect keep theirs under it, and the service may share their database."""

LOCK = int.from_bytes(b"quickstu")
"""PostgreSQL's advisory lock of who upgrades."""

metadata = sa.MetaData()
keys = sa.Table(
    "keys",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),  # sha256; the key itself is kept nowhere
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("created", sa.String(25), nullable=False),
    sa.Column("removed", sa.String(25)),  # then it opens nothing; its row says that there were keys once
)
tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("modality", sa.String(8), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("last", sa.Integer, nullable=False),  # number of the newest example; none is given twice
    sa.Column("created", sa.String(25), nullable=False),
    sa.Column("kind", sa.Text, nullable=False, server_default="classify"),
    sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"),  # of its examples, about
    sa.Index("tasks_of_tenant", "tenant", "id"),
)
# SQLite keeps these rows in the tree of their key and not beside it, which makes a task a third smaller.
examples = sa.Table(
    "examples",
    metadata,
    sa.Column("task", sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("target", sa.Text, nullable=False),  # as JSON
    sa.Column("content", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
vectors = sa.Table(
    "vectors",
    metadata,
    sa.Column("task", sa.String(32), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("model", sa.String(16), primary_key=True),  # the start of its digest
    sa.Column("packed", sa.LargeBinary, nullable=False),
    sa.ForeignKeyConstraint(["task", "number"], ["examples.task", "examples.number"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)
usage = sa.Table(
    "usage",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),  # of all its tasks: their sum, which takes long with many
)

_UNVERSIONED = frozenset({"keys", "tasks", "examples", "vectors"})
"""Tables that there were before there were migrations."""
_version = sa.table(VERSION_TABLE, sa.column("version_num"))
_proxies = threading.Lock()
"""Alembic's scripts find what they work on in a global, which serves one upgrade at a time."""


def is_behind(connection: sa.Connection) -> bool:
    """Return whether a database has yet to be upgraded. Alembic, which takes a while to load, is not asked.

    Raises:
        QuickstudyError: the database is of a layout that came after this code.
    """
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return True
    found = connection.execute(sa.select(_version.c.version_num)).scalar()
    if found is not None and found not in REVISIONS:
        raise QuickstudyError(
            f"is of layout {found}, newer than {REVISIONS[-1]}, the newest that this version of quickstudy knows",
            where="serve.database",
            fix="Install the version that upgraded it, or say another --database",
        )
    return found != REVISIONS[-1]


def upgrade(connection: sa.Connection) -> None:
    """Give a database the tables above, in the transaction that is at work, so that it has all of it or nothing.

    Others who want the same wait here, or on SQLite already for the transaction, and then find it done.

    Raises:
        QuickstudyError: the database is of a layout that came after this code, or holds somebody else's tables.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    if not is_behind(connection):
        return
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "quickstudy.serving.engine:migrations")
    with _proxies:
        if _is_unversioned(connection):
            command.stamp(config, REVISIONS[0])
        command.upgrade(config, REVISIONS[-1])


def _is_unversioned(connection: sa.Connection) -> bool:
    """Whether the tables are there that were made before there were migrations: revision 0001."""
    inspector: Any = sa.inspect(connection)
    found = set(inspector.get_table_names())
    if VERSION_TABLE in found or not (taken := found & set(metadata.tables)):
        return False
    columns = {name: {column["name"] for column in inspector.get_columns(name)} for name in taken}
    if taken != _UNVERSIONED or "label" not in columns["examples"] or "revision" not in columns["tasks"]:
        raise QuickstudyError(
            f"holds tables of other software under the names that the service needs ({', '.join(sorted(taken))})",
            where="serve.database",
            fix="Say another --database",
        )
    return True
