"""More examples for a dataset: read as it was, what is there left out, nothing half done."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from quickstudy.config import load_settings
from quickstudy.data import fingerprints
from quickstudy.data.dataset import PLACES, Dataset, DatasetInfo, Reading, read_dataset, write_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.ingest import additions
from quickstudy.ingest.additions import RefusedError, commit, prepare
from quickstudy.ingest.importers.options import ImportOptions
from quickstudy.ingest.importers.source import import_source
from quickstudy.tasks.splits import meta_split

ROOT, CACHE = Path("data"), Path(".cache/checks")


def rows(dataset: Dataset, *names: str) -> list[tuple]:
    return list(zip(dataset.raw(), *(dataset.column(name) for name in names), strict=True))


def imported(source: Path, **options) -> Dataset:
    write_dataset(ROOT, *import_source(source, "mine", ImportOptions(**options)))
    return read_dataset(ROOT / "mine")


def added(source: Path, **how) -> tuple[int, int]:
    """New examples and repetitions."""
    settings = load_settings()
    addition = prepare(ROOT, "mine", source, Reading(**how), cache=CACHE)
    commit(ROOT, addition, settings, lambda info, group: meta_split(info, group, settings.splits), cache=CACHE)
    return len(addition.new), addition.repetitions


def refusal(source: Path, **how) -> str:
    before = (ROOT / "mine/examples.parquet").read_bytes()
    with pytest.raises(QuickstudyError) as caught:
        added(source, **how)
    assert (ROOT / "mine/examples.parquet").read_bytes() == before
    return str(caught.value)


def table(queues: int = 12, first: int = 0, each: int = 16, word: str = "ticket") -> str:
    lines = (f"{word} {q} of {i} kinds,q{q},p{q % 4}\n" for q in range(queues) for i in range(first, first + each))
    return "body,queue,product\n" + "".join(lines)


@pytest.fixture
def tickets(workspace, write) -> Path:
    source = write({"tickets.csv": table()}, "tables") / "tickets.csv"
    imported(source, content="body", label="queue", group="product", exclude=["q3"])
    return source


# How it is read


def test_the_import_says_how_it_read(tickets):
    info = yaml.safe_load((ROOT / "mine/dataset.yaml").read_text())
    wanted = {"content": "body", "label": "queue", "group": "product", "exclude": ["q3"]}
    assert wanted.items() <= info["reading"].items()


def test_more_of_a_table_is_read_alike(tickets, write):
    before = rows(read_dataset(ROOT / "mine"), "label", "group")
    # The columns in another order, and in another format.
    lines = [{"product": "p2", "x": 1, "queue": q, "body": f"late {q} {i}"} for i in range(3) for q in ("q3", "q2")]
    more = write({"more.jsonl": "".join(json.dumps(line) + "\n" for line in lines)}) / "more.jsonl"
    assert added(more) == (3, 0)
    assert rows(read_dataset(ROOT / "mine"), "label", "group") == [
        *before,
        *((f"late q2 {i}", "q2", "p2") for i in range(3)),
    ]


def test_an_option_says_what_differs(tickets, write):
    more = write({"more.csv": "body,kind,product\nlate,q2,p2\n"}) / "more.csv"
    assert refusal(more).endswith("more.csv: no column 'queue'. It has 'kind', 'product'")
    assert added(more, label="kind") == (1, 0)
    other = write({"other.csv": "body,queue\nlater,q2\n"}) / "other.csv"
    assert refusal(other).endswith("other.csv: no column 'product'. It has 'queue'")


def test_usual_names_that_were_found_are_kept(workspace, write):
    source = write({"t.csv": "text,intent\n" + "".join(f"{i} {c},{c}\n" for c in "ab" for i in range(9))}) / "t.csv"
    imported(source)
    # A column that would be found first had it been there.
    more = write({"more.csv": "text,label,intent\nnew,7,a\n"}) / "more.csv"
    assert added(more) == (1, 0)
    assert rows(read_dataset(ROOT / "mine"), "label", "group")[-1] == ("new", "a", "mine")


def test_a_class_alone_and_a_new_class_are_welcome(workspace, write, png):
    imported(write({f"c{c}/{i}.png": png(100 * c + i) for c in range(10) for i in range(7)}))
    assert added(write({"c3/new.png": png(5000)}, "one")) == (1, 0)
    assert added(write({"c10/new.png": png(5001)}, "two")) == (1, 0)
    dataset = read_dataset(ROOT / "mine")
    assert dataset.info.group == "class"
    assert rows(dataset, "label", "group")[-2:] == [(png(5000), "c3", "c3"), (png(5001), "c10", "c10")]


def test_one_group_of_folders_stays_a_group(workspace, write, png):
    files = {
        f"{g}/{c}/{i}.png": png(100 * "gl".index(g[0]) + 10 * c + i)
        for g in ("greek", "latin")
        for c in (1, 2)
        for i in range(8)
    }
    imported(write(files))
    assert added(write({"greek/1/new.png": png(5000)}, "one")) == (1, 0)  # by itself it would be the class 1
    assert added(write({"today/thai/7/new.png": png(5001)}, "two")) == (1, 0)
    dataset = read_dataset(ROOT / "mine")
    assert rows(dataset, "label", "group")[-2:] == [
        (png(5000), "greek/1", "greek"),
        (png(5001), "thai/7", "thai"),
    ]
    assert "the files are in 1 folders and not in 2" in refusal(write({"8/new.png": png(5002)}, "three"))
    deep = {f"{day}/thai/{c}/new.png": png(5003 + c) for c, day in enumerate(("monday", "friday"))}
    assert "has 3 levels of folders and not 2" in refusal(write(deep, "four"))


def test_a_pattern_and_its_domain(workspace, write, wav):
    imported(
        write(
            {
                f"{c}_{s}_{i}.wav": wav(10 * i + 100 * "abxy".index(c) + len(s))
                for c in "ab"
                for s in ("ann", "li")
                for i in range(4)
            }
        ),
        pattern="{class}_{who}_{}",
        domain="who",
    )
    single = write({"a_kim_7.wav": wav(9999)}, "more") / "a_kim_7.wav"
    assert added(single) == (1, 0)
    assert rows(read_dataset(ROOT / "mine"), "label", "domain")[-1] == (wav(9999), "a", "kim")
    assert "does not fit --pattern" in refusal(write({"kim.wav": wav(9998)}, "bad"))


def test_groups_of_a_file_are_kept_and_new_classes_need_one(workspace, write, tmp_path):
    groups = tmp_path / "lines.json"
    groups.write_text(json.dumps({"one": ["q0", "q2"], "two": ["q1"]}))
    source = write({"t.csv": "text,label\n" + "".join(f"{q} {i},q{q}\n" for q in range(3) for i in range(9))})
    imported(source / "t.csv", group=str(groups))
    assert str(tmp_path) not in (ROOT / "mine/dataset.yaml").read_text()
    groups.write_text(json.dumps({"three": ["q9"], "two": ["q0", "q1", "q2"]}))
    more = write({"more.csv": "text,label\nnew,q0\nnewer,q9\n"}) / "more.csv"
    assert refusal(more).endswith("1 new classes are in no group: 'q9'. Say their groups by --group FILE.json")
    assert added(more, group=str(groups)) == (2, 0)
    # A class that is there is moved nowhere.
    assert rows(read_dataset(ROOT / "mine"), "label", "group")[-2:] == [("new", "q0", "one"), ("newer", "q9", "three")]


def test_a_dataset_without_a_record_is_read_by_its_own_columns(workspace, write, toys):
    dataset = toys(domains=2, group="alphabet")
    write_dataset(ROOT, dataset.info.model_copy(update={"name": "mine"}), dataset.table)
    assert "reading" not in (ROOT / "mine/dataset.yaml").read_text()
    more = write({"more.csv": "text,label,group,domain\nnew,class 00,group 0,domain 7\n"}) / "more.csv"
    assert added(more) == (1, 0)
    assert rows(read_dataset(ROOT / "mine"), "label", "group", "domain")[-1] == (
        "new",
        "class 00",
        "group 0",
        "domain 7",
    )
    bare = write({"bare.csv": "text,label\nnewer,class 00\n"}) / "bare.csv"
    assert refusal(bare).endswith("does not say the group (alphabet) of its examples. Name what says it by --group")
    half = write({"half.csv": "text,label,group\nnewer,class 00,group 0\n"}) / "half.csv"
    assert refusal(half).endswith("does not say the domain (voice) of its examples. Name what says it by --domain")


def test_another_modality_is_refused(tickets, write, png):
    assert "no texts" in refusal(write({"q1/1.png": png(1)}))


def test_old_descriptions_still_load():
    assert DatasetInfo(name="old", modality="text").reading is None
    assert Reading.model_validate({"label": "queue"}).exclude == ()


# What is there


def test_the_same_source_twice_writes_nothing(tickets):
    before = (ROOT / "mine/examples.parquet").stat()
    dataset = read_dataset(ROOT / "mine")
    assert added(tickets) == (0, len(dataset))
    assert (ROOT / "mine/examples.parquet").stat() == before


def test_repetitions_in_the_source_are_left_out_too(tickets, write):
    more = write({"more.csv": table(1, 0, 20) + table(1, 18, 4).split("\n", 1)[1]}) / "more.csv"
    assert added(more) == (6, 18)  # 16 are there, 2 come twice


def test_the_same_text_under_another_label_is_no_repetition(tickets, write):
    added(write({"many.csv": table(12, 16, 60)}) / "many.csv")  # beside many, two under two labels are no mistake
    more = write({"more.csv": "body,queue,product\nticket 0 of 0 kinds,q4,p0\n"}) / "more.csv"
    assert added(more) == (1, 0)
    assert added(more) == (0, 1)


def test_without_duplicates_nothing_comes_to_stand_under_two_labels(tickets, write):
    imported(tickets, content="body", label="queue", group="product", drop_duplicates=True)
    more = write({"more.csv": "body,queue,product\nticket 0 of 0 kinds,q4,p0\nnew,q4,p0\n"}) / "more.csv"
    assert added(more) == (1, 1)


def test_one_delivery_or_two_hold_the_same(tickets, write):
    base = read_dataset(ROOT / "mine")
    whole = write({"w.csv": table(2, 16, 4)}) / "w.csv"
    added(whole)
    at_once = sorted(rows(read_dataset(ROOT / "mine"), "label", "group"))
    write_dataset(ROOT, base.info, base.table)
    added(write({"a.csv": table(2, 16, 3)}) / "a.csv")
    added(write({"b.csv": table(2, 17, 3)}) / "b.csv")
    assert sorted(rows(read_dataset(ROOT / "mine"), "label", "group")) == at_once


# Checked first


def test_what_would_be_fatal_is_refused(tickets, write):
    mixed = "body,queue,product\n" + "".join(f"ticket 0 of {i} kinds,q4,p0\n" for i in range(16))
    assert "stand under two labels" in refusal(write({"more.csv": mixed}) / "more.csv")


def test_what_was_fatal_before_may_be_mended(workspace, write):
    source = write({"t.csv": "text,label\n" + "".join(f"{q} {i},q{q}\n" for q in range(2) for i in range(2))})
    imported(source / "t.csv", group="none")
    more = write({"more.csv": "text,label\n" + "".join(f"{q} {i} new,q{q}\n" for q in range(2) for i in range(2))})
    assert added(more / "more.csv") == (4, 0)  # four of a class are too few still


def test_a_leak_into_another_dataset_is_refused(tickets, write):
    text = "".join(f"other {q} of {i},q{q},x{q}\n" for q in range(4) for i in range(16))
    info, rows_of = import_source(
        write({"o.csv": "body,queue,product\n" + text}) / "o.csv",
        "other",
        ImportOptions(content="body", label="queue", group="product", split="test"),
    )
    write_dataset(ROOT, info, rows_of)
    mine = read_dataset(ROOT / "mine")
    write_dataset(ROOT, mine.info.model_copy(update={"meta_split": "train"}), mine.table)
    told = refusal(write({"more.csv": "body,queue,product\n" + text.replace(",x", ",p")}) / "more.csv")
    assert "other and mine share 48 examples on opposite sides" in told


def test_checks_read_only_the_dataset_concerned(tickets, write, toys, png, monkeypatch):
    other = toys(each=20)
    write_dataset(ROOT, other.info, other.table)
    added(write({"more.csv": table(1, 16, 2)}) / "more.csv")
    read: list[str] = []
    whole: list[str] = []

    def batches(dataset: Dataset, *size: int):
        read.append(dataset.name)
        yield from original(dataset, *size)

    def opened(folder: Path, columns=None, memory=None) -> Dataset:
        if columns is None:
            whole.append(folder.name)
        return read_dataset(folder, columns, memory)

    original = Dataset.batches
    monkeypatch.setattr(Dataset, "batches", batches)
    monkeypatch.setattr(additions, "read_dataset", opened)
    assert added(write({"more.csv": table(1, 18, 2)}) / "more.csv") == (2, 0)
    assert set(read) == {"mine"}  # the rows of the source: the old ones are remembered
    assert whole == ["mine"]  # to be written with the new ones


@pytest.mark.parametrize("modality", ["text", "image", "audio"])
def test_what_is_remembered_equals_what_is_read(workspace, write, png, wav, modality):
    def files(first: int) -> dict:
        if modality == "text":
            return {f"c{c}/{i}.txt": f"text {c} {i}" for c in range(3) for i in range(first, first + 8)}
        make = png if modality == "image" else wav
        suffix = "png" if modality == "image" else "wav"
        return {f"c{c}/{i}.{suffix}": make(100 * c + i) for c in range(3) for i in range(first, first + 8)}

    imported(write(files(0)))
    assert added(write(files(4), "more")) == (12, 12)
    dataset = read_dataset(ROOT / "mine")
    remembered = fingerprints.fingerprints(dataset, CACHE)
    fresh = fingerprints.fingerprints(dataset)
    for field in ("digests", "vectors", "plain"):
        assert np.array_equal(getattr(remembered, field), getattr(fresh, field))
    assert remembered.bad == fresh.bad
    kept = [path for path in CACHE.iterdir() if path.is_file()]
    assert len(kept) == 1  # not one for each day


def test_only_new_pictures_are_decoded(workspace, write, png, monkeypatch):
    imported(write({f"c{c}/{i}.png": png(100 * c + i) for c in range(3) for i in range(8)}))
    assert added(write({"c0/8.png": png(8)}, "first")) == (1, 0)
    decoded = []
    monkeypatch.setattr(fingerprints, "image_vector", lambda data: decoded.append(data) or np.ones(64, np.float32))
    assert added(write({"c1/8.png": png(108), "c2/3.png": png(203)}, "more")) == (1, 1)
    assert decoded == [png(108)]


def test_a_changed_file_is_read_again(tickets):
    old = read_dataset(ROOT / "mine")
    digests = read_dataset(ROOT / "mine", PLACES, CACHE).digests
    write_dataset(ROOT, old.info, old.table.slice(1))
    assert np.array_equal(read_dataset(ROOT / "mine", PLACES, CACHE).digests, digests[1:])


# Nothing half done


def test_a_dataset_that_changed_since_is_not_written(tickets, write):
    more = write({"more.csv": table(1, 16, 2)}) / "more.csv"
    addition = prepare(ROOT, "mine", more, cache=CACHE)
    old = read_dataset(ROOT / "mine")
    write_dataset(ROOT, old.info, old.table.slice(5))
    settings = load_settings()
    with pytest.raises(QuickstudyError, match="changed while it was added to"):
        commit(ROOT, addition, settings, lambda info, group: "train", cache=CACHE)
    assert len(read_dataset(ROOT / "mine")) == len(old) - 5


def test_refused_is_an_error_of_its_own(tickets, write):
    mixed = "body,queue,product\n" + "".join(f"ticket 0 of {i} kinds,q4,p0\n" for i in range(16))
    with pytest.raises(RefusedError):
        added(write({"more.csv": mixed}) / "more.csv")
