"""The options of how a source is read, by the command line: on every verb, looked at first, and written out again."""

import inspect
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
import typer.main
import yaml
from PIL import Image

from quickstudy.cli import chat, data, drift, sources, tasks
from quickstudy.client.examples import read_examples, read_labels
from quickstudy.config import Settings
from quickstudy.data.dataset import read_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tickets(write) -> Path:
    rows = "".join(f"ticket {q} of {i} kinds|q{q}|p{q % 3}\n" for q in range(12) for i in range(16))
    return write({"tickets.csv": "body|queue|product\n" + rows}, "tables") / "tickets.csv"


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# One definition


def options_of(verb: Callable[..., None]) -> set[str]:
    return set(inspect.signature(verb).parameters) & set(sources._OPTIONS)


def test_every_verb_that_reads_a_source_has_the_options() -> None:
    every = set(sources._OPTIONS)
    assert options_of(data.import_) == options_of(tasks.evaluate) == options_of(drift.drift) == every
    assert every - options_of(tasks.adapt) == {"group", "domain"}
    assert every - options_of(data.add) == {"kind", "modality", "exclude_label", "drop_duplicates"}
    always = {"text", "label", "header", "delimiter", "encoding", "skip_bad"}
    for verb in (data.import_, data.add, tasks.adapt, tasks.predict, tasks.evaluate, drift.drift, chat.chat):
        assert options_of(verb) >= always


@pytest.mark.parametrize("verb", [data.import_, tasks.adapt, tasks.predict, chat.chat])
def test_their_help_says_them(verb) -> None:
    only = typer.Typer()
    only.command()(verb)
    shown = {name for parameter in typer.main.get_command(only).params for name in parameter.opts}
    assert {"--text", "--content", "--label", "--encoding", "--delimiter", "--header", "--skip-bad"} <= shown


# Looked at first


def test_a_dry_run_says_what_the_import_says(run: Run, workspace: Path, tickets: Path) -> None:
    before = everything(workspace)
    options = ("--label", "queue", "--group", "product")
    code, looked, err = run("data", "import", tickets, *options, "--dry-run")
    assert (code, err) == (0, "") and everything(workspace) == before
    assert looked.startswith("Would import tickets: 192 texts, 12 classes in 3 groups (by product).\n")
    assert "Read: the examples from 'body', classes from 'queue', groups from 'product'.\n" in looked
    assert "Classes: q0 16, q1 16, q10 16" in looked
    assert looked.endswith("Nothing was written: that was --dry-run.\n")
    code, out, err = run("data", "import", tickets, "-n", "tickets", *options)
    assert (code, err) == (0, "")
    summary = looked.splitlines()[1:-1]
    assert out.splitlines()[1 : 1 + len(summary)] == summary


def test_a_dry_run_says_what_is_left_out(run: Run, write) -> None:
    source = write({"t.csv": 'text,label\na,x\n,x\nb,y\n"c"d,y\na,x\n'}) / "t.csv"
    code, out, _ = run("data", "import", source, "--dry-run", "--skip-bad", "--drop-duplicates")
    assert code == 0
    assert "Classes: x 1, y 1." in out
    assert "Note: left out 2 bad examples of 5, the first is" in out and "line 3: the text is empty" in out
    assert "Note: left out 1 duplicates" in out


def test_of_many_classes_the_largest_and_smallest_are_said(run: Run, write) -> None:
    rows = "".join(f"text {c} {i},c{c:02}\n" for c in range(40) for i in range(c + 1))
    code, out, _ = run("data", "import", write({"t.csv": "text,label\n" + rows}) / "t.csv", "--dry-run")
    assert code == 0
    assert "Classes: c39 40, c38 39" in out and "… and 20 more, …" in out and "c01 2, c00 1." in out


def test_without_a_name_nothing_is_imported(run: Run, workspace: Path, tickets: Path) -> None:
    before = everything(workspace)
    code, out, err = run("data", "import", tickets, "--label", "queue")
    assert (code, out) == (2, "") and everything(workspace) == before
    assert err == "quickstudy: data import: the dataset has no name. Say it by --name, or look first by --dry-run\n"


