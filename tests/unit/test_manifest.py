"""Which data a kind's stages depend on: a manifest says so, and notices what changes of it and nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from quickstudy.data.contents import FILE
from quickstudy.data.dataset import Dataset, DatasetInfo, make_table, write_dataset
from quickstudy.data.manifest import is_current, manifest, read_manifest, write_manifest
from quickstudy.errors import QuickstudyError


def put(root: Path, dataset: Dataset) -> None:
    write_dataset(root, dataset.info, dataset.table)


def tagged(name: str, tag: str) -> Dataset:
    table = make_table("text", ["one", "two"], [[tag], []], ["g", "g"], kind="tag")
    return Dataset(DatasetInfo(name=name, modality="text", kind="tag"), table)


@pytest.fixture
def root(toys: Callable[..., Dataset], tmp_path: Path) -> Path:
    put(tmp_path / "data", toys(name="letters"))
    put(tmp_path / "data", toys(name="signs", classes=3))
    put(tmp_path / "data", tagged("topics", "a"))
    return tmp_path / "data"


def test_each_kind_has_its_own_datasets(root: Path, tmp_path: Path) -> None:
    assert list(manifest(root, "classify")) == ["letters", "signs"] and list(manifest(root, "tag")) == ["topics"]
    assert manifest(root, "regress") == {}
    write_manifest(tmp_path / "data.json", root, "classify")
    first = (tmp_path / "data.json").read_bytes()
    assert read_manifest(tmp_path / "data.json") == manifest(root, "classify")
    write_manifest(tmp_path / "data.json", root, "classify")
    assert (tmp_path / "data.json").read_bytes() == first


def test_a_dataset_written_before_there_were_kinds_is_of_classify(root: Path) -> None:
    described = root / "letters/dataset.yaml"
    lines = described.read_text().splitlines(keepends=True)
    described.write_text("".join(line for line in lines if not line.startswith("kind:")))
    assert "kind" not in described.read_text() and "letters" in manifest(root, "classify")


def test_what_changes_of_its_kind_is_noticed_and_nothing_else(root: Path, toys, tmp_path: Path) -> None:
    path = tmp_path / "data.json"

    def noticed(change: Callable[[], object]) -> bool:
        write_manifest(path, root, "classify")
        assert is_current(path, root)
        change()
        return not is_current(path, root)

    assert noticed(lambda: put(root, toys(name="letters", each=9)))  # other examples
    assert noticed(lambda: put(root, toys(name="letters", each=9, group="script")))  # another description
    assert noticed(lambda: put(root, toys(name="more")))
    assert noticed(lambda: (root / "more" / FILE).unlink())
    assert not noticed(lambda: put(root, toys(name="letters", each=9, group="script")))  # the same once more
    assert not noticed(lambda: put(root, tagged("topics", "b")))
    assert not noticed(lambda: put(root, tagged("more-topics", "b")))
    assert not noticed(lambda: (root / "letters/notes.txt").write_text("read by nobody"))


@pytest.mark.parametrize(
    "content", [None, b"", b"[1]", b"{}", b'{"kind": "classify"}', b'{"datasets": 3}', b"\xff\xfe"]
)
def test_one_that_cannot_be_read_is_not_current_and_is_told_in_one_line(root: Path, tmp_path: Path, content) -> None:
    path = tmp_path / "data.json"
    if content is not None:
        path.write_bytes(content)
    assert not is_current(path, root)
    with pytest.raises(QuickstudyError, match=r"data\.json: (not found|is damaged).*`quickstudy tasks`") as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)
