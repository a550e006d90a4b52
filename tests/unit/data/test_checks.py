"""Findings: each thing that may be wrong with data is found, at its severity, and nothing else is."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from quickstudy.config import load_settings
from quickstudy.data.dataset import Dataset, DatasetInfo, make_table
from quickstudy.ingest.checks import check_datasets

SETTINGS = load_settings(Path(__file__).parents[3] / "params.yaml").model_copy()
SETTINGS = SETTINGS.model_copy(
    update={"episodes": SETTINGS.episodes.model_copy(update={"shots": (1, 3), "query": 2, "way": 2})}
)
# An episode needs 3 examples a class; with 5, a class is in all. Two classes are tested, and that is their way here.


def texts(name: str, *rows: tuple[str, str, str], **info) -> Dataset:
    """A dataset of (text, label, group)."""
    contents, labels, groups = zip(*rows, strict=True)
    return Dataset(DatasetInfo(name=name, modality="text", **info), make_table("text", contents, labels, groups))


def good(name: str = "good", classes: int = 6, each: int = 5, **info) -> Dataset:
    rows = [(f"{name} {c} number {i}", f"c{c}", f"g{c}") for c in range(classes) for i in range(each)]
    return texts(name, *rows, **info)


def by_group(**sides: str):
    """Groups named here are on that side, all others in meta-train; a pinned dataset where it is pinned."""

    def split_of(info, group):
        return info.meta_split or sides.get(group, "train")

    return split_of


EVEN = by_group(g0="test", g1="test", g2="validation")


def found(datasets, split_of=EVEN, way: int = 2) -> list[tuple[str, str, str]]:
    settings = SETTINGS.model_copy(update={"episodes": SETTINGS.episodes.model_copy(update={"way": way})})
    findings = check_datasets(datasets, settings, split_of)
    assert len(json.loads(json.dumps([asdict(finding) for finding in findings]))) == len(findings)
    assert all(finding.fix and "\n" not in finding.what + finding.fix for finding in findings)
    return [(finding.severity, finding.kind, finding.what) for finding in findings]


def test_nothing_is_wrong():
    assert found([good()]) == []


def with_rows(dataset: Dataset, *rows: tuple[str, str, str], **info) -> Dataset:
    old = zip(dataset.raw(), dataset.column("label"), dataset.column("group"), strict=True)
    return texts(dataset.name, *old, *rows, **{"meta_split": dataset.info.meta_split, **info})


# Sizes


def test_no_class_is_large_enough():
    ((severity, kind, what),) = found([good(each=2)])
    assert (severity, kind) == ("fatal", "classes")
    assert what == "no class has the 3 examples (1-shot with 2 queries) that an episode needs"


def test_one_class_on_each_side_makes_no_episode():
    sides = by_group(g0="test", g1="validation", g2="train")
    ((severity, _, what),) = found([good(classes=3)], sides)
    assert severity == "fatal"
    assert what.startswith("no side of the meta-split has two classes with the 3 examples")


def test_some_classes_are_too_small():
    dataset = with_rows(good(), ("tiny a", "tiny", "g9"), *((f"mid {i} x", "mid", "g9") for i in range(4)))
    assert found([dataset]) == [
        (
            "warning",
            "classes",
            "1 of 8 classes have fewer than the 3 examples (1-shot with 2 queries) that an episode needs ('tiny' 1) "
            "and are left out",
        ),
        ("warning", "classes", "1 of 8 classes have fewer than 5 examples and are left out of 3-shot episodes"),
    ]


def test_a_group_must_make_an_episode_where_episodes_stay_in_one():
    ((severity, _, what),) = found([good(episode_scope="group")])
    assert severity == "fatal"
    assert what.startswith("no group has two classes with the 3 examples")
    rows = [(f"{g} {c} {i} x", f"{g}{c}", g) for g in ("g0", "g3") for c in range(2) for i in range(5)]
    assert found([texts("two", *rows, episode_scope="group")]) == []


def test_nothing_is_tested():
    ((severity, _, what),) = found([good()], by_group(g0="test"))
    assert severity == "warning"
    assert what == "only one class on the meta-test side has examples enough for an episode; nothing of it is tested"
    ((severity, _, what),) = found([good()], by_group())
    assert what.startswith("no class on the meta-test side")
    # A dataset of one group is whole on one side, and that is said elsewhere.
    rows = [(f"x {c} {i}", f"c{c}", "all") for c in range(3) for i in range(5)]
    assert found([texts("one", *rows)], by_group()) == []


def test_fewer_classes_are_tested_than_asked_for():
    ((severity, kind, what),) = found([good()], by_group(g0="test", g1="test", g2="test"), way=4)
    assert (severity, kind) == ("warning", "classes")
    assert what == "3 classes on the meta-test side have examples enough; its episodes are 3-way, not 4-way"
    assert [kind for _, kind, _ in found([good(classes=3, meta_split="test")], way=4)] == ["classes"]
    assert found([good(classes=3, meta_split="train")], way=4) == []


def test_sizes_are_judged_without_sides_too():
    assert found([good()], None) == []
    ((severity, _, _),) = found([good(each=2)], None)
    assert severity == "fatal"


# Unreadable


def test_empty_texts_and_files_that_are_no_pictures(png):
    dataset = with_rows(good(), (" \n", "c0", "g0"), ("", "c1", "g1"))
    assert ("fatal", "unreadable", "2 unreadable examples, the first is ' \\n': empty") in found([dataset])
    contents = [png(i) for i in range(10)] + [b"hello", png(0)[:60]]
    labels = ["a", "b"] * 6
    table = make_table("image", contents, labels, ["g"] * 12, paths=[f"{i}.png" for i in range(12)])
    ((severity, kind, what),) = found([Dataset(DatasetInfo(name="pictures", modality="image"), table)])
    assert (severity, kind) == ("fatal", "unreadable")
    assert what.startswith("2 unreadable examples, the first is 10.png: not an image but text;")


def test_a_dataset_of_nothing():
    empty = Dataset(DatasetInfo(name="empty", modality="text"), make_table("text", [], [], []))
    assert found([empty]) == [("fatal", "classes", "holds no examples")]


# Duplicates


def test_repetitions_within_a_class():
    dataset = with_rows(good(), ("good 0 number 1", "c0", "g0"), ("good 0 number 1", "c0", "g0"))
    assert found([dataset]) == [
        ("warning", "duplicates", "2 exact repetitions within a class, for example of 'good 0 number 1'")
    ]


@pytest.mark.parametrize(("size", "severity"), [(300, "warning"), (150, "fatal")])
def test_one_example_under_two_labels(size, severity):
    dataset = with_rows(good(classes=size // 5), ("good 3 number 1", "c4", "g4"))
    findings = found([dataset])
    assert findings == [
        (severity, "labels", "2 examples stand under two labels, for example 'good 3 number 1' under 'c3' and 'c4'")
    ]


def test_near_texts_within_and_across_classes():
    dataset = with_rows(good(), ("Good 3, number 1!", "c3", "g3"), ("GOOD 4 number 2", "c5", "g5"))
    assert found([dataset]) == [
        (
            "warning",
            "near",
            "4 examples nearly repeat another, 2 of them one of their own class and 2 one of another, "
            "for example 'good 4 number 2' and 'GOOD 4 number 2'",
        )
    ]


def test_near_pictures(png):
    contents = [png(i, size=(64, 64)) for i in range(10)] + [png(3, size=(64, 64), form="JPEG")]
    table = make_table("image", contents, ["a", "b"] * 5 + ["b"], ["g"] * 11)
    dataset = Dataset(DatasetInfo(name="pictures", modality="image"), table)
    ((severity, kind, what),) = found([dataset])
    assert (severity, kind) == ("warning", "near")
    assert what.endswith("2 of them one of their own class and 0 one of another, for example row 4 and row 11")


# Sides


def test_one_example_on_both_sides_of_a_dataset():
    dataset = with_rows(good(classes=60), ("good 3 number 1", "c0", "g0"))  # g3 is learned, g0 is tested
    severities = {(severity, kind) for severity, kind, _ in found([dataset])}
    assert severities == {("warning", "labels"), ("fatal", "leak")}
    leak = next(what for _, kind, what in found([dataset]) if kind == "leak")
    assert leak == (
        "1 example the same in meta-train and meta-test, for example 'good 3 number 1' in the groups 'g0' and 'g3'"
    )
    validation = with_rows(good(classes=60), ("good 3 number 1", "c2", "g2"))
    assert {(severity, kind) for severity, kind, _ in found([validation])} == {
        ("warning", "labels"),
        ("warning", "leak"),
    }


def test_a_near_example_on_both_sides_is_told():
    dataset = with_rows(good(classes=60), ("Good 3 number 1.", "c0", "g0"))
    leaks = [(severity, what) for severity, kind, what in found([dataset]) if kind == "leak"]
    assert leaks[0][0] == "warning"
    assert leaks[0][1].startswith("1 example nearly the same in meta-train and meta-test")


def test_datasets_that_share_examples():
    one = good("one")
    shared = [(text, "c0", "g0") for text in one.raw(slice(15, 18))]  # of g3, learned
    other = with_rows(good("other", meta_split="test"), *shared)
    ((severity, kind, what),) = found([one, other])
    assert (severity, kind) == ("fatal", "leak")
    assert what == (
        "one and other share 3 examples on opposite sides of the meta-split (train and test), "
        "for example 'one 3 number 0'"
    )
    (finding,) = check_datasets([one, other], SETTINGS, EVEN)
    assert finding.count == 3
    assert finding.fix == (
        "Say `meta_split: test` in data/one/dataset.yaml, or remove one: `quickstudy data remove other`"
    )
    # What it says mends it.
    mended = Dataset(one.info.model_copy(update={"meta_split": "test"}), one.table)
    assert found([mended, other]) == []


@pytest.mark.parametrize(("each", "severity"), [(2000, "warning"), (200, "fatal")])
def test_a_sentence_that_coincides_stops_nothing(each, severity):
    """1 of 4,000 examples that are tested, or 1 of 400; between datasets and within one."""
    one, other = good("one"), with_rows(good("other", each=each), ("one 3 number 0", "c0", "g0"))
    assert [(s, kind) for s, kind, _ in found([one, other])] == [(severity, "leak")]
    alone = with_rows(good(each=each), ("good 3 number 1", "c0", "g0"))
    assert [s for s, kind, _ in found([alone]) if kind == "leak"] == [severity]


def test_how_to_mend_where_neither_is_pinned():
    one, other = good("one"), with_rows(good("other"), ("one 3 number 0", "c0", "g0"))
    (finding,) = check_datasets([one, other], SETTINGS, EVEN)
    assert finding.fix.startswith(
        "Say the same `meta_split: train` in data/one/dataset.yaml and data/other/dataset.yaml, or remove one:"
    )


def test_what_is_shared_on_one_side_is_no_leak():
    one = good("one")
    other = with_rows(good("other"), ("one 3 number 0", "c4", "g4"))
    assert found([one, other]) == []


def test_sharing_with_meta_validation_is_told():
    one = good("one")
    other = with_rows(good("other"), ("one 3 number 0", "c2", "g2"))
    ((severity, _, what),) = found([one, other])
    assert severity == "warning"
    assert "(train and validation)" in what


def test_sharing_nearly():
    one = good("one")
    other = with_rows(good("other"), ("One 3: number 0", "c0", "g0"))
    ((severity, kind, what),) = found([one, other])
    assert (severity, kind) == ("warning", "leak")
    assert what.startswith("one and other nearly share 1 example on opposite sides")


def test_a_picture_saved_anew_in_another_dataset(png):
    def pictures(name: str, first: int, form: str, side: str) -> Dataset:
        contents = [png(first + i, size=(64, 64), form=form) for i in range(10)]
        info = DatasetInfo(name=name, modality="image", meta_split=side)
        return Dataset(info, make_table("image", contents, ["a", "b"] * 5, ["g"] * 10))

    one, other = pictures("one", 0, "PNG", "train"), pictures("other", 7, "JPEG", "test")
    ((severity, kind, what),) = found([one, other])
    assert (severity, kind) == ("warning", "leak")
    assert what.startswith("one and other nearly share 3 examples on opposite sides of the meta-split (train and test)")
    assert found([one, pictures("far", 50, "JPEG", "test")]) == []


def test_without_sides_sharing_is_a_warning():
    one, other = good("one"), with_rows(good("other"), ("one 3 number 0", "c0", "g0"))
    ((severity, _, what),) = found([one, other], None)
    assert severity == "warning"
    assert what.startswith("one and other share 1 example")


def test_only_one_dataset():
    one, other = good("one", each=2), with_rows(good("other"), ("one 3 number 0", "c0", "g0"))
    third = good("third", each=2)
    assert {finding.dataset for finding in check_datasets([one, other, third], SETTINGS, EVEN)} == {
        "one",
        "other",
        "third",
    }
    findings = check_datasets([one, other, third], SETTINGS, EVEN, only="other")
    assert [(finding.dataset, finding.kind) for finding in findings] == [("other", "leak")]


def test_fatal_ones_come_first():
    dataset = with_rows(good(), ("", "c0", "g0"), ("tiny", "tiny", "g4"))
    assert [severity for severity, _, _ in found([dataset])] == ["fatal", "warning"]


def test_progress_is_told(png):
    table = make_table("image", [png(i) for i in range(10)], ["a", "b"] * 5, ["g"] * 10)
    told = []
    pictures = Dataset(DatasetInfo(name="pictures", modality="image"), table)
    check_datasets([pictures], SETTINGS, EVEN, progress=lambda *what: told.append(what))
    assert told == [("pictures", 10, 10)]