def test_what_a_class_is_called_steers_no_terminal(run: Run, write) -> None:
    source = write({"t.csv": "text,label\na,\x1b[31mred\nb,y\n"}) / "t.csv"
    code, out, _ = run("data", "import", source, "--dry-run")
    assert code == 0 and "\x1b" not in out and "\\x1b[31mred 1" in out


def test_options_reach_the_source(run: Run, workspace: Path, write) -> None:
    rows = "".join(f"Größe {q}{i}^q{q}\n" for q in range(3) for i in range(16))
    source = write({"t.csv": rows.encode("cp1252")}) / "t.csv"
    options = ("--no-header", "--delimiter", "^", "--encoding", "cp1252", "--text", 1, "--label", 2)
    code, _, err = run("data", "import", source, "-n", "mine", *options)
    assert (code, err) == (0, "")
    assert read_dataset(workspace / "data/mine").raw()[0] == "Größe 00"
    (source.parent / "more.csv").write_bytes("Größe neu^q0\n".encode("cp1252"))
    code, out, err = run("data", "add", source.parent / "more.csv", "-n", "mine")
    assert (code, err) == (0, "") and "Added 1 to mine" in out
    assert read_dataset(workspace / "data/mine").raw()[-1] == "Größe neu"
    (source.parent / "utf8.csv").write_text("text;label\nGröße gestern;q0\n", encoding="utf-8")
    differs = ("--header", "--delimiter", ";", "--encoding", "utf-8", "--text", "text", "--label", "label")
    code, out, err = run("data", "add", source.parent / "utf8.csv", "-n", "mine", *differs)
    assert (code, err) == (0, "") and read_dataset(workspace / "data/mine").raw()[-1] == "Größe gestern"


# Written out, and read again


