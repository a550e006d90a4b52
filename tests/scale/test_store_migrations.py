"""The service's database on PostgreSQL, made by an earlier version and opened by this one."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
import torch

from quickstudy.config import Settings
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model
from quickstudy.serving.engine import schema
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.engine.loaded import folder_source
from quickstudy.serving.engine.store import Store
from quickstudy.serving.http.metrics import Metrics
from tests.scale.conftest import Team
from tests.toy import unversioned
from tests.unit.serving.conftest import running


@pytest.fixture
def database(team: Team) -> Iterator[str]:
    """user:password@host:port/name of one of before there were migrations."""
    with psycopg.connect(f"postgresql://{team.database}/postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS unversioned WITH (FORCE)")
        connection.execute("CREATE DATABASE unversioned")
    address = f"{team.database}/unversioned"
    with psycopg.connect(f"postgresql://{address}") as connection:
        unversioned.fill(connection, postgresql=True)
    yield address


def asked(database: str, query: str) -> list[str]:
    with psycopg.connect(f"postgresql://{database}") as connection:
        return [row[0] for row in connection.execute(query)]


def url(database: str) -> str:
    return f"postgresql+psycopg://{database}"


def test_every_key_task_and_example_reads_back_the_same(database: str) -> None:
    for _ in range(2):
        with closing(Store(url(database))) as store:
            unversioned.check(store)
    with closing(Store(url(database))) as store:
        unversioned.check_that_it_grows(
            store, lambda id: asked(database, f"SELECT target FROM examples WHERE task = '{id}' ORDER BY number")
        )


def test_an_upgraded_task_answers(database: str, tiny: Settings, tmp_path: Path) -> None:
    torch.manual_seed(1)
    encoders = tiny.model.encoders.model_copy(update={"text": "bytes-cnn"})
    shape = tiny.model.model_copy(update={"encoders": encoders, "learner": "adapt"})
    save_model(MetaModel(tiny.inputs, shape, {"text", "image"}), tmp_path, {})

    async def work(store: Store) -> None:
        engine = Engine(tiny.serve, store, folder_source(tmp_path), Metrics())
        async with running(engine) as client:
            client.headers["authorization"] = f"Bearer {unversioned.KEY}"
            for id in (unversioned.TICKETS, unversioned.SHADES):
                export = (await client.get(f"/tasks/{id}/export")).json()
                taught = (await client.post("/tasks/import", json=export)).json()["id"]
                query = {"queries": [export["examples"][0]["input"]]}
                old, new = [
                    (await client.post(f"/tasks/{one}/predict", json=query)).json()["answers"][0]
                    for one in (id, taught)
                ]
                assert old["probabilities"] == pytest.approx(new["probabilities"], abs=1e-5)
                assert set(old["probabilities"]) == {one["label"] for one in export["examples"]}

    with closing(Store(url(database))) as store:
        asyncio.run(work(store))


def test_replicas_that_start_at_once_upgrade_it_once(database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(Store, [url(database)] * 4))
    for store in stores:
        unversioned.check(store)
        store.close()
    assert asked(database, f"SELECT version_num FROM {schema.VERSION_TABLE}") == [schema.REVISIONS[-1]]


def test_an_upgrade_that_is_killed_halfway_is_done_by_the_next_start(database: str) -> None:
    script = unversioned.KILLED + unversioned.OPEN
    killed = subprocess.run([sys.executable, "-c", script, url(database)])
    assert killed.returncode == -signal.SIGKILL
    assert "billing" in asked(database, "SELECT label FROM examples")
    assert asked(database, f"SELECT to_regclass('{schema.VERSION_TABLE}')") == [None]
    with closing(Store(url(database))) as store:
        unversioned.check(store)


def test_upgraded_and_new_databases_have_the_tables_that_the_code_names(database: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    tables = "keys, tasks, examples, vectors, usage"
    for prepare in ("SELECT 1", f"DROP TABLE {schema.VERSION_TABLE}, {tables}"):
        with psycopg.connect(f"postgresql://{database}") as connection:
            connection.execute(prepare)
        Store(url(database)).close()
        with sa.create_engine(url(database)).connect() as connection:
            options = {"compare_server_default": True, "version_table": schema.VERSION_TABLE}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, schema.metadata) == []


def test_a_database_of_a_newer_version_is_refused(database: str) -> None:
    Store(url(database)).close()
    with psycopg.connect(f"postgresql://{database}") as connection:
        connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '0099'")
    with pytest.raises(QuickstudyError, match=r"layout 0099.*Install the version that upgraded it"):
        Store(url(database))
