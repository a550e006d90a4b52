"""Answers to a Parquet file, row by row, in memory that does not grow with it."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quickstudy.adaptation import table as batch
from quickstudy.adaptation.adapted import Answers
from quickstudy.adaptation.table import Summary, predict_table
from quickstudy.errors import QuickstudyError


def said(targets: Sequence[str], chances: np.ndarray, strange: np.ndarray) -> Answers:
    none = np.zeros((len(chances), 0))
    names = ("early", "late")
    return Answers(names, chances, list(targets), chances.max(1), strange, 0.5, none.astype(int), none)


def ask(texts: Sequence[str]) -> Answers:
    """By the first letter; what begins with x is unknown."""
    chances = np.array([[0.75, 0.25] if text[0] in "am" else [0.125, 0.875] for text in texts])
    strange = np.array([float(text[0] == "x") for text in texts])
    return said([("early", "late")[i] for i in chances.argmax(1)], chances, strange)


def ask_blindly(examples: Sequence[object]) -> Answers:
    """Always the same, by a task that kept no examples, so that it does not tell what is unknown."""
    return said(["early"] * len(examples), np.eye(2)[[0] * len(examples)], np.full(len(examples), np.nan))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    table = pa.table(
        {
            "id": pa.array(range(6), pa.int32()),
            "text": ["apple", "zebra", "xylophone", "moon", "ant", "zoo"],
            "label": pa.array(["early", "late", "other", "late", None, "late"]).dictionary_encode(),
            "more": [{"a": i} for i in range(6)],
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=4)
    return tmp_path / "rows.parquet"


def read(path: Path) -> dict[str, list]:
    return pq.read_table(path).to_pydict()


def test_rows_keep_their_order_and_their_columns(source: Path, tmp_path: Path, monkeypatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(batch, "BATCH", 3)
    monkeypatch.setattr(batch, "FLUSH_ROWS", 3)
    summary = predict_table(
        source, tmp_path / "out.parquet", ask, "classify", "text", progress=lambda *now: told.append(now)
    )
    answers = read(tmp_path / "out.parquet")
    assert list(answers) == ["id", "label", "more", "answer", "probability", "known"]
    assert answers["id"] == list(range(6)) and answers["more"][5] == {"a": 5}
    assert answers["answer"] == ["early", "late", "late", "early", "early", "late"]
    assert answers["probability"] == [0.75, 0.875, 0.875, 0.75, 0.75, 0.875]
    assert answers["known"] == [True, True, False, True, True, True]
    assert summary == Summary(rows=6, unreadable=0, unknown=1, labelled=4, hits=3, metric="accuracy")
    assert told[-1] == (6, 6) and len(told) > 1
    assert pq.read_schema(tmp_path / "out.parquet").field("id").type == pa.int32()


def test_columns_may_be_named(source: Path, tmp_path: Path) -> None:
    predict_table(source, tmp_path / "out.parquet", ask, "classify", "text", content="text", keep=["text", "id"])
    assert list(read(tmp_path / "out.parquet")) == ["text", "id", "answer", "probability", "known"]
    predict_table(source, tmp_path / "out.parquet", ask, "classify", "text", keep=[])
    assert list(read(tmp_path / "out.parquet")) == ["answer", "probability", "known"]


def test_a_task_without_examples_does_not_tell_what_is_known(source: Path, tmp_path: Path) -> None:
    predict_table(source, tmp_path / "o.parquet", ask_blindly, "classify", "text")
    assert read(tmp_path / "o.parquet")["known"] == [None] * 6


def test_rows_that_cannot_be_read(tmp_path: Path, png) -> None:
    pictures = [png(0), b"no picture", None, png(1)]
    cells = [None if data is None else {"bytes": data, "path": None} for data in pictures]
    pq.write_table(pa.table({"image": cells, "n": range(4)}), tmp_path / "rows.parquet")

    def sees(files: Sequence[bytes]) -> Answers:
        if b"no picture" in files:
            raise QuickstudyError("damaged")
        return ask_blindly(files)

    with pytest.raises(QuickstudyError, match=r"rows\.parquet, row 2: not an image but text.* by --skip-bad"):
        predict_table(tmp_path / "rows.parquet", tmp_path / "out.parquet", sees, "classify", "image")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
    summary = predict_table(
        tmp_path / "rows.parquet", tmp_path / "out.parquet", sees, "classify", "image", skip_bad=True
    )
    assert read(tmp_path / "out.parquet")["answer"] == ["early", None, None, "early"] and summary.unreadable == 2


def test_what_fails_leaves_what_was_there(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    out.write_bytes(b"yesterday's")

    def fails(texts: Sequence[str]) -> Answers:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_table(source, out, fails, "classify", "text")
    assert out.read_bytes() == b"yesterday's" and len(list(tmp_path.iterdir())) == 2


def test_mistakes(source: Path, tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no Parquet")
    pq.write_table(pa.table({"text": ["a"], "answer": ["b"]}), tmp_path / "answers.parquet")
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "words.parquet")
    pq.write_table(pa.table({"text": ["a", " "]}), tmp_path / "blank.parquet")
    out = tmp_path / "out.parquet"
    for args, options, line in (
        ((source, tmp_path / "out.csv"), {}, "answers are written as Parquet. Name it .parquet"),
        ((source, source), {}, "would take the place of the examples"),
        ((source, out), {"keep": ["idd"]}, "no column 'idd'. It has 'id', 'text', 'label', 'more'"),
        ((source, out), {"content": "words"}, "no column 'words'"),
        ((tmp_path / "missing.parquet", out), {}, "missing.parquet: not found"),
        ((tmp_path / "text.parquet", out), {}, "not complete Parquet"),
        ((tmp_path / "answers.parquet", out), {}, "has a column 'answer' already"),
        ((tmp_path / "words.parquet", out), {}, "no text column among 'words'. Name it by --content"),
        ((tmp_path / "blank.parquet", out), {}, "row 2: the text is missing or empty"),
    ):
        with pytest.raises(QuickstudyError, match=line.replace(".", r"\.")):
            predict_table(*args, ask, "classify", "text", **options)
    assert not out.exists()
    damaged = bytearray(source.read_bytes())
    damaged[4:60] = b"\xff" * 56
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    with pytest.raises(QuickstudyError, match="damaged after row 0"):
        predict_table(tmp_path / "damaged.parquet", out, ask, "classify", "text")


MEASURE = """
import resource, sys
from pathlib import Path
from tests.unit.serving.test_batch import ask
from quickstudy.adaptation.table import predict_table
print(predict_table(Path(sys.argv[1]), Path(sys.argv[2]), ask, "classify", "text").rows)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    part = pa.table({"text": ["a", "z"] * 1000, "kept": [random.bytes(4096) for _ in range(2000)]})
    used = []
    for parts in (4, 40):  # 33 and 328 MB, each of one row group
        source = tmp_path / f"{parts}.parquet"
        pq.write_table(pa.concat_tables([part] * parts), source, row_group_size=10**6, use_dictionary=False)
        command = [sys.executable, "-c", MEASURE, str(source), str(tmp_path / "out.parquet")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
        rows, megabytes = map(int, done.stdout.split())
        assert rows == 2000 * parts and pq.read_metadata(tmp_path / "out.parquet").num_rows == rows
        used.append(megabytes)
    assert used[1] - used[0] < 40, used  # of 295 MB more