@pytest.mark.parametrize("form", ["label-studio", "jsonl", "csv"])
@pytest.mark.parametrize("kind", ["classify", "tag"])
def test_texts_survive(run: Run, workspace: Path, write, form: str, kind: str) -> None:
    cells = {"classify": lambda i: f"c{i % 3}, of it", "tag": lambda i: [f"t {k};" for k in range(3) if i % (k + 2)]}
    rows = [
        {"text": f'say "{i}"\nthen, [b]go[/b]', "label": cells[kind](i), "group": f"g{i % 4}", "domain": f"d{i % 2}"}
        for i in range(30)
    ]
    source = write({"t.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}) / "t.jsonl"
    assert run("data", "import", source, "-n", "mine", "--domain", "domain")[0] == 0
    code, out, err = run("data", "export", "mine", "--format", form)
    assert (code, err) == (0, "")
    again = out.splitlines()[1].removeprefix("Read it again by: quickstudy ").replace("OTHER", "again").replace("'", "")
    assert run(*again.split())[0] == 0
    mine, other = (read_dataset(workspace / "data" / name) for name in ("mine", "again"))
    assert other.table.equals(mine.table)
    code, _, err = run("data", "export", "mine", "--format", form)
    assert code == 2 and "there is something already. Remove it, or name another --out" in err


@pytest.mark.parametrize(("modality", "form"), [("image", "PNG"), ("image", "JPEG"), ("audio", "WAV")])
def test_files_survive_in_class_folders(run: Run, workspace: Path, write, png, wav, modality: str, form: str) -> None:
    make = (lambda i: png(i, form=form)) if modality == "image" else wav
    end = form.lower()
    files = {f"{group}/{c}/{i}.{end}": make(10 * c + i) for group in ("g", "h") for c in range(3) for i in range(4)}
    for name, source in (("grouped", files), ("flat", {path.removeprefix("g/"): files[path] for path in files})):
        source = {path: content for path, content in source.items() if name == "grouped" or path[0].isdigit()}
        assert run("data", "import", write(source, name), "-n", name)[0] == 0
        code, out, err = run("data", "export", name, "--format", "imagefolder", "--out", f"out/{name}")
        assert (code, err) == (0, ""), out
        assert run("data", "import", f"out/{name}", "-n", f"{name}-again")[0] == 0
        mine, again = (read_dataset(workspace / "data" / one) for one in (name, f"{name}-again"))
        assert sorted(zip(mine.raw(), mine.column("label"), strict=True)) == sorted(
            zip(again.raw(), again.column("label"), strict=True)
        )


@pytest.mark.parametrize(
    ("form", "table"), [("label-studio", "tasks.json"), ("csv", "metadata.csv"), ("jsonl", "metadata.jsonl")]
)
def test_a_table_names_the_files(run: Run, workspace: Path, write, png, form: str, table: str) -> None:
    source = write({f"{c}/{i}.png": png(10 * c + i) for c in range(3) for i in range(4)})
    run("data", "import", source, "-n", "mine")
    code, out, err = run("data", "export", "mine", "--format", form)
    assert (code, err) == (0, "") and f"Exported 12 images of mine → mine-{form}" in out
    folder = workspace / f"mine-{form}"
    assert Image.open(folder / "files/000012.png").size == (12, 10)
    text = (folder / table).read_text(encoding="utf-8")
    if form == "label-studio":
        tasks_ = json.loads(text)
        assert tasks_[0]["data"] == {"image": "/data/local-files/?d=files/000001.png"}
        assert [one["annotations"][0]["result"][0]["value"]["choices"] for one in tasks_] == [
            [str(i // 4)] for i in range(12)
        ]
    elif form == "csv":
        assert text.splitlines()[:2] == ["file_name,label", "files/000001.png,0"]
    else:
        assert json.loads(text.splitlines()[0]) == {"file_name": "files/000001.png", "label": "0"}


def test_classes_that_cannot_be_folders_stand_in_a_table(run: Run, workspace: Path, tmp_path: Path, png) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [{"bytes": png(i), "path": None} for i in range(8)]
    pq.write_table(pa.table({"image": cells, "label": ["../up", ".net"] * 4}), tmp_path / "t.parquet")
    assert run("data", "import", tmp_path / "t.parquet", "-n", "mine")[0] == 0
    code, _, err = run("data", "export", "mine", "-f", "imagefolder", "--out", "out")
    assert (code, err) == (0, "")
    assert sorted(path.name for path in Path("out").iterdir()) == ["files", "metadata.jsonl"]
    assert not list(workspace.glob("up*"))


def test_exports_that_cannot_be(run: Run, workspace: Path, tickets: Path) -> None:
    run("data", "import", tickets, "-n", "tickets", "--label", "queue")
    before = everything(workspace)
    for arguments, line in (
        (("tickets", "--format", "imagefolder"), "tickets: holds texts, and no files. Texts are written by --format"),
        (("other", "--format", "csv"), "no dataset 'other'. There are tickets"),
        (("tickets", "--format", "csv", "--out", "data"), "data: there is something already"),
    ):
        code, out, err = run("data", "export", *arguments)
        assert (code, out) == (2, "") and line in err and err.count("\n") == 1
    code, _, err = run("data", "export", "tickets", "--format", "coco")
    assert code == 2 and "--format" in err
    assert everything(workspace) == before


# The verbs that use a model


@pytest.fixture
def model(run: Run, workspace: Path, tiny_params) -> Run:
    """In a project with an untrained model of texts, in the folder ``model``."""
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    tiny_params["model"] |= {"learner": "ridge", "encoders": tiny_params["model"]["encoders"] | {"text": "bytes-cnn"}}
    (workspace / "params.yaml").write_text(yaml.safe_dump(tiny_params))
    settings = Settings.model_validate(tiny_params)
    torch.manual_seed(0)
    save_model(MetaModel(settings.inputs, settings.model, {"text"}), workspace / "model", {})
    return run


def test_a_table_may_call_its_columns_as_it_likes(model: Run, write) -> None:
    rows = "".join(
        f"{i};{'aaaa zzzz' if i % 2 else 'bbbb yyyy'} {i};{'x' if i % 2 else 'y'};Größe\n" for i in range(24)
    )
    table = write({"t.csv": ("nr;words;team;note\n" + rows).encode("cp1252")}) / "t.csv"
    code, out, err = model("adapt", table, "--task", "t", "--model", "model")
    assert (code, err) == (0, "") and "2 classes, 12 examples each" in out
    assert "Note: the names of the columns do not tell: read 'words' as the text and 'team' as the label" in out
    assert "Note: t.csv is not UTF-8 and seems to be CP1252" in out
    told = ("--text", "words", "--label", "team", "--encoding", "cp1252", "--delimiter", ";")
    code, out, err = model("adapt", table, "--task", "u", "--model", "model", *told)
    assert (code, err) == (0, "") and "Note" not in out
    code, out, err = model("predict", table, "--task", "u", "--model", "model", *told, "--json", "a.json")
    assert (code, err) == (0, "") and "on 24 labelled examples" in out
    asked = ("--way", 2, "--shot", 1, "--query", 2, "--episodes", 4, "--model", "model")
    code, out, err = model("evaluate", table, *asked, *told)
    assert (code, err) == (0, "") and "2-way 1-shot accuracy" in out
    code, out, err = model("adapt", table, "--task", "t", "--model", "model", "--label", "nobody")
    assert (code, out) == (2, "") and "no column 'nobody'. It has 'nr', 'team', 'note'" in err


def test_a_bad_row_costs_itself(model: Run, write) -> None:
    rows = [{"text": f"{'aaaa' if i % 2 else 'bbbb'} {i}", "label": "xy"[i % 2]} for i in range(12)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    bad = lines + '{"text": "so \\ud83d", "label": "x"}\n{"text": "cut\n'
    support = write({"t.jsonl": bad}) / "t.jsonl"
    code, out, err = model("adapt", support, "--task", "t", "--model", "model")
    assert (code, out) == (2, "") and "line 13: the text holds half a character (\\ud83d). It is the first of 2" in err
    code, out, err = model("adapt", support, "--task", "t", "--model", "model", "--skip-bad")
    assert (code, err) == (0, "") and "Note: left out 2 bad examples of 14" in out
    code, out, err = model("predict", support, "--task", "t", "--model", "model")
    assert (code, out) == (2, "") and "--skip-bad" in err
    queries = write({"q.jsonl": '{"text": "so \\ud83d"}\n{"text": "aaaa"}\n'}) / "q.jsonl"
    code, out, err = model("predict", queries, "--task", "t", "--model", "model", "--skip-bad", "--json", "a.json")
    assert (code, err) == (0, "") and "Note: left out 1 bad examples of 2" in out
    assert [one["example"] for one in json.loads(Path("a.json").read_text())["predictions"]] == ["text 2"]


def test_texts_that_are_no_text_have_no_answer_in_a_parquet_file(model: Run, write) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    support = write({"t.csv": "text,label\n" + "aaaa,x\nbbbb,y\n" * 4}) / "t.csv"
    assert model("adapt", support, "--task", "t", "--model", "model")[0] == 0
    data = pa.py_buffer(b"aaaabb \xffbbbb")
    texts = pa.StringArray.from_buffers(3, pa.py_buffer(np.array([0, 4, 8, 12], np.int32)), data)
    pq.write_table(pa.table({"id": [1, 2, 3], "text": texts}), "q.parquet")
    asked = ("predict", "q.parquet", "--task", "t", "--model", "model", "--out", "a.parquet")
    code, out, err = model(*asked)
    assert (code, out) == (2, "") and "row 2: the text is not UTF-8 (byte 0xff)" in err
    code, out, err = model(*asked, "--skip-bad")
    assert (code, err) == (0, "") and "3 rows, 1 could not be read" in out
    answers = pq.read_table("a.parquet").to_pydict()
    assert answers["id"] == [1, 2, 3] and [answer is None for answer in answers["answer"]] == [False, True, False]


def test_an_faq_may_call_its_columns_as_it_likes(model: Run, write, monkeypatch: pytest.MonkeyPatch) -> None:
    faq = write({"faq.csv": "ask|say\nwhere is my parcel|there\nwhen does it come|there\nmoney back|no\n"}) / "faq.csv"
    said = io.TextIOWrapper(io.BytesIO(b"where is my parcel\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", said)
    code, out, err = model("chat", faq, "--model", "model", "--text", "ask", "--label", "say")
    assert (code, out) == (0, "there\n"), err


def test_halves_of_characters_are_refused_from_python_too() -> None:
    with pytest.raises(QuickstudyError, match=r"example 2: the text holds half a character \(.ud83d\)"):
        read_examples(["good", "so \ud83d"])
    with pytest.raises(QuickstudyError, match=r"example 1: the label holds half a character \(.ud83d\)"):
        read_labels(["x \ud83d", "y"], 2)
    with pytest.raises(QuickstudyError, match=r"example 2: the label holds half a character \(.ud83d\)"):
        read_labels([["x"], ["y", "\ud83d"]], 2)
