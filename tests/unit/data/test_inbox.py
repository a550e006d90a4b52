"""Data that arrives: taken whole or not at all, whatever is wrong with it and whenever the process ends."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from quickstudy.config import Settings, changed, load_settings
from quickstudy.data.dataset import read_dataset, write_dataset
from quickstudy.ingest import inbox as inbox_module
from quickstudy.ingest.importers.source import import_source
from quickstudy.ingest.inbox import Outcome, take
from quickstudy.tasks.splits import meta_split

ROOT, CACHE, INBOX = Path("data"), Path(".cache/checks"), Path("inbox")
REPOSITORY = Path(__file__).parents[3]


def settings(quiet: float = 0.05) -> Settings:
    return changed(load_settings(), "watch.quiet", quiet)


def taken(quiet: float = 0.05) -> list[Outcome]:
    now = settings(quiet)
    return take(ROOT, now, lambda info, group: meta_split(info, group, now.splits), cache=CACHE)


def told(outcomes: list[Outcome]) -> list[tuple]:
    return [(one.delivery, one.outcome, one.examples, one.repetitions) for one in outcomes]


def lies() -> list[str]:
    """Everything in the inbox that is a file."""
    return sorted(path.relative_to(INBOX).as_posix() for path in INBOX.rglob("*") if path.is_file())


def lines(first: int = 0, each: int = 16, queues: int = 4) -> str:
    return "text,label\n" + "".join(f"{q} of {i},q{q}\n" for q in range(queues) for i in range(first, first + each))


@pytest.fixture
def tickets(workspace, write) -> Path:
    """A dataset of 64 texts, and its folder in the inbox."""
    source = write({"tickets.csv": lines()}) / "tickets.csv"
    write_dataset(ROOT, *import_source(source, "tickets"))
    folder = INBOX / "tickets"
    folder.mkdir(parents=True)
    return folder


# Taken


def test_deliveries_of_every_sort_are_taken(tickets, pack):
    (tickets / "a.csv").write_text(lines(16, 2))
    (tickets / "b.jsonl").write_text("".join(json.dumps({"text": f"b {i}", "label": "q1"}) + "\n" for i in range(3)))
    pack({"today/c.csv": lines(16, 3).encode()}).rename(tickets / "c.zip")
    outcomes = taken()
    assert told(outcomes) == [("a.csv", "taken", 8, 0), ("b.jsonl", "taken", 3, 0), ("c.zip", "taken", 4, 8)]
    assert {one.dataset for one in outcomes} == {"tickets"}
    assert len(read_dataset(ROOT / "tickets")) == 64 + 15
    assert lies() == [".taken/tickets/a.csv", ".taken/tickets/b.jsonl", ".taken/tickets/c.zip"]
    assert taken() == []


def test_the_same_file_again_holds_nothing_new_and_replaces_no_file(tickets):
    for times in (1, 2, 3):
        (tickets / "a.csv").write_text(lines(16, 2))
        assert told(taken()) == [("a.csv", "taken", 8 if times == 1 else 0, 0 if times == 1 else 8)]
    assert lies() == [".taken/tickets/a-2.csv", ".taken/tickets/a-3.csv", ".taken/tickets/a.csv"]
    assert len(read_dataset(ROOT / "tickets")) == 72


def test_a_new_name_is_a_new_dataset(workspace):
    (INBOX / "mails").mkdir(parents=True)
    (INBOX / "mails/first.csv").write_text(lines())
    (INBOX / "mails/second.csv").write_text(lines(10))
    assert told(taken()) == [("first.csv", "taken", 64, 0), ("second.csv", "taken", 40, 24)]
    assert len(read_dataset(ROOT / "mails")) == 104


@pytest.mark.parametrize("grouped", [False, True])
def test_folders_are_classes_or_groups(workspace, write, png, grouped):
    def folder(name: str, number: int) -> None:
        classes = ("x/", "y/") if grouped else ("",)
        pictures = {f"{c}{i}.png": png(1000 * number + 100 * n + i) for n, c in enumerate(classes) for i in range(8)}
        write(pictures, f"workspace/inbox/photos/{name}")

    (workspace / "inbox/photos").mkdir(parents=True)
    folder("cats", 1)
    if not grouped:
        assert [one.reason for one in taken()] == ["a new dataset needs two classes, and there is one so far"]
    folder("dogs", 2)
    each = 16 if grouped else 8
    assert told(taken()) == [("cats", "taken", each, 0), ("dogs", "taken", each, 0)]
    dataset = read_dataset(ROOT / "photos")
    assert dataset.classes == (["cats/x", "cats/y", "dogs/x", "dogs/y"] if grouped else ["cats", "dogs"])
    assert set(dataset.column("group")) == ({"cats", "dogs"} if grouped else {"photos"})
    # Later a class comes again, and a new one.
    folder("cats", 3)
    folder("emus", 4)
    folder("cows", 2)
    outcomes = taken()
    assert told(outcomes)[0] == ("cats", "taken", each, 0)
    assert told(outcomes)[2] == ("emus", "taken", each, 0)
    assert outcomes[1].outcome == "rejected"  # the pictures of the dogs, under another label
    assert "under two labels" in outcomes[1].reason
    assert sorted(path.name for path in (INBOX / ".taken/photos").iterdir()) == ["cats", "cats-2", "dogs", "emus"]


def test_a_day_s_folder_around_the_classes(workspace, write, png):
    write_dataset(
        ROOT, *import_source(write({f"{c}/{i}.png": png(10 * ord(c) + i) for c in "ab" for i in range(9)}), "photos")
    )
    (workspace / "inbox/photos").mkdir(parents=True)
    write({f"{c}/1.png": png(7000 + ord(c)) for c in "ab"}, "workspace/inbox/photos/monday")
    assert told(taken()) == [("monday", "taken", 2, 0)]
    assert read_dataset(ROOT / "photos").column("label")[-2:] == ["a", "b"]


def test_nothing_there_is_told_at_once_and_needs_no_heavy_package(workspace):
    code = """
