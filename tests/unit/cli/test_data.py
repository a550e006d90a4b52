"""`quickstudy data`, by its command line: what it prints, its exit code, and what lies on the disk afterwards."""

import errno
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from quickstudy.data import dataset as dataset_module
from quickstudy.data.dataset import read_dataset

Run = Callable[..., tuple[int, str, str]]


def everything(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder with its bytes, but for what is only remembered to be quick."""
    paths = (path for path in folder.rglob("*") if ".cache" not in path.relative_to(folder).parts)
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


@pytest.fixture
def pictures(write, png) -> Path:
    """20 pictures of each of 12 classes in 3 groups."""
    return write({f"g{c % 3}/c{c:02}/{i}.png": png(100 * c + i, size=(24, 24)) for c in range(12) for i in range(20)})


@pytest.fixture
def tickets(write) -> Path:
    rows = "".join(f"ticket {q} of {i} kinds,q{q}\n" for q in range(12) for i in range(16))
    return write({"tickets.csv": "body,queue\n" + rows}, "tables") / "tickets.csv"


# Import


def test_import_and_list_and_check_and_remove(run, workspace, pictures):
    code, out, err = run("data", "import", pictures, "--name", "mine", "--licence", "MIT", "--source-note", "my desk")
    assert (code, err) == (0, "")
    assert "Imported mine: 240 images, 12 classes in 3 groups (by folder)." in out
    assert "quickstudy run" in out
    dataset = read_dataset(workspace / "data/mine")
    assert (len(dataset), len(dataset.classes), dataset.modality) == (240, 12, "image")
    assert yaml.safe_load((workspace / "data/mine/dataset.yaml").read_text())["licence"] == "MIT"
    assert dataset.info.source == "my desk"
    assert sorted(path.name for path in workspace.iterdir()) == [".cache", "data", "params.yaml"]

    code, out, _ = run("data", "list")
    assert code == 0
    row = next(line for line in out.splitlines() if line.startswith("mine"))
    assert row.split()[:6] == ["mine", "image", "240", "12", "3", "folder"]
    assert row.split()[-1] == "MIT"
    counts = [int(count) for count in row.split()[7].split("/")]
    assert sum(counts) == 3

    code, out, _ = run("data", "check", "mine")
    assert "Checked mine: 0 fatal" in out
    assert code == 0

    code, out, _ = run("data", "remove", "mine", "--yes")
    assert code == 0
    assert "DVC keeps the versions recorded before" in out
    assert list((workspace / "data").iterdir()) == []
    assert sorted(path.name for path in workspace.iterdir()) == [".cache", "data", "params.yaml"]


def test_the_same_source_gives_the_same_bytes(run, workspace, pictures):
    run("data", "import", pictures, "--name", "mine")
    before = everything(workspace)
    assert run("data", "import", pictures, "--name", "mine", "--replace")[0] == 0
    assert everything(workspace) == before


def test_options_reach_the_dataset(run, workspace, tickets):
    code, _, _ = run(
        *("data", "import", tickets, "-n", "mine", "-m", "text", "--text", "body", "--label", "queue"),
        *("--split", "test", "--scope", "group", "--group", "none", "--exclude-label", "q3", "--exclude-label", "q4"),
    )
    assert code == 0
    dataset = read_dataset(workspace / "data/mine")
    assert len(dataset.classes) == 10
    assert dataset.info.meta_split == "test"
    assert dataset.info.episode_scope == "group"
    assert set(dataset.column("group")) == {"mine"}


def test_flat_recordings_by_pattern(run, workspace, write, wav):
    source = write({f"{c}_{s}_{i}.wav": wav(i + 9 * len(s)) for c in "ab" for s in ("ann", "bob") for i in range(2)})
    code, out, _ = run("data", "import", source, "-n", "mine", "--pattern", "{class}_{who}_{}", "--domain", "who")
    assert code == 0
    assert "Imported mine: 8 recordings, 2 classes, 2 domains (by who)." in out
    assert set(read_dataset(workspace / "data/mine").column("domain")) == {"ann", "bob"}


def test_what_is_left_out_and_decided_is_said(run, pictures, png):
    (pictures / "g0/c00/0.png").write_text("no picture")
    (pictures / "g0/c00/1.png").write_bytes(png(2, size=(24, 24)))  # as 2.png beside it
    (pictures / "g0/c00/3.png").write_bytes(png(100, size=(24, 24)))  # as one of another class
    code, out, _ = run("data", "import", pictures, "--name", "mine", "--skip-bad", "--drop-duplicates")
    assert code == 0
    assert "Note: left out 1 bad examples of 240, the first is" in out
    assert "Note: left out 3 duplicates, 1 of them under two labels" in out


def test_a_fatal_finding_is_said_at_once(run, workspace, tickets):
    run("data", "import", tickets, "-n", "one", "--text", "body", "--label", "queue", "--split", "train")
    code, out, _ = run("data", "import", tickets, "-n", "two", "--text", "body", "--label", "queue", "--split", "test")
    assert code == 0
    assert "one and two share 192 examples on opposite sides" in " ".join(out.split())
    assert "`quickstudy run` refuses it so. Mend the above, then: quickstudy data check two" in out
    before = everything(workspace)
    code, out, err = run("data", "check", "--json", "findings.json")
    assert code == 2
    assert err == ""
    assert "fatal" in out
    findings = json.loads((workspace / "findings.json").read_text())
    assert [(finding["severity"], finding["kind"], finding["count"]) for finding in findings] == [
        ("fatal", "leak", 192)
    ]
    (workspace / "findings.json").unlink()
    assert everything(workspace) == before


# More examples


def test_add(run, workspace, tickets, write):
    run("data", "import", tickets, "-n", "mine", "--text", "body", "--label", "queue")
    more = write({"more.csv": "body,queue\nticket 0 of 0 kinds,q0\nlate,q1\nlater,q2\n"}) / "more.csv"
    code, out, err = run("data", "add", more, "--name", "mine")
    assert (code, err) == (0, "")
    assert "Added 2 to mine, which has 194 texts now; 1 were there already." in out
    assert "quickstudy run" in out
    assert read_dataset(workspace / "data/mine").raw()[-2:] == ["late", "later"]
    assert sorted(path.name for path in workspace.iterdir()) == [".cache", "data", "params.yaml"]
    before = everything(workspace)
    code, out, _ = run("data", "add", more, "--name", "mine")
    assert code == 0
    assert out == "Nothing new: mine has all 3 of these examples. Nothing was written.\n"
    assert everything(workspace) == before


def test_take(run, workspace, tickets):
    run("data", "import", tickets, "-n", "mine", "--text", "body", "--label", "queue")
    code, out, _ = run("data", "take", "--json", "none.json")
    assert (code, out) == (0, "Nothing lies in inbox/.\n")
    assert json.loads((workspace / "none.json").read_text()) == []
    (workspace / "params.yaml").write_text((workspace / "params.yaml").read_text().replace("quiet: 5", "quiet: 0.05"))
    (workspace / "inbox/mine").mkdir(parents=True)
    (workspace / "inbox/mine/a.csv").write_text("body,queue\nticket 0 of 0 kinds,q0\nlate,q1\n")
    (workspace / "inbox/mine/b.csv").write_text("body\nlater\n")
    (workspace / "inbox/mine/c.csv.part").write_text("body,")
    code, out, err = run("data", "take", "--json", "taken.json")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "mine/a.csv taken: 1 new examples, 1 repetitions",
        "mine/b.csv set aside: inbox/mine/b.csv: no column 'queue'. It has no other",
        "mine/c.csv.part waits: c.csv.part is still being written, as its name says",
    ]
    outcomes = json.loads((workspace / "taken.json").read_text())
    assert [list(one) for one in outcomes] == [
        ["dataset", "delivery", "outcome", "examples", "repetitions", "reason"]
    ] * 3
    assert [one["outcome"] for one in outcomes] == ["taken", "rejected", "waiting"]
    assert outcomes[0]["examples"] == outcomes[0]["repetitions"] == 1


# Bad input: one line, code 2, the disk as it was


@pytest.fixture
def refused(run: Run, workspace: Path, write, tickets: Path) -> Callable[..., str]:
    """Run a command that is to be refused beside a dataset that is there, and give the one line."""
    run("data", "import", tickets, "-n", "there", "--text", "body", "--label", "queue")

    def refused(*arguments: object) -> str:
        before = everything(workspace)
        code, out, err = run("data", *arguments)
        assert everything(workspace) == before
        assert code == 2
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("quickstudy: ")
        return err.removeprefix("quickstudy: ").strip()

    return refused


def test_bad_sources(refused, write, pack, png, wav, tmp_path):
    def line(source: Path, *options: object) -> str:
        told = refused("import", source, "--name", "mine", *options)
        return told.replace(str(tmp_path), "")

    assert line(tmp_path / "no") == "/no: there is no such file or folder. Check the path"
    assert line(write({}, "empty")) == "/empty: empty. Check the path and --modality"
    text = write({"a/1.png": png(1), "b/2.png": "text\n"}, "text")
    assert line(text) == (
        "/text/b/2.png: not an image but text; known formats are PNG, JPEG, BMP, GIF, WEBP, TIFF, PPM, AVIF. "
        "It is the only bad one among 2 examples: mend them or leave them out by --skip-bad"
    )
    cut = pack({f"{c}/{i}.png": png(i) for c in "ab" for i in range(9)}, "cut.zip")
    cut.write_bytes(cut.read_bytes()[:-40])
    assert line(cut) == "/cut.zip: not a complete .zip archive (file is not a zip file). Download or pack it again"
    assert line(pack({"../../evil.png": png(1)}, "evil.zip")) == (
        "/evil.zip: member '../../evil.png' leads out of the archive. Pack the folder again with plain relative paths"
    )
    assert not list(tmp_path.parent.rglob("evil.png"))
    bomb = pack({f"a/{i}.png": bytes(60 << 20) for i in range(2)}, "bomb.zip")
    assert line(bomb) == (
        "/bomb.zip: unpacks to more than 200 times its size (at a/0.png), as archives made to fill a disk do. "
        "If you trust it, unpack it and import the folder"
    )
    table = write({"t.csv": "words,kind\na,b\n"}, "csv") / "t.csv"
    assert line(table) == "/csv/t.csv: no text column among 'words', 'kind'. Name it by --text"
    table.write_text("text,label\na,x\nb\n")
    assert line(table) == (
        "/csv/t.csv, line 3: 1 fields, the header has 2. It is the only bad one among 2 examples: "
        "mend them or leave them out by --skip-bad"
    )
    table.write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    assert line(table) == (
        "/csv/t.csv, line 2: the text is not UTF-8 (byte 0xe9); if it is in another encoding, say which by --encoding"
    )
    silent = write({"a/1.wav": wav(seconds=0), "b/1.wav": wav(1)}, "silent")
    assert line(silent).startswith("/silent/a/1.wav: a recording of zero length. It is the only bad one among 2")
    many = write({"a/1.wav": wav(1), "b/1.wav": wav(channels=8)}, "many")
    assert line(many).startswith("/many/b/1.wav: 8 channels; at most 2 (mono or stereo) are read.")
    one = write({"a/1.png": png(1), "a/2.png": png(2)}, "one")
    assert line(one).startswith("/one: all 2 examples are of the one class 'a'. A task needs two classes or more")


def test_bad_names_and_options(refused, pictures):
    assert refused("import", pictures, "--name", "../there").startswith("'../there' cannot be the name of a dataset.")
    assert refused("import", pictures, "--name", "there") == (
        "data/there: there is a dataset of this name. "
        "Choose another --name, replace it by --replace, or add to it: quickstudy data add"
    )
    assert refused("import", pictures, "--name", "mine", "--group", "2").startswith("--group: no folder level '2'.")
    assert refused("add", pictures, "--name", "../there").startswith("data: no dataset '../there'.")
    assert refused("add", pictures, "--name", "other") == "data: no dataset 'other'. There are there"
    assert "no texts" in refused("add", pictures, "--name", "there")
    assert refused("check", "other") == "data: no dataset 'other'. There are there"
    assert refused("remove", "other") == "data: no dataset 'other'. There are there"
    assert refused("build", "other").startswith("no starter dataset 'other'.")
    assert "cannot be used" in refused("check", "--json", "params.yaml/findings.json")


def test_a_wrong_source_does_not_replace(refused, write):
    table = write({"t.csv": "words,kind\na,b\n"}, "csv") / "t.csv"
    assert "no text column" in refused("import", table, "--name", "there", "--replace")


def test_outside_a_project(run, workspace, pictures):
    (workspace / "params.yaml").unlink()
    for arguments in (("import", pictures, "--name", "mine"), ("list",), ("check",), ("build",)):
        code, out, err = run("data", *arguments)
        assert (code, out) == (2, "")
        assert err == "quickstudy: params.yaml: not found. Run the command in the project's folder\n"
    assert list(workspace.iterdir()) == []


def test_nobody_to_ask(refused, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert refused("remove", "there") == "data remove there: nobody is there to ask. Confirm by --yes"


def test_asked_and_told_no(run, workspace, tickets, monkeypatch):
    run("data", "import", tickets, "-n", "there", "--text", "body", "--label", "queue")
    answers = io.StringIO("n\n")
    monkeypatch.setattr(answers, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", answers)
    before = everything(workspace)
    code, out, _ = run("data", "remove", "there")
    assert code == 0
    assert "Nothing was removed." in out
    assert everything(workspace) == before


@pytest.mark.parametrize("replace", [False, True])
def test_no_space_on_the_disk(run, workspace, pictures, tickets, monkeypatch, replace):
    name = "there" if replace else "mine"
    run("data", "import", tickets, "-n", "there", "--text", "body", "--label", "queue")
    before = everything(workspace)

    def full(table, where, **options):
        Path(where).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(where))

    monkeypatch.setattr(pq, "write_table", full)
    code, _, err = run("data", "import", pictures, "--name", name, "--replace")
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith("quickstudy: no space left on the disk")
    assert everything(workspace) == before
    monkeypatch.undo()


def test_no_space_on_the_disk_to_add(run, workspace, tickets, write, monkeypatch):
    run("data", "import", tickets, "-n", "there", "--text", "body", "--label", "queue")
    more = write({"more.csv": "body,queue\nlate,q1\n"}) / "more.csv"
    before = everything(workspace)

    def full(table, where, **options):
        Path(where).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(where))

    monkeypatch.setattr(pq, "write_table", full)
    code, _, err = run("data", "add", more, "--name", "there")
    assert code == 2
    assert err.startswith("quickstudy: no space left on the disk")
    assert everything(workspace) == before


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here, a disk without space")
def test_no_space_as_arrow_says_it(run, workspace, pictures, monkeypatch):
    """What Arrow itself raises is what the command line looks for."""
    write_table = pq.write_table

    def full(table, where, **options):
        # An open file and never the path: Arrow removes a path that it cannot finish, as root the device.
        with pa.OSFile("/dev/full", "wb") as device:
            write_table(table, device, **options)

    monkeypatch.setattr(pq, "write_table", full)
    before = everything(workspace)
    code, _, err = run("data", "import", pictures, "--name", "mine")
    assert code == 2
    assert err == "quickstudy: no space left on the disk. Free some and run the same again\n"
    assert [path for path in everything(workspace) if path not in before] == [str(workspace / "data")]


@pytest.mark.parametrize("moment", ["reading", "checking", "writing", "renaming"])
def test_ctrl_c(run, workspace, pictures, tickets, monkeypatch, moment):
    run("data", "import", tickets, "-n", "there", "--text", "body", "--label", "queue")
    before = everything(workspace)
    calls = []

    def pressed(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2 or moment in ("writing", "checking"):
            raise KeyboardInterrupt
        return original(*arguments, **options)

    where = {
        "reading": "quickstudy.ingest.importers.rows.verify",
        "checking": "quickstudy.data.fingerprints.image_vector",
        "writing": "quickstudy.data.dataset.yaml.safe_dump",
        "renaming": "quickstudy.data.dataset.os.replace",
    }[moment]
    original = dataset_module.os.replace
    if moment == "reading":
        from quickstudy.ingest.importers.rows import verify as original
    monkeypatch.setattr(where, pressed)
    code, out, err = run("data", "import", pictures, "--name", "there", "--replace")
    assert calls
    assert code == 130
    assert out == ""
    assert err == "quickstudy: stopped; the next run goes on from what was finished\n"
    monkeypatch.undo()
    assert everything(workspace) == before


# A damaged dataset beside


def test_a_damaged_dataset_is_named_and_stops_no_other(run, workspace, pictures, tickets):
    run("data", "import", pictures, "--name", "hurt")
    parquet = workspace / "data/hurt/examples.parquet"
    parquet.write_bytes(parquet.read_bytes()[:100])
    code, out, _ = run("data", "import", tickets, "-n", "mine", "--text", "body", "--label", "queue")
    assert code == 0
    assert "Note: not compared with a damaged dataset (data/hurt: cannot be read" in out
    code, out, _ = run("data", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["hurt", "mine"]
    code, out, err = run("data", "check")
    assert code == 2
    assert err.startswith("quickstudy: data/hurt: cannot be read")
    assert run("data", "remove", "hurt", "--yes")[0] == 0


# Tags


def test_tags_are_imported_listed_checked_and_added_to(run, workspace, write):
    cells = ["late", "refund", "late;refund", ""]
    lines = "".join(f"{cell or 'nothing'} {i},{cell},g{i % 3}\n" for i in range(60) for cell in cells)
    source = write({"mails.csv": "body,topics,group\n" + lines}) / "mails.csv"
    how = ("--kind", "tag", "--text", "body", "--label", "topics", "--separator", ";")
    code, out, err = run("data", "import", source, "-n", "mails", *how)
    assert (code, err) == (0, "")
    assert "Imported mails: 240 texts, 2 tags in 3 groups (by group)." in out
    info = read_dataset(workspace / "data/mails").info
    assert info.kind == "tag" and info.reading is not None and info.reading.separator == ";"

    code, out, _ = run("data", "list")
    row = next(line for line in out.splitlines() if line.startswith("mails"))
    assert code == 0
    assert row.split()[:7] == ["mails", "text,", "tag", "240", "2", "3", "group"]

    code, out, _ = run("data", "check", "mails")
    assert code == 0 and "Checked mails: 0 fatal" in out

    more = write({"more.csv": "body,topics,group\nlate 0,late,g0\nnew,refund;late,g0\n"}) / "more.csv"
    code, out, _ = run("data", "add", more, "--name", "mails")
    assert code == 0 and "Added 1 to mails, which has 241 texts now; 1 were there already." in out
    assert read_dataset(workspace / "data/mails").table["labels"].to_pylist()[-1] == ["late", "refund"]


def test_columns_of_0_and_1_by_their_names_or_a_pattern(run, workspace, write):
    lines = "".join(f"mail {i},{i % 2},{i // 2 % 2},{i}\n" for i in range(40))
    source = write({"mails.csv": "text,late,refund,size\n" + lines}) / "mails.csv"
    for name, columns in (("one", "late, refund"), ("two", "*")):
        assert run("data", "import", source, "-n", name, "--label-columns", columns)[0] == 0
    one, two = (read_dataset(workspace / "data" / name).table.select(["text", "labels"]) for name in ("one", "two"))
    assert one.equals(two) and one["labels"].to_pylist()[-1] == ["refund"]


def test_a_kind_that_the_project_does_not_learn_is_said(run, workspace, write):
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    (workspace / "params.yaml").write_text(yaml.safe_dump({**params, "kinds": {"classify": {}}}))
    lines = "".join(f"mail {i},{i % 2},{i // 2 % 2}\n" for i in range(40))
    source = write({"mails.csv": "text,late,refund\n" + lines}) / "mails.csv"
    code, out, _ = run("data", "import", source, "-n", "mails", "--label-columns", "*")
    assert code == 0
    assert "Next: add `tag: {}` under kinds in params.yaml, then `quickstudy run` trains on it too." in out


def test_a_misspelt_kind_and_options_of_another(refused, tickets):
    line = refused("import", tickets, "-n", "mine", "--text", "body", "--label", "queue", "--kind", "clasify")
    assert line == "--kind: this version knows no kind of task 'clasify'. Did you mean classify?"
    line = refused("import", tickets, "-n", "mine", "--text", "body", "--kind", "classify", "--separator", ";")
    assert line.startswith("--separator: a target of kind classify is one class, and cannot be several.")


# A kind that this version does not know


def test_a_dataset_of_an_unknown_kind_is_listed_and_refused(run, workspace, tickets, write):
    run("data", "import", tickets, "-n", "later", "--text", "body", "--label", "queue")
    about = workspace / "data/later/dataset.yaml"
    about.write_text(about.read_text().replace("kind: classify", "kind: clasify"))
    told = "data/later: this version knows no kind of task 'clasify'. Did you mean classify?"

    code, out, err = run("data", "list")
    assert (code, err) == (0, "")
    assert "later" in out and "this version knows no kind of task 'clasify'" in out

    (workspace / "inbox/later").mkdir(parents=True)
    (workspace / "inbox/later/a.csv").write_text("body,queue\nlate,q1\n")
    before = everything(workspace)
    more = write({"more.csv": "body,queue\nlate,q1\n"}) / "more.csv"
    for verb in (("check",), ("check", "later"), ("add", more, "--name", "later")):
        assert run("data", *verb) == (2, "", f"quickstudy: {told}\n")
    assert run("tasks", "--kind", "classify") == (2, "", f"quickstudy: {told}\n")
    code, out, _ = run("data", "take")
    assert (code, out) == (0, f"later/a.csv waits: {told}\n")
    assert everything(workspace) == before

    code, out, _ = run("data", "import", tickets, "-n", "mine", "--text", "body", "--label", "queue")
    assert code == 0
    assert f"Note: not compared with a damaged dataset ({told})" in out


def test_help_teaches(run):
    code, out, _ = run("data", "import", "--help")
    assert code == 0
    for example in (
        "import rec/ -n rec --pattern '{class}_{who}_{}' --domain who",
        "--text body --label queue",
        "-n beans --split test",
    ):
        assert example in out
    for verb, lesson in (
        ("add", "quickstudy data add tickets-today.csv --name tickets"),
        ("take", "cp tickets-today.csv inbox/tickets/ && quickstudy data take"),
    ):
        assert lesson in run("data", verb, "--help")[1]


def test_an_empty_project(run):
    code, out, _ = run("data", "list")
    assert code == 0
    assert "There are no datasets yet. `quickstudy data build` makes some" in out
    code, _, err = run("data", "check")
    assert code == 2
    assert err == "quickstudy: data: there are no datasets. Make some by `quickstudy data build` or `data import`\n"
