"""All that MLflow stores of a model is what was registered, its code too; a rebuild runs what was recorded."""

import contextlib
import hashlib
import json
import logging
import os
import pty
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.lineage import recipe as recipes
from quickstudy.registry import lines, records, store
from tests.security.conftest import train_again

QUICKSTUDY = str(Path(sys.executable).parent / "quickstudy")


def stored(root: Path, version: int) -> Path:
    """What MLflow stores of a version."""
    return registry.resolve(f"models:/quickstudy/{version}", root).parents[1]


def by_hand(root: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(root / "mlruns/mlflow.db")) as database, database:
        database.execute(statement)


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "code": (lambda at: next(at.glob("code/**/loader.py")).open("a").write("import os\n"), "code/ was changed"),
    "more code": (lambda at: (at / "code/sitecustomize.py").write_text("import os\n"), "code/ was changed"),
    "MLmodel": (lambda at: (at / "MLmodel").open("a").write("# loader_module: evil\n"), "MLmodel was changed"),
    "requirements": (lambda at: (at / "requirements.txt").open("a").write("evil\n"), "requirements.txt was changed"),
    "environment": (lambda at: (at / "conda.yaml").unlink(), "conda.yaml is missing"),
    "another file": (lambda at: (at / "evil.py").touch(), "evil.py was added"),
    "another folder": (lambda at: (at / "evil").mkdir() or (at / "evil/x").touch(), "evil/ was added"),
    "weights": (
        lambda at: (at / "data/model/classify/model.safetensors").write_bytes(b"x"),
        "classify/model.safetensors was changed",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_loaded_nowhere(three: Path, change: str) -> None:
    do, what = CHANGES[change]
    do(stored(three, 3))
    run = registry.version(three, "3").run_id
    for uri in ("models:/quickstudy/3", "models:/quickstudy@challenger", f"runs:/{run}/model"):
        with pytest.raises(QuickstudyError, match=f"{what} since the model was registered"):
            registry.resolve(uri, three)
    with pytest.raises(QuickstudyError, match=f"{what} since the model was registered"):
        registry.promote(three, 3, against=2, why="better")
    assert registry.aliases(three)["champion"] == 2
    registry.resolve("models:/quickstudy/2", three)


def test_the_ledger_knows_the_manifest_so_that_both_are_not_changed_together(three: Path) -> None:
    where = stored(three, 3)
    by_hand(three, "UPDATE model_version_tags SET value = '{}' WHERE version = 3 AND key = 'model_manifest'")
    with pytest.raises(QuickstudyError, match="what MLflow says of its files is not what the ledger says"):
        registry.resolve("models:/quickstudy/3", three)
    by_hand(three, "DELETE FROM model_version_tags WHERE version = 3 AND key = 'model_manifest'")
    (where / "code/evil.py").touch()
    with pytest.raises(QuickstudyError, match="what MLflow says of its files is not what the ledger says"):
        registry.resolve("models:/quickstudy/3", three)


def test_a_version_of_before_there_were_manifests_is_used_and_told(
    three: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("quickstudy", "quickstudy-ledger"):
        keys = "('model_manifest')" if name == "quickstudy" else "('entry')"
        by_hand(three, f"DELETE FROM model_version_tags WHERE name = '{name}' AND key IN {keys}")
    with caplog.at_level(logging.WARNING):
        registry.resolve("models:/quickstudy/3", three)
    assert "only its data is checked, not its code" in caplog.text


def test_what_loading_leaves_beside_a_model_is_no_change(three: Path) -> None:
    """MLflow writes a file, and Python what it has compiled."""
    where = stored(three, 3)
    code = (
        "import mlflow; from quickstudy import registry; from pathlib import Path\n"
        "mlflow.set_tracking_uri(registry.tracking_uri(Path.cwd()))\n"
        "registry.prepare(Path.cwd()); mlflow.pyfunc.load_model('models:/quickstudy/3')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=three, check=True, capture_output=True)
    assert (where / "registered_model_meta").exists() or list(where.rglob("__pycache__"))
    assert registry.resolve("models:/quickstudy/3", three).parents[1] == where


def test_what_is_downloaded_is_checked_too(three: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry.prepare(three)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{three}/mlruns/mlflow.db")
    clone = tmp_path / "another machine"
    clone.mkdir()
    assert (registry.resolve("models:/quickstudy@challenger", clone) / "classify/model.safetensors").exists()
    next((three / "mlruns").rglob("code/**/loader.py"))
    place = store.client(clone).get_model_version("quickstudy", "3").source
    logged = store.client(clone).get_logged_model(place.removeprefix("models:/"))
    code = next(Path(logged.artifact_location.removeprefix("file://").replace("%20", " ")).rglob("loader.py"))
    code.write_text("import os\n")
    with pytest.raises(QuickstudyError, match="code/ was changed since the model was registered"):
        registry.resolve("models:/quickstudy@challenger", clone)
    assert registry.resolve("models:/quickstudy@champion", clone).is_dir()


# ---- the patch


@pytest.fixture
def dirty(three: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Version 4 was made of a changed params.yaml."""
    toy = Path(__file__).parents[1] / "toy"
    monkeypatch.syspath_prepend(str(toy))
    monkeypatch.setattr("quickstudy.registry.runs.LOADER", "served.loader")
    monkeypatch.setattr("quickstudy.registry.runs.CODE", toy / "served")
    from quickstudy.versions import dvc

    dvc.add_data(three)
    for stage in ("tasks@classify", "meta_train@classify"):
        dvc.repro(three, stage, lambda line: None)
    train_again(three, 3)
    assert registry.register(three).version == 4
    return three


def patch_of(root: Path) -> Path:
    found = records.artifact(root, records.recorded(root, "4"), "changes.patch")
    assert found is not None
    return found


def test_the_digest_of_the_patch_stands_with_the_version_and_in_the_ledger(dirty: Path) -> None:
    digest = hashlib.sha256(patch_of(dirty).read_bytes()).hexdigest()
    assert registry.version(dirty, "4").tags["changes_patch"] == digest
    assert lines.evidence(dirty, 4)["changes_patch"] == digest
    recipe = recipes.read(dirty, "4")
    assert recipe.unrecorded is None
    recipes.check_patch(recipe, None)


@pytest.mark.parametrize("also", ["", "tags", "run"])
def test_a_changed_patch_is_run_only_where_a_person_has_read_it(dirty: Path, also: str) -> None:
    path = patch_of(dirty)
    path.write_text(path.read_text().replace("+seed: 3", "+seed: 7"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if also:
        table, of = ("model_version_tags", "version = 4") if also == "tags" else ("tags", "1 = 1")
        by_hand(dirty, f"UPDATE {table} SET value = '{digest}' WHERE key = 'changes_patch' AND {of}")
    done = subprocess.run([QUICKSTUDY, "reproduce", "4", "--check"], cwd=dirty, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "is not the one that was recorded" in done.stderr and f"--patch {digest}" in done.stderr
    recipes.check_patch(recipes.read(dirty, "4"), digest)
    with pytest.raises(QuickstudyError, match="is not the one that was recorded"):
        recipes.check_patch(recipes.read(dirty, "4"), "0" * 64)


def test_a_person_at_a_terminal_is_shown_the_patch_and_asked(dirty: Path) -> None:
    path = patch_of(dirty)
    path.write_text(path.read_text().replace("+seed: 3", "+seed: 3  # \x1b[31mred"))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [QUICKSTUDY, "reproduce", "4", "--check"], cwd=dirty, stdin=theirs, stderr=theirs, stdout=subprocess.DEVNULL
    )
    os.close(theirs)
    said = b""
    while b"Run it?" not in said:
        said += os.read(ours, 4096)
    os.write(ours, b"n\n")
    assert process.wait() == 2
    assert b"\\u001b[31mred" in said and b"\x1b[31m" not in said


def test_a_patch_that_was_put_beside_a_clean_run_is_not_run_unread(three: Path) -> None:
    record = records.recorded(three, "3")
    place = Path(record.place.removeprefix("file://").replace("%20", " "))
    told = json.loads((place / "lineage.json").read_text())
    (place / "changes.patch").write_text("diff --git a/stage.py b/stage.py\n")
    (place / "lineage.json").write_text(json.dumps({**told, "git_dirty": True, "git_changed": ["stage.py"]}))
    with contextlib.suppress(QuickstudyError):  # or it cannot be rebuilt at all
        assert recipes.read(three, "3").unrecorded is not None


def test_another_commit_than_the_ledger_s_is_not_built(dirty: Path) -> None:
    subprocess.run(
        ["git", "-c", "user.name=T", "-c", "user.email=t@e.org", "commit", "-qam", "other"], cwd=dirty, check=True
    )
    other = subprocess.run(["git", "rev-parse", "HEAD"], cwd=dirty, capture_output=True, text=True).stdout.strip()
    record = records.recorded(dirty, "4")
    place = Path(record.place.removeprefix("file://").replace("%20", " ")) / "lineage.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "git_commit": other}))
    by_hand(dirty, f"UPDATE tags SET value = '{other}' WHERE key = 'git_commit'")
    with pytest.raises(QuickstudyError, match="the ledger says another git_commit"):
        recipes.read(dirty, "4")