import sys
from pathlib import Path
from quickstudy.config import changed, load_settings
from quickstudy.ingest.inbox import take
settings = changed(load_settings(), "watch.quiet", float(sys.argv[1]))
print(take(Path("data"), settings, None, cache=Path(".cache")))
print(sorted({"numpy", "pyarrow", "torch", "scipy"} & set(sys.modules)))
"""

    def said(quiet: float) -> list[str]:
        command = [sys.executable, "-c", code, str(quiet)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()

    for folder in (INBOX, INBOX / "tickets", INBOX / ".taken/tickets"):
        assert said(3600) == ["[]", "[]"]
        folder.mkdir(parents=True)
    (INBOX / "tickets/a.csv.part").touch()
    outcomes, heavy = said(0)
    assert "waiting" in outcomes
    assert heavy == "[]"


# Not yet


@pytest.mark.skipif(not hasattr(__import__("fcntl"), "F_SETLEASE"), reason="this system cannot tell")
def test_a_file_that_somebody_has_open_waits(tickets):
    code = "import sys; f = open(sys.argv[1], 'a'); print('open', flush=True); sys.stdin.read()"
    (tickets / "a.csv").write_text(lines(16, 2))
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tickets / "a.csv")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        outcomes = taken()
        assert told(outcomes) == [("a.csv", "waiting", 0, 0)]
        assert outcomes[0].reason == "still being written: a program has it open"
        writer.communicate()
    assert told(taken()) == [("a.csv", "taken", 8, 0)]


def test_a_file_that_grows_waits(tickets, monkeypatch):
    """Written piece by piece, and never open when it is looked at."""
    path = tickets / "a.csv"
    whole = lines(16, 2)
    path.write_text(whole[:40])

    def meanwhile(seconds: float) -> None:
        assert seconds == 7
        path.write_text(whole)

    with monkeypatch.context() as patched:
        patched.setattr(inbox_module.time, "sleep", meanwhile)
        assert [(one.outcome, one.reason) for one in taken(7)] == [("waiting", "still being written")]
    assert told(taken()) == [("a.csv", "taken", 8, 0)]


def test_what_came_during_the_wait_waits(tickets, monkeypatch):
    (tickets / "a.csv").write_text(lines(16, 2))
    monkeypatch.setattr(inbox_module.time, "sleep", lambda seconds: (tickets / "b.csv").write_text(lines(18, 2)))
    assert [(one.delivery, one.outcome) for one in taken()] == [("a.csv", "taken"), ("b.csv", "waiting")]


def test_a_change_while_it_is_read_counts_for_nothing(tickets, monkeypatch):
    path = tickets / "a.csv"
    path.write_text(lines(16, 2)[:-9])  # a line cut short
    from quickstudy.ingest import additions

    original = additions.read_more

    def reading(*arguments, **options):
        try:
            return original(*arguments, **options)
        finally:
            path.write_text(lines(16, 2))

    monkeypatch.setattr(additions, "read_more", reading)
    assert told(taken()) == [("a.csv", "waiting", 0, 0)]
    monkeypatch.setattr(additions, "read_more", original)
    assert told(taken()) == [("a.csv", "taken", 8, 0)]


def test_a_folder_that_grows_while_it_is_taken_stays(workspace, write, png, monkeypatch):
    write_dataset(
        ROOT, *import_source(write({f"{c}/{i}.png": png(10 * ord(c) + i) for c in "ab" for i in range(9)}), "photos")
    )
    (workspace / "inbox/photos").mkdir(parents=True)
    folder = write({"1.png": png(7000)}, "workspace/inbox/photos/a")
    from quickstudy.ingest import additions

    original = additions.commit

    def late(*arguments, **options):
        found = original(*arguments, **options)
        (folder / "2.png").write_bytes(png(7001))
        return found

    monkeypatch.setattr(additions, "commit", late)
    outcomes = taken()
    assert told(outcomes) == [("a", "taken", 1, 0)]
    assert outcomes[0].reason.startswith("more was written to it meanwhile")
    monkeypatch.setattr(additions, "commit", original)
    assert told(taken()) == [("a", "taken", 1, 1)]
    assert lies() == [".taken/photos/a/1.png", ".taken/photos/a/2.png"]


@pytest.mark.parametrize("name", ["a.csv.part", "a.csv.tmp", "a.csv.crdownload", "a.csv~"])
def test_unfinished_names_wait(tickets, name):
    (tickets / name).write_text(lines(16, 2))
    assert told(taken()) == [(name, "waiting", 0, 0)]
    assert lies() == [f"tickets/{name}"]


def test_hidden_files_are_nothing(tickets):
    (tickets / ".a.csv.Xy12").write_text(lines(16, 2))
    assert taken() == []


def test_a_dataset_that_cannot_be_read_is_no_fault_of_the_delivery(tickets):
    parquet = ROOT / "tickets/examples.parquet"
    parquet.write_bytes(parquet.read_bytes()[:100])
    (tickets / "a.csv").write_text(lines(16, 2))
    (outcome,) = taken()
    assert (outcome.outcome, lies()) == ("waiting", ["tickets/a.csv"])
    assert "data/tickets: cannot be read" in outcome.reason


def test_two_at_once_take_it_once(tickets):
    (tickets / "a.csv").write_text(lines(16, 2))
    found: list[list[Outcome]] = []
    both = [threading.Thread(target=lambda: found.append(taken())) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(map(told, found)) == [[], [("a.csv", "taken", 8, 0)]]
    assert len(read_dataset(ROOT / "tickets")) == 72


# Set aside


def test_bad_ones_are_set_aside_with_the_reason_and_the_others_go_on(tickets, pack, write):
    (tickets / "a-good.csv").write_text(lines(16, 2))
    (tickets / "b.csv").write_text("text,kind\nhello,q1\n")
    whole = pack({"c.csv": lines(18, 2).encode()}).read_bytes()
    (tickets / "c.zip").write_bytes(whole[: len(whole) // 2])
    pack({"../../up.csv": lines(18, 2).encode()}).rename(tickets / "d.zip")
    (tickets / "e.pdf").write_bytes(b"%PDF")
    (tickets / "f.csv").write_bytes(b"")
    (tickets / "g-good.csv").write_text(lines(18, 2))
    outcomes = taken()
    assert [one.delivery for one in outcomes if one.outcome == "taken"] == ["a-good.csv", "g-good.csv"]
    reasons = {one.delivery: one.reason for one in outcomes if one.outcome == "rejected"}
    assert list(reasons) == ["b.csv", "c.zip", "d.zip", "e.pdf", "f.csv"]
    assert reasons["b.csv"].endswith("b.csv: no column 'label'. It has 'kind'")
    assert "c.zip: not a complete .zip archive" in reasons["c.zip"]
    assert "member '../../up.csv' leads out of the archive" in reasons["d.zip"]
    for name, reason in reasons.items():
        assert (INBOX / ".rejected/tickets" / f"{name}.reason.txt").read_text() == f"{reason}\n"
    assert (INBOX / ".rejected/tickets/c.zip").read_bytes() == whole[: len(whole) // 2]
    assert list(tickets.iterdir()) == []
    assert len(read_dataset(ROOT / "tickets")) == 64 + 16
    (tickets / "b.csv").write_text("text,kind\nhello again,q1\n")
    taken()
    assert (INBOX / ".rejected/tickets/b.csv").read_text() == "text,kind\nhello,q1\n"
    assert (INBOX / ".rejected/tickets/b-2.csv").read_text() == "text,kind\nhello again,q1\n"


def test_of_folders_that_begin_a_dataset_the_bad_one_is_set_aside(workspace, write, png):
    (workspace / "inbox/photos").mkdir(parents=True)
    for number, name in enumerate(("ants", "bees", "cows")):
        write({f"{i}.png": png(100 * number + i) for i in range(8)}, f"workspace/inbox/photos/{name}")
    (INBOX / "photos/bees/3.png").write_text("no picture")
    outcomes = taken()
    assert told(outcomes) == [("ants", "taken", 8, 0), ("bees", "rejected", 0, 0), ("cows", "taken", 8, 0)]
    assert "inbox/photos/bees/3.png: not an image but text" in outcomes[1].reason
    assert len(list((INBOX / ".rejected/photos/bees").iterdir())) == 8


def test_what_would_be_fatal_begins_no_dataset(workspace):
    (INBOX / "mails").mkdir(parents=True)
    (INBOX / "mails/few.csv").write_text(lines(0, 2))
    (outcome,) = taken()
    assert outcome.outcome == "rejected"
    assert "no class has the 6 examples" in outcome.reason
    assert not (ROOT / "mails").exists()


@pytest.mark.parametrize("name", ["a..b", "Tickets", "_x", "a b"])
def test_names_that_no_dataset_may_have(workspace, name):
    (INBOX / name).mkdir(parents=True)
    (INBOX / name / "a.csv").write_text(lines())
    (outcome,) = taken()
    assert outcome.reason.startswith(f"{name!r} cannot be the name of a dataset.")
    assert lies() == [f".rejected/{name}/a.csv", f".rejected/{name}/a.csv.reason.txt"]
    assert not ROOT.exists()


def test_links_are_not_followed(tickets, tmp_path, write, png):
    secret = tmp_path / "secret.csv"
    secret.write_text(lines(16, 2))
    (tickets / "a.csv").symlink_to(secret)
    (tickets / "b").symlink_to(tmp_path)
    (INBOX / "else").symlink_to(tmp_path)
    folder = write({"1.png": png(1)}, "workspace/inbox/tickets/c")
    (folder / "2.png").symlink_to(folder / "1.png")
    outcomes = taken()
    assert [(one.delivery, one.outcome) for one in outcomes] == [
        ("else", "waiting"),
        ("a.csv", "rejected"),
        ("b", "rejected"),
        ("c", "rejected"),
    ]
    assert all("a link, which is not followed" in one.reason for one in outcomes)
    assert secret.read_text() == lines(16, 2)
    assert (INBOX / ".rejected/tickets/a.csv").is_symlink()
    assert len(read_dataset(ROOT / "tickets")) == 64


def test_where_taken_is_a_link_nothing_is_moved_through_it(tickets, tmp_path):
    (tickets / "a.csv").write_text(lines(16, 2))
    away = tmp_path / "away"
    away.mkdir()
    (INBOX / ".taken").symlink_to(away)
    taken()
    assert list(away.iterdir()) == []
    assert len(list(INBOX.rglob("a.csv"))) == 1


def test_a_pipe_is_no_file_and_stops_nothing(tickets):
    os.mkfifo(tickets / "a.csv")
    (outcome,) = taken()
    assert outcome.reason.endswith("a.csv: not a regular file")


def test_names_of_any_bytes(tickets):
    name = os.fsdecode(b"caf\xe9\n.csv")
    (tickets / name).write_text(lines(16, 2))
    (outcome,) = taken()
    assert (outcome.delivery, outcome.outcome) == ("caf\\udce9\\n.csv", "taken")
    json.dumps(outcome.__dict__, ensure_ascii=False).encode()


def test_beside_the_folders(tickets):
    (INBOX / "a.csv").write_text(lines(16, 2))
    (outcome,) = taken()
    assert (outcome.dataset, outcome.delivery, outcome.outcome) == ("", "a.csv", "waiting")
    assert "Move it to inbox/NAME/" in outcome.reason


def test_folders_deeper_than_any_reader_goes(tickets):
    deep = tickets / "/".join("d" * 1200)
    subprocess.run(["mkdir", "-p", str(deep)], check=True)
    (deep / "1.txt").write_text("hello")
    (tickets / "e.csv").write_text(lines(16, 2))
    outcomes = taken()
    subprocess.run(["rm", "-r", str(INBOX / ".rejected/tickets/d")], check=True)
    assert told(outcomes) == [("d", "rejected", 0, 0), ("e.csv", "taken", 8, 0)]


# Killed


KILLED = """
import os, signal, sys
from pathlib import Path
from quickstudy.config import changed, load_settings
from quickstudy.ingest import additions
from quickstudy.ingest.inbox import take
settings = changed(load_settings(), "watch.quiet", 0)
left = 0
def step(event, arguments):  # every file that is opened to be written, renamed or removed, and every folder made
    global left
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if left and (writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(step)
for line in sys.stdin:  # a process for each, without the seconds that the imports take
    if not (child := os.fork()):
        left = int(line)
        take(Path("data"), settings, lambda info, group: "train", cache=Path(".cache/checks"))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def killed_at(workspace):
    """Take in a process that is killed at a step, and give its exit code."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def killed_at(step: int) -> int:
            server.stdin.write(f"{step}\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        yield killed_at
        server.stdin.close()


@pytest.mark.parametrize("new", [False, True])
def test_killed_at_any_step_nothing_is_lost_or_counted_twice(tickets, killed_at, new):
    """Every change to the disk is once the last one of a process; then one that is not killed has its turn."""
    if new:
        (ROOT / "tickets").rename("away")
    started = {path: path.read_bytes() for path in ROOT.rglob("*") if path.is_file()}
    expected = {f"{q} of {i}" for q in range(4) for i in ((*range(16, 30),) if new else (*range(30),))}
    kills = 0
    while True:
        for path in [*ROOT.rglob("*"), *INBOX.rglob("*"), *Path(".cache").rglob("*")]:
            if path.is_file():
                path.unlink()
        for path, content in started.items():
            path.write_bytes(content)
        if new and (ROOT / "tickets").exists():
            (ROOT / "tickets").rmdir()
        (tickets / "a.csv").write_text(lines(16, 14))
        (tickets / "bad.csv").write_text("no columns")
        code = killed_at(kills + 1)
        if code == 0:
            break
        assert code == -9
        kills += 1
        outcomes = taken(0)
        assert all(one.outcome != "waiting" for one in outcomes)
        texts = read_dataset(ROOT / "tickets").raw()
        assert len(texts) == len(set(texts))
        assert set(texts) == expected
        left = [name for name in lies() if not name.endswith(".reason.txt")]
        assert len(left) == 2
        assert left[0].startswith(".rejected/tickets/bad")
        assert left[1] == ".taken/tickets/a.csv"
        assert (INBOX / left[0]).read_text() == "no columns"
        assert (INBOX / f"{left[0]}.reason.txt").read_text().endswith("'no columns'\n")
    assert kills > 5
