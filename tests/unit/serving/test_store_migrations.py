"""Databases of the service that were made by an earlier version, opened by this one (PostgreSQL: tests/scale)."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from quickstudy.errors import QuickstudyError
from quickstudy.serving.engine import schema
from quickstudy.serving.engine.store import Store
from tests.toy import unversioned


@pytest.fixture
def database(tmp_path: Path) -> str:
    """One of before there were migrations."""
    with closing(sqlite3.connect(tmp_path / "serve.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # as the store had it
        unversioned.fill(connection)
        connection.commit()
    return f"sqlite:///{tmp_path / 'serve.db'}"


def asked(database: str, query: str) -> list[Any]:
    """What is in the file, by SQLite itself."""
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        return [row[0] for row in connection.execute(query)]


def test_every_key_task_and_example_reads_back_the_same(store: Store, database: str) -> None:
    unversioned.check(store)
    again = Store(database)
    unversioned.check(again)
    unversioned.check_that_it_grows(
        again, lambda id: asked(database, f"SELECT target FROM examples WHERE task = '{id}' ORDER BY number")
    )
    again.close()
    assert asked(database, "PRAGMA foreign_key_check") == [] and asked(database, "PRAGMA integrity_check") == ["ok"]


def test_an_upgraded_task_answers_as_one_that_was_taught_today(client: TestClient) -> None:
    client.headers["authorization"] = f"Bearer {unversioned.KEY}"
    for id, query in ((unversioned.TICKETS, "Where is my invoice?"), (unversioned.SHADES, None)):
        export = client.get(f"/tasks/{id}/export").json()
        taught = client.post("/tasks/import", json=export).json()
        query = query or export["examples"][0]["input"]
        old, new = (
            client.post(f"/tasks/{one}/predict", json={"queries": [query]}).json()["answers"][0]
            for one in (id, taught["id"])
        )
        assert old["label"] == new["label"] and old["probabilities"] == pytest.approx(new["probabilities"], abs=1e-5)
    shown = client.get(f"/tasks/{unversioned.TICKETS}").json()
    assert shown["classes"] == {"billing": 2, "delivery": 2} and shown["revision"] == 4
    assert shown["examples"][3] == {"id": 6, "label": "delivery", "input": "Où est ma commande ?"}
    more = {"examples": [{"input": "I forgot my password.", "label": "login"}]}
    added = client.post(f"/tasks/{unversioned.TICKETS}/examples", json=more)
    assert added.json()["added"] == [7] and added.json()["classes"]["login"] == 1
    assert client.get(f"/tasks/{unversioned.SAYINGS}").status_code == 404  # it is bob's


def test_replicas_that_start_at_once_upgrade_it_once(database: str) -> None:
    command = [sys.executable, "-c", unversioned.OPEN, database]
    replicas = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    told = [replica.communicate()[1] for replica in replicas]
    assert [replica.returncode for replica in replicas] == [0, 0, 0], told
    with closing(Store(database)) as store:
        unversioned.check(store)
    assert asked(database, f"SELECT version_num FROM {schema.VERSION_TABLE}") == [schema.REVISIONS[-1]]


def test_an_upgrade_that_is_killed_halfway_is_done_by_the_next_start(database: str) -> None:
    before = asked(database, "SELECT sql FROM sqlite_master")
    killed = subprocess.run([sys.executable, "-c", unversioned.KILLED + unversioned.OPEN, database])
    assert killed.returncode == -signal.SIGKILL
    assert asked(database, "SELECT sql FROM sqlite_master") == before
    assert "billing" in asked(database, "SELECT label FROM examples")
    with closing(Store(database)) as store:
        unversioned.check(store)


def test_upgraded_and_new_databases_have_the_tables_that_the_code_names(database: str, tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    for url in (database, f"sqlite:///{tmp_path / 'new.db'}"):
        Store(url).close()
        with sa.create_engine(url).connect() as connection:
            options = {"compare_server_default": True, "version_table": schema.VERSION_TABLE}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, schema.metadata) == []
    made = "SELECT sql FROM sqlite_master WHERE name IN ('examples', 'vectors')"
    assert all("WITHOUT ROWID" in sql for sql in asked(f"sqlite:///{tmp_path / 'new.db'}", made))
    scripts = ScriptDirectory(Path(schema.__file__).parent / "migrations").walk_revisions()
    assert tuple(script.revision for script in scripts)[::-1] == schema.REVISIONS


def test_one_that_is_up_to_date_is_opened_without_loading_alembic(database: str) -> None:
    Store(database).close()
    script = f"{unversioned.OPEN}; print('alembic' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", script, database], capture_output=True, text=True)
    assert seen.stdout == "False\n", seen.stderr


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(database: str) -> None:
    Store(database).close()
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '0099'")
        connection.commit()
    with pytest.raises(QuickstudyError, match=r"layout 0099.*Install the version that upgraded it") as told:
        Store(database)
    assert "\n" not in str(told.value)
    assert asked(database, f"SELECT version_num FROM {schema.VERSION_TABLE}") == ["0099"]


@pytest.mark.parametrize("table", ["CREATE TABLE tasks (id INTEGER, title TEXT)", "CREATE TABLE examples (label TEXT)"])
def test_tables_of_other_software_are_left_alone(tmp_path: Path, table: str) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute(table)
    with pytest.raises(QuickstudyError, match="tables of other software"):
        Store(f"sqlite:///{tmp_path / 'other.db'}")
    assert asked(f"sqlite:///{tmp_path / 'other.db'}", "SELECT sql FROM sqlite_master") == [table]


def test_other_software_that_uses_alembic_may_share_the_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    with closing(sqlite3.connect(tmp_path / "shared.db")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('5a1b2c3d')")
        connection.commit()
    with closing(Store(url)) as store:
        assert store.tasks("ann", 1, None) == []
    assert asked(url, "SELECT version_num FROM alembic_version") == ["5a1b2c3d"]
