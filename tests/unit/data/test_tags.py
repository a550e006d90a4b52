"""Sources in which an example has several tags, or none: told, read alike again, checked."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from quickstudy.config import load_settings
from quickstudy.data.dataset import Dataset, DatasetInfo, Reading, make_table, read_dataset, write_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.additions import RefusedError, commit, prepare
from quickstudy.ingest.checks import check_datasets
from quickstudy.ingest.importers.options import ImportOptions
from quickstudy.ingest.importers.source import import_source, read_queries
from quickstudy.ingest.inbox import take
from quickstudy.kinds.findings import Finding
from quickstudy.kinds.tag import targets as tags
from quickstudy.tasks.splits import meta_split

ROOT, CACHE, INBOX = Path("data"), Path(".cache/checks"), Path("inbox")


def imported(source: Path, note: Callable[[str], None] = lambda line: None, **options) -> Dataset:
    return Dataset(*import_source(source, "mine", ImportOptions(**options), note=note))


def refusal(source: Path, **options) -> str:
    with pytest.raises(QuickstudyError) as caught:
        imported(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows(dataset: Dataset) -> list[tuple[str, list[str]]]:
    assert dataset.info.kind == "tag"
    return list(zip(dataset.raw(), tags.of(dataset, np.arange(len(dataset))), strict=True))


def split_of(info: DatasetInfo, group: str):
    return meta_split(info, group, load_settings().splits)


# What a source looks like


def test_a_list_in_json_lines_tells_tags(write):
    lines = [{"text": "b", "labels": ["x", "y"]}, {"text": "a", "labels": []}, {"text": "c", "labels": ["y", " y "]}]
    source = write({"t.jsonl": "".join(json.dumps(line) + "\n" for line in lines)}) / "t.jsonl"
    dataset = imported(source)
    # By tags, then by row; an example of none is one, and a tag that is there twice is there.
    assert rows(dataset) == [("a", []), ("b", ["x", "y"]), ("c", ["y"])]
    assert dataset.info.group == "dataset"
    assert tags.names(dataset) == ["x", "y"]
    assert tags.array(dataset).tolist() == [[False, False], [True, True], [False, True]]


@pytest.mark.parametrize(
    "value",
    [
        [{"text": "a", "tags": ["x"]}, {"text": "b", "tags": ["y", "x"]}],
        {"train": [["a", ["x"]]], "test": [["b", ["x", "y"]]]},
    ],
)
def test_a_list_in_json_tells_tags(write, value):
    source = write({"t.json": json.dumps(value)}) / "t.json"
    assert rows(imported(source)) == [("a", ["x"]), ("b", ["x", "y"])]


def hugging_face(feature: object, cells: list[list[int]]) -> pa.Table:
    table = pa.table({"text": [f"t{i}" for i in range(len(cells))], "labels": pa.array(cells, pa.list_(pa.int64()))})
    features = {"text": {"dtype": "string", "_type": "Value"}, "labels": feature}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@pytest.mark.parametrize(
    "shape",
    [
        lambda label: {"feature": label, "_type": "Sequence"},
        lambda label: {"feature": label, "length": -1, "_type": "List"},
        lambda label: [label],
    ],
)
def test_numbers_in_lists_are_named_by_the_schema(tmp_path, shape):
    label = {"names": ["joy", "anger", "fear"], "_type": "ClassLabel"}
    source = tmp_path / "t.parquet"
    pq.write_table(hugging_face(shape(label), [[2, 0], [], [1]]), source)
    assert rows(imported(source)) == [("t1", []), ("t2", ["anger"]), ("t0", ["fear", "joy"])]
    pq.write_table(hugging_face(shape(label), [[0], [1, 3]]), source)
    assert refusal(source).startswith(f"{source}, row 2: the labels is 3, outside the 3 names of the schema. It is")


def test_pictures_with_lists_of_names(tmp_path, png):
    cells = [{"bytes": png(i), "path": f"{i}.png"} for i in range(3)]
    source = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": cells, "objects": [["car"], ["car", "dog"], []]}), source)
    dataset = imported(source, label="objects")
    assert (dataset.modality, dataset.info.kind) == ("image", "tag")
    assert dataset.raw() == [png(2), png(0), png(1)]
    assert dataset.info.reading is not None and dataset.info.reading.label == "objects"


def test_our_own_datasets_can_be_read_back(tmp_path):
    table = make_table("text", ["a", "b", "c"], [["x"], [], ["x", "y"]], ["g", "g", "h"], ["d", "e", "d"], kind="tag")
    info = DatasetInfo(name="old", modality="text", kind="tag", domain="who")
    again = imported(write_dataset(tmp_path, info, table) / "examples.parquet")
    assert rows(again) == [("b", []), ("a", ["x"]), ("c", ["x", "y"])]
    assert again.column("group") == ["g", "g", "h"] and again.column("domain") == ["e", "d", "d"]


def test_a_separator_tells_tags(write):
    source = write({"t.csv": 'text,label\na,late; refund ;\nb,\nc,"refund;late"\nd,other\n'}) / "t.csv"
    notes: list[str] = []
    dataset = imported(source, note=notes.append, separator=";")
    assert rows(dataset) == [("b", []), ("a", ["late", "refund"]), ("c", ["late", "refund"]), ("d", ["other"])]
    assert notes == ["no groups given: the 3 tags are one, and stay on one side of the meta-split"]


def test_a_text_that_seems_several_is_told(write):
    source = write({"t.csv": "text,label\na,late; refund\nb,late\nc,x,\n"[:-5]}) / "t.csv"
    notes: list[str] = []
    assert rows(imported(source, note=notes.append, kind="tag")) == [("b", ["late"]), ("a", ["late; refund"])]
    assert notes[0] == ("'late; refund' is read as one tag. If it is several, say by --separator what is between them")


def test_a_column_for_each_tag(write):
    text = "text,late,refund,priority,group\na,1,0,7,g\nb,0,0,1,g\nc,True,false,0,h\nd,1.0,1,0,h\n"
    source = write({"t.csv": text}) / "t.csv"
    expected = [("b", []), ("a", ["late"]), ("c", ["late"]), ("d", ["late", "refund"])]
    dataset = imported(source, label_columns=("late", "refund"))
    assert rows(dataset) == expected
    assert dataset.column("group") == ["g", "g", "h", "h"]
    # All columns that hold nothing but 0 and 1: priority holds a 7.
    dataset = imported(source, label_columns=("*",))
    assert rows(dataset) == expected
    assert dataset.info.reading is not None and dataset.info.reading.label_columns == ("late", "refund")
    assert rows(imported(source, label_columns=("re*", "late"))) == expected


def test_a_pattern_means_the_same_in_every_file(write):
    one = "text,is_a,is_b,is_c\nx,1,0,0\ny,0,1,1\n"
    other = "text,is_c,is_b,is_a\nz,2,0,1\n"
    source = write({"one.csv": one, "other.csv": other})
    assert rows(imported(source, label_columns=("is_*",))) == [("x", ["is_a"]), ("z", ["is_a"]), ("y", ["is_b"])]


def test_groups_and_domains_are_no_tags(write):
    source = write({"t.csv": "text,a,b,night\nx,1,0,1\ny,0,1,0\n"}) / "t.csv"
    dataset = imported(source, label_columns=("*",), domain="night")
    assert tags.names(dataset) == ["a", "b"] and dataset.column("domain") == ["1", "0"]


def test_names_of_files_and_folders_say_tags(write, png):
    source = write({"sea+sun/1.png": png(1), "sea/2.png": png(2)})
    dataset = imported(source, separator="+")
    assert tags.of(dataset, np.arange(2)) == [["sea"], ["sea", "sun"]]
    flat = write({"sea+sun_1.png": png(1), "sun_2.png": png(2)}, "flat")
    dataset = imported(flat, kind="tag", separator="+", pattern="{class}_{}")
    assert tags.of(dataset, np.arange(2)) == [["sea", "sun"], ["sun"]]


def test_where_nothing_tells_it_is_classify(write):
    source = write({"t.csv": "text,label\na,x;y\nb,x\n"}) / "t.csv"
    assert imported(source).info.kind == "classify"
    # A column of lists beside the one that is taken tells nothing.
    lines = [{"text": "a", "label": "x", "tags": ["p"]}, {"text": "b", "label": "y", "tags": []}]
    source = write({"t.jsonl": "".join(json.dumps(line) + "\n" for line in lines)}) / "t.jsonl"
    assert imported(source).info.kind == "classify"
    assert rows(imported(source, label="tags")) == [("b", []), ("a", ["p"])]


# What is wrong with it


def test_a_kind_that_there_is_not(write):
    source = write({"t.csv": "text,label\na,x\nb,y\n"}) / "t.csv"
    assert refusal(source, kind="tags") == "--kind: this version knows no kind of task 'tags'. Did you mean tag?"
    assert refusal(source, kind="dance") == ("--kind: this version knows no kind of task 'dance'. Known: classify, tag")


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ('"y"', None),
        ("null", "the labels is missing"),
        ("3", "the labels is '3', no list of names"),
        ('{"a": 1}', "the labels is \"{'a': 1}\", no list of names"),
        ('["y", ["z"]]', "the name of a tag in labels is \"['z']\", not a single name"),
        ('["y", " "]', "the name of a tag in labels is empty"),
        ('["y", null]', "the name of a tag in labels is missing"),
    ],
)
def test_a_cell_that_holds_no_tags_is_named(write, cell, why):
    text = f'{{"text": "a", "labels": ["x", "y"]}}\n{{"text": "b", "labels": {cell}}}\n'
    source = write({"t.jsonl": text}) / "t.jsonl"
    if why is None:
        assert rows(imported(source)) == [("a", ["x", "y"]), ("b", ["y"])]
    else:
        assert refusal(source).startswith(f"{source}, line 2: {why}. It is the only bad one among 2 examples")


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("2", "the late is '2', neither 0 nor 1"),
        ("", "the late is empty"),
        ("yes", "the late is 'yes', neither 0 nor 1"),
    ],
)
def test_a_cell_that_is_neither_0_nor_1_is_named(write, cell, why):
    source = write({"t.csv": f"text,late,refund\na,1,0\nb,{cell},1\n"}) / "t.csv"
    assert refusal(source, label_columns=("late", "refund")).startswith(f"{source}, line 3: {why}. It is the only bad")


def test_columns_that_are_not_there(write):
    source = write({"t.csv": "text,late,score\na,1,7\nb,0,8\n"}) / "t.csv"
    there = "It has 'late', 'score'"
    assert refusal(source, label_columns=("late", "refund")) == f"{source}: no column 'refund'. {there}"
    assert refusal(source, label_columns=("s*",)) == f"{source}: no column of 0 and 1 fits 's*'. {there}"
    assert refusal(source, kind="tag") == f"{source}: no label column among 'late', 'score'. Name it by --label"


def test_options_that_contradict_one_another(write):
    source = write({"t.csv": "text,label,a\nx,p;q,1\ny,p,0\n"}) / "t.csv"
    assert refusal(source, kind="classify", separator=";") == (
        "--separator: a target of kind classify is one class, and cannot be several. "
        "Leave it out, or say another --kind"
    )
    assert refusal(source, kind="classify", label_columns=("a",)).startswith("--label-columns: a target of kind")
    assert refusal(source, label="label", label_columns=("a",)) == (
        "--label-columns: targets are in one column, or in a column for each name. Leave it or --label out"
    )
    assert refusal(source, separator="") == "--separator: is empty. Leave it out, or say what it is"
    assert refusal(source, separator=";", group="class") == (
        "--group class: an example of kind tag may have several tags, so that they cannot say its group. "
        "Name a column or a folder level, or say none"
    )


def test_a_single_class_and_lists_do_not_mix(write):
    source = write({"t.jsonl": '{"text": "a", "label": "x"}\n{"text": "b", "label": ["x", "y"]}\n'}) / "t.jsonl"
    assert refusal(source).startswith(f"{source}, line 2: the label is \"['x', 'y']\", not a single name. It is")


def test_tags_that_tell_nothing_apart(write):
    need = "A task needs a tag that some examples have and others have not"
    source = write({"t.csv": "text,label\na,x;y\nb,y;x\n"}) / "t.csv"
    assert refusal(source, separator=";") == f"{source}: all 2 examples have the same tags. {need}"
    source.write_text("text,label\na,\nb,\n")
    assert refusal(source, separator=";") == f"{source}: all 2 examples have no tags. {need}"


def test_leaving_tags_out(write):
    source = write({"t.csv": "text,label\na,x;y\nb,y\nc,x\n"}) / "t.csv"
    assert rows(imported(source, separator=";", exclude=("y",))) == [("b", []), ("a", ["x"]), ("c", ["x"])]
    assert refusal(source, separator=";", exclude=("z",)) == f"{source}: no tag 'z' to leave out. Check --exclude-label"


def test_dropping_duplicates_joins_their_tags(write):
    notes: list[str] = []
    source = write({"t.csv": "text,label\nsame,y\nb,x\nsame,x\nb,x\n"}) / "t.csv"
    dataset = imported(source, kind="tag", drop_duplicates=True, note=notes.append)
    assert rows(dataset) == [("b", ["x"]), ("same", ["x", "y"])]
    assert notes[:2] == [
        "left out 2 duplicates, 0 of them under two labels",
        "joined the tags of 1 examples that stand several times",
    ]


def test_tags_in_several_groups_are_told(write):
    notes: list[str] = []
    source = write({"t.csv": "text,label,who\na,x;y,ann\nb,x,bob\nc,z,bob\n"}) / "t.csv"
    imported(source, separator=";", group="who", note=notes.append)
    assert notes[0].startswith("1 of 3 tags occur in several groups, for example 'x':")


# Questions


def test_queries_with_tags_and_without(write):
    source = write({"t.jsonl": '{"text": "a", "labels": ["y", "x"]}\n{"text": "b", "labels": []}\n'}) / "t.jsonl"
    asked = read_queries(source)
    assert (asked.kind, asked.targets) == ("tag", [["x", "y"], []])
    source.write_text('{"text": "a", "labels": ["x"]}\n{"text": "b", "labels": null}\n')
    assert read_queries(source).targets is None
    table = write({"t.csv": "text,label\na,x;y\nb,x\n"}) / "t.csv"
    assert read_queries(table, ImportOptions(separator=";")).targets == [["x", "y"], ["x"]]


# More of them


def mails(first: int = 0, each: int = 12) -> str:
    lines = []
    for i in range(first, first + each):
        lines += [f"late {i},late", f"refund {i},refund", f"both {i},late;refund", f"nothing {i},"]
    return "body,topics\n" + "".join(f"{line}\n" for line in lines)


@pytest.fixture
def tagged(workspace, write) -> Path:
    source = write({"mails.csv": mails()}, "tables") / "mails.csv"
    options = ImportOptions(content="body", label="topics", separator=";")
    write_dataset(ROOT, *import_source(source, "mails", options))
    return source


def added(source: Path, name: str = "mails", **differs) -> tuple[int, int]:
    addition = prepare(ROOT, name, source, Reading(**differs), cache=CACHE)
    commit(ROOT, addition, load_settings(), split_of, cache=CACHE)
    return len(addition.new), addition.repetitions


def test_how_it_was_read_is_remembered(tagged):
    about = yaml.safe_load((ROOT / "mails/dataset.yaml").read_text())
    assert about["kind"] == "tag"
    assert {"label": "topics", "separator": ";"}.items() <= about["reading"].items()


def test_more_is_read_alike(tagged, write):
    before = rows(read_dataset(ROOT / "mails"))
    assert added(tagged) == (0, 48)
    more = write({"more.csv": "body,topics\nnew,refund;late\nnewer,\nlate 0,late\nboth 0,refund;late\n"}) / "more.csv"
    assert added(more) == (2, 2)
    assert rows(read_dataset(ROOT / "mails")) == [*before, ("newer", []), ("new", ["late", "refund"])]
    other = write({"other.csv": "body,topics\nlate 1,late;refund\n"}) / "other.csv"
    with pytest.raises(RefusedError, match="mails: 2 examples stand under unequal tags, for example 'late 1' under"):
        added(other)


def test_an_option_says_what_differs(tagged, write):
    more = write({"more.csv": "body,topics\nnew,late|refund\n"}) / "more.csv"
    assert added(more, separator="|") == (1, 0)
    flags = write({"flags.csv": "body,late,refund\nnewer,1,1\n"}) / "flags.csv"
    with pytest.raises(QuickstudyError, match="no column 'topics'"):
        added(flags)
    assert added(flags, label_columns=("late", "refund")) == (1, 0)
    assert rows(read_dataset(ROOT / "mails"))[-2:] == [("new", ["late", "refund"]), ("newer", ["late", "refund"])]


def test_columns_of_0_and_1_are_read_alike(workspace, write):
    text = "text,a,b\n" + "".join(f"{i} of {n},{n % 2},{n // 2}\n" for n in range(4) for i in range(9))
    write_dataset(ROOT, *import_source(write({"t.csv": text}) / "t.csv", "mine", ImportOptions(label_columns=("*",))))
    # A column that is by chance of 0 and 1 today is none of them.
    assert added(write({"more.csv": "text,b,a,id\nnew,1,0,1\n"}) / "more.csv", "mine") == (1, 0)
    assert rows(read_dataset(ROOT / "mine"))[-1] == ("new", ["b"])


def test_a_list_for_a_dataset_of_classes_is_refused(workspace, write):
    text = "text,label\n" + "".join(f"{c} {i},{c}\n" for c in "ab" for i in range(9))
    write_dataset(ROOT, *import_source(write({"t.csv": text}) / "t.csv", "mine"))
    more = write({"more.jsonl": '{"text": "new", "label": ["a", "b"]}\n'}) / "more.jsonl"
    with pytest.raises(QuickstudyError, match=r"line 1: the label is .*, not a single name"):
        added(more, "mine")


def test_deliveries_are_taken(tagged):
    settings = load_settings()
    settings = settings.model_copy(update={"watch": settings.watch.model_copy(update={"quiet": 0.05})})
    for name in ("mails", "news"):
        (INBOX / name).mkdir(parents=True)
    (INBOX / "mails/a.csv").write_text(mails(10, 4))
    (INBOX / "mails/b.csv").write_text("body,topics\nbad\n")
    lines = ({"text": f"{t} {i}", "labels": t.split()} for t in ("x", "y", "x y", "") for i in range(12))
    (INBOX / "news/a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    taken = take(ROOT, settings, split_of, cache=CACHE)
    assert [(one.delivery, one.outcome, one.examples, one.repetitions) for one in taken] == [
        ("a.csv", "taken", 8, 8),
        ("b.csv", "rejected", 0, 0),
        ("a.jsonl", "taken", 48, 0),
    ]
    assert taken[1].reason.startswith("inbox/mails/b.csv, line 2: 1 fields, the header has 2")
    assert len(read_dataset(ROOT / "mails")) == 56 and read_dataset(ROOT / "news").info.kind == "tag"


# Checks


def texts(*examples: tuple[str, list[str], str], name: str = "mails", **info) -> Dataset:
    contents, targets, groups = zip(*examples, strict=True)
    table = make_table("text", contents, targets, groups, kind="tag")
    return Dataset(DatasetInfo(name=name, modality="text", kind="tag", **info), table)


GOOD = [(f"{' and '.join(t)} {i} in {g}", t, g) for g in "gh" for t in (["a"], ["b"], ["a", "b"]) for i in range(12)]


def found(dataset: Dataset, **sides: str) -> list[Finding]:
    settings = load_settings(Path(__file__).parents[3] / "params.yaml")
    episodes = settings.episodes.model_copy(update={"shots": (1, 3), "query": 2, "way": 2})
    settings = settings.model_copy(update={"episodes": episodes, "kinds": {"tag": {}}})
    return check_datasets([dataset], settings, lambda info, group: sides.get(group, "train"))  # type: ignore[arg-type]


def test_nothing_is_wrong():
    assert found(texts(*GOOD), h="test") == []


def test_tags_of_too_few_examples():
    dataset = texts(*GOOD, ("c in g", ["c"], "g"), ("d 1 in g", ["d"], "g"))
    (one,) = found(dataset, h="test")
    assert (one.severity, one.kind, one.count) == ("warning", "classes", 2)
    assert one.what == (
        "2 of 4 tags have fewer than the 3 examples (1-shot with 2 queries) that an episode needs ('c' 1) and are "
        "left out (an example counts for one of its tags)"
    )


def test_no_tags_make_an_episode():
    (one,) = found(texts(*(example for example in GOOD if example[1] == ["a"])), h="test")
    assert one.severity == "fatal"
    assert one.what.startswith("no side of the meta-split has two tags with the 3 examples")
    (none,) = found(texts(*((text, [], group) for text, _, group in GOOD)))
    assert none.what.startswith("no tag has the 3 examples")


def test_what_is_found_is_what_is_drawn():
    """Of a tag, as many examples count as episodes may have of it."""
    from quickstudy.kinds.tag.episodes import pool

    dataset = texts(*GOOD, *((f"all {i}", ["a", "b", "c"], "g") for i in range(7)))
    drawn = pool(dataset, np.ones(len(dataset), dtype=bool))
    under = tags.under(dataset)
    assert dict(zip(drawn.classes, drawn.counts.tolist(), strict=True)) == dict(
        zip(tags.names(dataset), np.bincount(under).tolist(), strict=True)
    )


def test_repetitions_with_the_same_tags_and_with_others():
    again = [("a 1 in g", ["a"], "g"), ("a and b 2 in g", ["b", "a"], "g"), ("b 3 in g", ["a"], "g")]
    one, two = found(texts(*GOOD, *again), h="test")
    assert (one.severity, one.kind, one.count) == ("fatal", "labels", 2)
    assert one.what == "2 examples stand under unequal tags, for example 'b 3 in g' under 'a' and 'b'"
    assert one.fix == "Import it again with --drop-duplicates, which joins their tags"
    assert (two.severity, two.kind, two.count) == ("warning", "duplicates", 2)
    assert two.what == "2 exact repetitions with the same tags, for example of 'a 1 in g'"


def test_near_repetitions_with_the_same_tags_and_with_others():
    (one,) = found(texts(*GOOD, ("A 1, in G!", ["a"], "g"), ("B 3: in G", [], "g")), h="test")
    assert (one.severity, one.kind) == ("warning", "near")
    assert one.what.startswith(
        "4 examples nearly repeat another, 2 of them one with the same tags and 2 one with others, for example 'b 3"
    )


def test_datasets_of_two_kinds_are_compared_with_none_of_the_other():
    """No part of the model learns from both."""
    mine = texts(*GOOD, meta_split="test")
    contents, _, groups = zip(*GOOD, strict=True)
    labels = ["x" if i % 2 else "y" for i in range(len(GOOD))]
    other = Dataset(DatasetInfo(name="other", modality="text"), make_table("text", contents, labels, groups))
    settings = load_settings(Path(__file__).parents[3] / "params.yaml")
    leaks = [one for one in check_datasets([mine, other], settings, split_of) if one.kind == "leak"]
    assert leaks == []
