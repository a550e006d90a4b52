"""A delivery that is made to take all memory, or for ever, stops nothing that comes after it."""

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quickstudy.config import Settings, changed, load_settings
from quickstudy.errors import QuickstudyError
from quickstudy.ingest import inbox as inbox_module
from quickstudy.ingest.importers import encoding, formats, source
from quickstudy.ingest.inbox import Outcome, take
from quickstudy.ingest.journal import FILE
from quickstudy.system.limits import GB, bounded, memory_limit

REPOSITORY = Path(__file__).parents[2]


def lines(count: int, first: int = 0) -> str:
    return "text,label\n" + "".join(f"question {i} about {i % 4},topic {i % 4}\n" for i in range(first, first + count))


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a dataset `tickets`, and what lies in the inbox for it."""
    monkeypatch.chdir(tmp_path)
    text = (REPOSITORY / "params.yaml").read_text().replace("quiet: 5 ", "quiet: 0 ")
    Path("params.yaml").write_text(text)
    Path("inbox/tickets").mkdir(parents=True)
    Path("inbox/tickets/0.csv").write_text(lines(40))
    assert told(taken()) == [("0.csv", "taken")]
    return Path("inbox/tickets")


def taken(**watch: float) -> list[Outcome]:
    settings: Settings = load_settings(Path("params.yaml"))
    for name, value in watch.items():
        settings = changed(settings, f"watch.{name}", value)
    return take(Path("data"), settings, lambda info, group: "train", cache=Path(".cache/checks"))


def told(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [(outcome.delivery, outcome.outcome) for outcome in outcomes]


# Refused by what the file says, or before it is made


def parquet(table: pa.Table, **how: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", store_schema=False, **how)
    return out.getvalue()


def one_text_in_many_rows() -> bytes:
    """400,000 rows of a megabyte."""
    coded = pa.DictionaryArray.from_arrays(pa.array([0] * 400_000, pa.int32()), pa.array(["x" * 1_000_000]))
    return parquet(pa.table({"text": coded, "label": pa.array(["a"] * 400_000)}))


def one_text_in_every_label() -> bytes:
    coded = pa.DictionaryArray.from_arrays(pa.array([0] * 400_000, pa.int32()), pa.array(["x" * 1_000_000]))
    return parquet(pa.table({"text": pa.array(["a"] * 400_000), "label": coded}))


def one_long_list() -> bytes:
    values = pa.array([1]).take(pa.array([0] * 250_000_000, pa.int8()))
    tags = pa.LargeListArray.from_arrays(pa.array([0, 250_000_000], pa.int64()), values.cast(pa.int8()))
    return parquet(pa.table({"text": ["a"], "labels": tags}))


def each_text_a_little_longer() -> bytes:
    """DELTA_BYTE_ARRAY: each is what it adds to the last one."""
    texts = pa.array([("x" * 300_000) + f"{i:06}" for i in range(3_000)])
    table = pa.table({"text": texts, "label": ["a"] * 3_000})
    return parquet(table, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY", "label": "PLAIN"})


def too_many_rows() -> bytes:
    nothing = pa.nulls(formats.MAX_ROWS + 1, pa.string())
    return parquet(pa.table({"text": nothing, "label": nothing}))


@pytest.mark.parametrize("make", [one_text_in_many_rows, one_text_in_every_label, too_many_rows])
def test_a_small_parquet_file_that_stands_for_gigabytes_is_set_aside_at_once(
    inbox: Path, make: Callable[[], bytes]
) -> None:
    content = make()
    assert len(content) < 30_000
    (inbox / "1.parquet").write_bytes(content)
    (inbox / "2.csv").write_text(lines(8, 40))
    outcomes = taken(memory=1)
    assert told(outcomes) == [("1.parquet", "rejected"), ("2.csv", "taken")]
    assert "MB" in outcomes[0].reason or "rows" in outcomes[0].reason


def test_texts_that_share_their_beginnings_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    content = each_text_a_little_longer()
    assert len(content) < 200_000
    monkeypatch.setattr(formats, "MAX_TOTAL", 100 << 20)
    with memory_limit(0.5 * GB), pytest.raises(QuickstudyError, match="more than 100 MB"):
        list(formats.read_parquet(io.BytesIO(content), "f").rows)


def test_a_file_of_too_many_values_is_refused_before_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    content = parquet(pa.table({"text": ["a"] * 60, "labels": pa.array([["b"] * 50] * 60)}))
    monkeypatch.setattr(formats, "MAX_VALUES", 3_000)
    with pytest.raises(QuickstudyError, match="3,000 values"):
        formats.read_parquet(io.BytesIO(content), "f")


@pytest.mark.parametrize("how", [{}, {"use_dictionary": False}])
def test_honest_parquet_is_read_as_before(how: dict[str, object]) -> None:
    cells = [{"bytes": b"%d" % i, "path": None} for i in range(70)]
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(cells, picture), "labels": [["a", "b"], []] * 35, "label": ["x", None] * 35})
    assert [row for _, row in formats.read_parquet(io.BytesIO(parquet(table, **how)), "f").rows] == table.to_pylist()


def test_a_text_file_is_bounded_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(QuickstudyError, match="more than 1 MB"):
        long = io.BytesIO(b"x" * 1000 + b"\n" + b"y\n" * (1 << 20))
        list(encoding.decoded_lines(long, "f", encoding.Encoding("utf-8"), most=1 << 20))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.json", b"[" + b"[]," * (100 << 20) + b"[]]")
    (tmp_path / "a.zip").write_bytes(packed.getvalue())
    with memory_limit(2 * GB), pytest.raises(QuickstudyError, match=r"more than 2|times its size"):
        source.import_source(tmp_path / "a.zip", "a")


# Whatever else it takes


def greedy(path: Path, size: int) -> Callable[..., object]:
    """A reader that takes so much memory for one of the files."""
    read = source.read_more

    def reading(given: Path, *arguments: object, **named: object) -> object:
        if given.name == path.name:
            bytearray(size)
        return read(given, *arguments, **named)  # type: ignore[arg-type]

    return reading


def test_what_takes_too_much_memory_waits_once_and_is_then_set_aside(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quickstudy.ingest import additions

    monkeypatch.setattr(additions, "read_more", greedy(inbox / "1.csv", 3 << 30))
    (inbox / "1.csv").write_text(lines(8, 40))
    (inbox / "2.csv").write_text(lines(8, 50))
    assert told(taken(memory=0.5)) == [("1.csv", "waiting"), ("2.csv", "taken")]
    (inbox / "3.csv").write_text(lines(8, 60))
    outcomes = taken(memory=0.5)
    assert told(outcomes) == [("1.csv", "rejected"), ("3.csv", "taken")]
    assert "watch.memory" in outcomes[0].reason and "\n" not in outcomes[0].reason
    assert (Path("inbox/.rejected/tickets") / "1.csv").exists()
    assert not FILE.exists()


def test_another_file_of_the_same_name_is_another_delivery(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quickstudy.ingest import additions

    with monkeypatch.context() as patched:
        patched.setattr(additions, "read_more", greedy(inbox / "1.csv", 3 << 30))
        (inbox / "1.csv").write_text(lines(8, 40))
        assert told(taken(memory=0.5)) == [("1.csv", "waiting")]
        (inbox / "1.csv").write_text(lines(9, 40))
        assert told(taken(memory=0.5)) == [("1.csv", "waiting")]
    assert told(taken()) == [("1.csv", "taken")]


DIES = """
import os, signal, sys, time
from pathlib import Path
from quickstudy.ingest.importers import source
how = os.environ["HOW"]
def poisoned(read):
    def reading(given, *arguments, **named):
        if "poison" in given.name or "poison" in (named.get("only") or ()):
            open("looks", "a").write("x")
            os.kill(os.getpid(), signal.SIGKILL) if how == "kill" else time.sleep(600) if how == "sleep" else os.abort()
        return read(given, *arguments, **named)
    return reading
