"""Reading the registry changes nothing: on a disk that is only read, under two names of a folder, of a damaged one."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.registry import records, store

QUICKSTUDY = str(Path(sys.executable).parent / "quickstudy")


def database(root: Path) -> str:
    return hashlib.sha256((root / "mlruns/mlflow.db").read_bytes()).hexdigest()


def read(root: Path) -> None:
    """All that reads."""
    folder = registry.resolve("models:/quickstudy@champion", root)
    assert folder.is_relative_to(root.resolve()) and (folder / "classify/model.safetensors").exists()
    record = records.recorded(root, "champion")
    found = records.artifact(root, record, "lineage.json")
    assert found is not None and found.is_relative_to(root.resolve())
    assert registry.version(root, "2").number == 2 and registry.read_ledger(root).breaks == ()


def test_a_moved_folder_is_read_and_not_changed(three: Path) -> None:
    before = database(three)
    read(three)
    assert database(three) == before


def test_one_folder_under_two_names_is_read_and_written_under_both(three: Path, tmp_path: Path) -> None:
    """As where it is mounted twice."""
    store.prepare(three)  # its records point to where it is now
    other = tmp_path / "mounted"
    other.symlink_to(three, target_is_directory=True)
    before = database(three)
    # A link is resolved; two mounts are not, and look like two folders of the same content.
    assert store.path_of(other, (three / "mlruns/artifacts/x").as_uri()) == three / "mlruns/artifacts/x"
    for root in (three, other, three):
        read(root)
        store.prepare(root)
    assert database(three) == before


def test_records_that_point_to_the_same_folder_under_another_name_stay(three: Path, tmp_path: Path) -> None:
    store.prepare(three)
    moved = tmp_path / "moved"
    three.rename(moved)
    three.symlink_to(moved, target_is_directory=True)  # the recorded name still leads there
    before = database(moved)
    store.prepare(moved)
    read(moved)
    assert database(moved) == before
    three.unlink()  # and now it does not
    store.prepare(moved)
    assert database(moved) != before
    read(moved)


def test_a_folder_that_is_only_read_is_read(three: Path, tmp_path: Path) -> None:
    (three / ".cache").mkdir(exist_ok=True)
    for path in (three / "mlruns/mlflow.db", three / "mlruns"):
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        read(three)
    finally:
        (three / "mlruns").chmod(0o700)


@pytest.mark.parametrize("how", ["no database", "a page flipped", "cut off"])
def test_a_damaged_database_is_told_in_one_line(three: Path, how: str) -> None:
    path = three / "mlruns/mlflow.db"
    content = bytearray(path.read_bytes())
    if how == "no database":
        content = bytearray(b"this was a database once\n" * 200)
    elif how == "a page flipped":
        for place in range(100, 40_000):
            content[place] ^= 0xFF
    else:
        del content[len(content) // 3 :]
    path.write_bytes(content)
    with pytest.raises(QuickstudyError, match=r"mlflow.db: MLflow's database is damaged \(.*Restore it from a backup"):
        registry.aliases(three)
        registry.read_ledger(three)
        registry.resolve("models:/quickstudy@champion", three)
    for words in (("history",), ("lineage", "champion"), ("reproduce", "2", "--check"), ("promote",)):
        done = subprocess.run([QUICKSTUDY, *words], cwd=three, capture_output=True, text=True)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), (words, done.stderr)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_database_that_one_may_not_read_is_told_in_one_line(three: Path) -> None:
    (three / "mlruns/mlflow.db").chmod(0)
    with pytest.raises(QuickstudyError, match=r"mlflow.db: cannot be used"):
        registry.aliases(three)


def test_no_database_is_no_mistake(three: Path) -> None:
    shutil.rmtree(three / "mlruns")
    assert registry.aliases(three) == {}
