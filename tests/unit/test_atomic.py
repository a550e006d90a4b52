"""A file is whole or it is what it was."""

import json
from pathlib import Path

import numpy as np
import pytest

from quickstudy.system.atomic import draft, write_json


def test_a_file_appears_at_the_end_and_the_old_one_stays_until_then(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/file"
    with draft(path) as part:
        part.write_text("one")
        assert not path.exists()
    with draft(path) as part:
        part.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_fails_leaves_nothing_and_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), draft(path) as part:
        part.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_json_takes_the_numbers_of_numpy(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"ä": np.float32(0.5), "n": [np.int64(3)]})
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == {"ä": 0.5, "n": [3]}


def test_a_file_may_be_read_by_whom_the_umask_says(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    with draft(tmp_path / "file") as part:
        part.write_text("one")
    assert (tmp_path / "file").stat().st_mode == plain.stat().st_mode