from quickstudy.ingest import additions
additions.read_more = poisoned(source.read_more)
source.import_source = poisoned(source.import_source)
from quickstudy.cli import main
sys.argv = ["quickstudy", *sys.argv[1:]]
main()
"""


def supervised(tmp_path: Path, how: str) -> "subprocess.CompletedProcess[str]":
    """`quickstudy data take`, whose reader ends as a file may make it end."""
    package = tmp_path / "poisoned"
    (package / "quickstudy_poison").mkdir(parents=True, exist_ok=True)
    (package / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if os.environ.get('QUICKSTUDY_SUPERVISED') and 'quickstudy' in ' '.join(sys.orig_argv):\n"
        f"    exec({DIES.split('from quickstudy.cli import main')[0]!r})\n"
    )
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "quickstudy", "data", "take", "--json", "out.json"]
    env = {**os.environ, "PYTHONPATH": path, "HOW": how}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("how", ["kill", "abort", "sleep"])
def test_what_ends_or_keeps_the_process_that_reads_it_is_set_aside_after_the_second_time(
    inbox: Path, tmp_path: Path, how: str
) -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("minutes: 60 ", "minutes: 0.25 " if how == "sleep" else "minutes: 60 "))
    (inbox / "1.csv").write_text(lines(8, 40))
    (inbox / "2poison.csv").write_text(lines(8, 50))
    (inbox / "3.csv").write_text(lines(8, 60))
    done = supervised(tmp_path, how)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "tickets/1.csv taken",
        "tickets/2poison.csv set aside",
        "tickets/3.csv taken",
    ]
    assert [one["outcome"] for one in json.loads(Path("out.json").read_text())] == ["taken", "rejected", "taken"]
    assert len(Path("looks").read_text()) == 2
    assert not FILE.exists()


def test_of_several_that_are_read_as_one_only_the_guilty_goes(inbox: Path, tmp_path: Path) -> None:
    """A new dataset begins with all folders together."""
    for name in ("good", "poison", "well"):
        folder = Path("inbox/fresh") / name
        folder.mkdir(parents=True)
        for i in range(8):
            (folder / f"{i}.txt").write_text(f"{name} {i}")
    done = supervised(tmp_path, "kill")
    assert done.returncode == 0, done.stderr
    became = {one["delivery"]: one["outcome"] for one in json.loads(Path("out.json").read_text())}
    assert became == {"good": "taken", "poison": "rejected", "well": "taken"}


def test_ctrl_c_is_no_failure(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    (inbox / "1.csv").write_text(lines(8, 40))
    for _ in range(3):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(inbox_module._Taker, "_add", stop)
            taken()
    assert told(taken()) == [("1.csv", "taken")]


def test_an_import_by_hand_is_bounded_alike() -> None:
    with (
        pytest.raises(QuickstudyError, match=r"source\.csv: takes more than 0\.2 GB") as refused,
        bounded(0.2, "source.csv"),
    ):
        bytearray(1 << 30)
    assert "\n" not in str(refused.value)
