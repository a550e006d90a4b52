"""The starter data as a whole: what is written when, and the same bytes wherever it is built."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quickstudy.data.dataset import read_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.starter import STARTER, build_starter

# Builds a part of every dataset on the cores it is told and prints a digest of each.
PART = """
import hashlib, json, os, sys
if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
    from quickstudy.starter import apidocs, digits, glyphs, messages, phrasebook, words

    parts = {
        "glyphs": glyphs.build(limit=1),
        "digits": digits.build(),
        "words": words.build(limit=2),
        "apidocs": apidocs.build(packages=("click",)),
        "phrasebook": phrasebook.build(limit=20),
        "messages": messages.build(limit=20),
    }
    digests = {}
    for name, (info, table) in parts.items():
        digest = hashlib.sha256(info.model_dump_json().encode())
        for column in table.columns:
            for cell in column.to_pylist():
                digest.update(cell["bytes"] if isinstance(cell, dict) else str(cell).encode())
        digests[name] = digest.hexdigest()
    print(json.dumps(digests))
"""


def test_the_same_bytes_on_one_core_or_more_in_any_environment(tmp_path: Path) -> None:
    script = tmp_path / "part.py"
    script.write_text(PART)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (there / "matplotlibrc").write_text("font.family: monospace\n")
    plain = _run(script, "1", here, {"PYTHONHASHSEED": "1", "LC_ALL": "C"})
    other = _run(
        script,
        "64",
        there,
        {"PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo", "MPLCONFIGDIR": str(there)},
    )
    assert plain == other
    assert set(plain) == set(STARTER)


def _run(script: Path, cores: str, folder: Path, environment: dict[str, str]) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, str(script), cores],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_what_is_there_stays_and_what_is_missing_is_built(tmp_path: Path) -> None:
    root = tmp_path / "data"
    told: list[tuple[str, int, int]] = []
    names = ("phrasebook", "digits")
    assert build_starter(root, names, progress=lambda *event: told.append(event)) == ["digits", "phrasebook"]
    assert ("digits", 1797, 1797) in told
    assert [event[0] for event in told] == sorted(event[0] for event in told)
    marker = root / "digits/examples.parquet"
    before = marker.stat().st_mtime_ns
    (root / "phrasebook/dataset.yaml").unlink()  # as after a kill in the middle of an older version's writing
    assert build_starter(root, names) == ["phrasebook"]
    assert marker.stat().st_mtime_ns == before
    assert build_starter(root, names) == []
    first = marker.read_bytes()
    assert build_starter(root, ["digits"], force=True) == ["digits"]
    assert marker.read_bytes() == first
    assert [path.name for path in sorted(tmp_path.iterdir())] == [".cache", "data"]  # what was written is remembered


def test_what_was_finished_before_a_failure_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quickstudy.starter import phrasebook

    def fail(progress: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(phrasebook, "build", fail)
    root = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        build_starter(root, ["digits", "phrasebook"])
    assert len(read_dataset(root / "digits")) == 1797
    assert [path.name for path in root.iterdir()] == ["digits"]


def test_an_unknown_name_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(QuickstudyError, match=r"no starter dataset 'glyph'\. There are glyphs, digits"):
        build_starter(tmp_path / "data", ["digits", "glyph"])
    assert list(tmp_path.iterdir()) == []
