"""The gate is not gone around by what is done to aliases and versions behind the ledger's back."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.registry import store

pytestmark = pytest.mark.usefixtures("served")


def client(root: Path) -> Any:
    return store.client(root)


def by_hand(root: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(root / "mlruns/mlflow.db")) as database, database:
        for statement in statements:
            database.execute(statement)


def quickstudy(root: Path, *words: str) -> tuple[int, str, str]:
    command = [str(Path(sys.executable).parent / "quickstudy"), *words]
    env = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


ASTRAY: dict[str, tuple[Callable[[Path], Any], str]] = {
    "champion's alias deleted": (
        lambda root: client(root).delete_registered_model_alias("quickstudy", "champion"),
        "@champion was taken away by another tool: the ledger says version 2.",
    ),
    "champion's version deleted": (
        lambda root: client(root).delete_model_version("quickstudy", "2"),
        "@champion was taken away by another tool: the ledger says version 2, which was deleted",
    ),
    "champion's version deleted, its alias dangling": (
        lambda root: by_hand(root, "DELETE FROM model_versions WHERE name = 'quickstudy' AND version = 2"),
        "@champion stands at version 2, which was deleted",
    ),
    "champion moved": (
        lambda root: client(root).set_registered_model_alias("quickstudy", "champion", "3"),
        "@champion was moved by another tool to version 3: the ledger says version 2",
    ),
    "previous moved, so that a rollback brings what the gate never saw": (
        lambda root: client(root).set_registered_model_alias("quickstudy", "previous", "3"),
        "@previous was moved by another tool to version 3: the ledger says version 1",
    ),
    "previous deleted": (
        lambda root: client(root).delete_registered_model_alias("quickstudy", "previous"),
        "@previous was taken away by another tool: the ledger says version 1",
    ),
    "challenger moved": (
        lambda root: client(root).set_registered_model_alias("quickstudy", "challenger", "1"),
        "@challenger was moved by another tool to version 1: the ledger says version 3",
    ),
    "registry emptied": (
        lambda root: client(root).delete_registered_model("quickstudy"),
        "@champion was taken away by another tool: the ledger says version 2, which was deleted",
    ),
    "ledger emptied": (
        lambda root: client(root).delete_registered_model("quickstudy-ledger"),
        "@champion stands at version 2, and the ledger is empty",
    ),
}


@pytest.mark.parametrize("how", ASTRAY)
def test_nothing_is_promoted_until_a_person_decides(three: Path, how: str) -> None:
    change, what = ASTRAY[how]
    change(three)
    before = registry.aliases(three)
    for attempt in (
        lambda: registry.check_ledger(three),
        lambda: registry.register(three),
        lambda: registry.plan(three, "promote", "3"),
        lambda: registry.promote(three, 3, against=before.get("champion"), why="better"),
    ):
        with pytest.raises(QuickstudyError) as error:
            attempt()
        said = str(error.value)
        assert what.rstrip(".") in said and "quickstudy history --accept" in said and "\n" not in said
    assert registry.aliases(three) == before

    assert registry.accept_breaks(three, "it was me")
    registry.check_ledger(three)
    registry.register(three)
    standing = registry.read_ledger(three).standing()
    assert {alias: number for alias, number in standing.items() if number} == registry.aliases(three)


def test_a_run_says_so_before_the_work_and_history_too(three: Path) -> None:
    client(three).delete_registered_model_alias("quickstudy", "champion")
    for words in (("run",), ("promote",), ("history",)):
        code, _, err = quickstudy(three, *words)
        assert code == 2 and "@champion was taken away by another tool" in err.splitlines()[-1], (words, err)
    assert not (three / ".cache/run.log").exists()
    for words in (("--accept",), ("--restore",), ("--accept", "--restore", "--reason", "x"), ("--reason", "x")):
        assert quickstudy(three, "history", *words)[0] == 2, words

    code, out, err = quickstudy(three, "history", "--restore", "--reason", "deleted by mistake")
    assert code == 0 and out == "@champion none → 2: as the ledger says\n", err
    assert registry.aliases(three) == {"champion": 2, "previous": 1, "challenger": 3}
    code, out, err = quickstudy(three, "history")
    assert code == 0 and "deleted by mistake" in out and "restore" in out, err


def test_what_was_deleted_cannot_be_put_back_and_a_person_lets_it_stand(three: Path) -> None:
    client(three).delete_model_version("quickstudy", "2")
    with pytest.raises(QuickstudyError, match="its version 2 was deleted, and cannot be put back"):
        registry.restore_aliases(three, "please")
    registry.accept_breaks(three, "it named people")
    assert registry.read_ledger(three).at("champion", "9999") is None
    assert registry.register(three).aliases == ("champion",)


def test_a_challenger_that_was_taken_away_lets_nobody_become_champion(three: Path) -> None:
    client(three).delete_model_version("quickstudy", "3")
    registry.check_ledger(three)
    assert registry.register(three).aliases == ("challenger",)
    assert registry.aliases(three)["champion"] == 2


def test_other_aliases_are_their_owners(three: Path) -> None:
    client(three).set_registered_model_alias("quickstudy", "staging", "1")
    registry.check_ledger(three)
