"""The service's database on PostgreSQL, which several replicas share."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.serving.engine.store import Store
from tests.scale.conftest import Team


@pytest.fixture
def replicas(team: Team) -> Iterator[list[Store]]:
    """Two, that begin at the same moment on an empty database."""
    with psycopg.connect(f"postgresql://{team.database}/postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS serve WITH (FORCE)")
        connection.execute("CREATE DATABASE serve")
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda _: Store(f"postgresql+psycopg://{team.database}/serve"), range(2))
        stores = list(made)
    yield stores
    for store in stores:
        store.close()


def test_replicas_share_keys_tasks_and_revisions(replicas: list[Store], team: Team) -> None:
    one, two = replicas
    key = one.add_key("ann")
    assert two.tenant_of(key) == "ann" and two.has_keys()
    kept = one.create("ann", "n", "classify", "text", ["a", "b"], [b"x", b"y"], [b"1", b"2"], "m" * 64)
    assert two.task("ann", kept.id) == kept and two.task("bob", kept.id) is None

    def add(number: int) -> list[int]:
        done = replicas[number % 2].add(
            "ann", kept.id, [f"c{number % 3}"], [b"z"], [b"3"], "m" * 64, lambda classes: None
        )
        assert done is not None
        return done[1]

    with ThreadPoolExecutor(8) as pool:
        numbers = [number for added in pool.map(add, range(40)) for number in added]
    assert sorted(numbers) == list(range(3, 43))
    found = two.contents(kept.id, "m" * 64)
    assert found is not None and found.revision == 41 and len(found.packed) == len(found.examples) == 42

    def refuse(classes: object) -> None:
        raise QuickstudyError("too many")

    with pytest.raises(QuickstudyError, match="too many"):
        two.add("ann", kept.id, ["d"], [b"z"], [b"3"], "m" * 64, refuse)
    assert one.revisions([kept.id]) == {kept.id: ("ann", 41, "classify", "text")}
    assert one.remove("ann", kept.id, 1) and one.remove("ann", kept.id, 1) is None
    assert two.revisions([kept.id]) == {kept.id: ("ann", 42, "classify", "text")}

    # Every connection is cut, as by a restart: what comes next finds another one.
    with psycopg.connect(f"postgresql://{team.database}/postgres", autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'serve'")
    assert one.revisions([kept.id]) == {kept.id: ("ann", 42, "classify", "text")} and two.delete("ann", kept.id)
    assert one.contents(kept.id, "m" * 64) is None


def test_a_change_whose_acknowledgement_was_lost_is_not_made_twice(replicas: list[Store], monkeypatch) -> None:
    one, two = replicas
    dialect, lost = one._engine.dialect, list[str]()
    commit = dialect.do_commit

    def cut(connection: Any) -> None:
        """Every other commit fails: in turn after it was made and before."""
        lost.append("")
        if len(lost) % 4 == 1:
            commit(connection)
        if len(lost) % 2:
            connection.driver_connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        commit(connection)

    monkeypatch.setattr(dialect, "do_commit", cut)
    model = "m" * 64
    ids = [
        one.create("ann", f"n{i}", "classify", "text", ["a", "b"], [b"x", b"y"], [b"1", b"2"], model).id
        for i in range(4)
    ]
    for id in ids:
        added = one.add("ann", id, ["c"], [b"z"], [b"3"], model, lambda classes: None)
        assert added is not None and added[1] == [3] and added[0].revision == 2
        removed = one.remove("ann", id, 1)
        assert removed is not None and removed.revision == 3 and removed.classes == {"b": 1, "c": 1}
    assert [one.delete("ann", id) for id in ids[:2]] == [True, True]
    assert len(lost) > 20
    monkeypatch.undo()
    assert [(kept.id, kept.revision) for kept in two.tasks("ann", 100, None)] == [(id, 3) for id in ids[2:]]


def test_what_a_model_sees_is_kept_once_and_forgotten_with_the_model(replicas: list[Store]) -> None:
    one, two = replicas
    kept = one.create("ann", "n", "classify", "text", ["a", "b"], [b"x", b"y"], [b"1", b"2"], "old")
    assert two.unseen("new", "classify", "", 10) == [kept.id] and two.unseen("old", "classify", "", 10) == []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: replicas[i % 2].keep_vectors(kept.id, "new", {1: b"3", 2: b"4", 9: b"5"}), range(8)))
    assert one.unseen("new", "classify", "", 10) == []
    found = one.contents(kept.id, "new")
    assert found is not None and found.packed == {1: b"3", 2: b"4"}
    one.forget_vectors(kept.id, ["new"])
    assert two.unseen("old", "classify", "", 10) == [kept.id]
