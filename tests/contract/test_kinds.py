"""What every kind of task promises, asked of each kind in the tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quickstudy.data.dataset import PLACES, Dataset, DatasetInfo, make_table, read_dataset, write_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.targets import TARGETS, kind_of, targets_of

SOME: dict[str, list[Any]] = {
    "classify": ["b", "a", "ü", "b"],
    "tag": [["b"], ["a", "b"], [], ["a", "ü"]],
}
"""Four targets of each kind, as JSON has them."""

every_kind = pytest.mark.parametrize("kind", TARGETS)


def a_dataset(kind: str) -> Dataset:
    texts = [f"text {row}" for row in range(len(SOME[kind]))]
    table = make_table("text", texts, SOME[kind], ["g"] * len(texts), kind=kind)
    return Dataset(DatasetInfo(name="some", modality="text", kind=kind), table)


# Targets


@every_kind
def test_targets_survive_the_disk(kind: str, tmp_path: Path) -> None:
    dataset = a_dataset(kind)
    folder = write_dataset(tmp_path, dataset.info, dataset.table)
    rows = np.arange(4)
    for again in (read_dataset(folder), read_dataset(folder, PLACES)):
        assert targets_of(again.info.kind).of(again, rows) == SOME[kind]
        assert targets_of(again.info.kind).of(again, rows[[2, 0]]) == [SOME[kind][2], SOME[kind][0]]


@every_kind
def test_targets_survive_json(kind: str) -> None:
    assert [TARGETS[kind].from_json(target, "here") for target in SOME[kind]] == SOME[kind]
    assert kind_of(SOME[kind]) == kind


@every_kind
def test_what_is_no_target_is_told_with_its_place(kind: str) -> None:
    for value in ({"a": 1}, None, object()):
        with pytest.raises(QuickstudyError, match=r"^row 7: "):
            TARGETS[kind].from_json(value, "row 7")
        with pytest.raises(QuickstudyError, match="the answer"):
            TARGETS[kind].read(value, "answer")


@every_kind
def test_a_cell_that_holds_a_target_is_read_as_it(kind: str) -> None:
    assert [TARGETS[kind].read(target, "answer") for target in SOME[kind]] == SOME[kind]


@every_kind
def test_names_arrays_and_codes_tell_targets_apart(kind: str) -> None:
    dataset, part = a_dataset(kind), TARGETS[kind]
    names, array, codes = part.names(dataset), part.array(dataset), part.codes(dataset)
    assert names == sorted(part.count(SOME[kind])) and len(array) == len(codes) == 4
    keys = [part.key(target) for target in SOME[kind]]
    for one in range(4):
        for other in range(4):
            equal = keys[one] == keys[other]
            assert (codes[one] == codes[other]) == equal and np.array_equal(array[one], array[other]) == equal


@every_kind
def test_rows_have_an_order_by_their_targets(kind: str) -> None:
    """Whatever order a source has: equal targets come together."""
    part = TARGETS[kind]
    forwards, backwards = (sorted(map(part.key, some)) for some in (SOME[kind], SOME[kind][::-1]))
    assert forwards == backwards


@every_kind
def test_names_that_are_left_out_are_in_no_target(kind: str) -> None:
    part = TARGETS[kind]
    left = [target for one in SOME[kind] if (target := part.without(one, ["b"])) is not None]
    assert left and set(part.count(left)) == set(part.count(SOME[kind])) - {"b"}


@every_kind
def test_too_few_targets_are_told_and_enough_are_not(kind: str) -> None:
    part = TARGETS[kind]
    assert part.too_few(SOME[kind]) is None
    for few in (SOME[kind][:1] * 3, []):
        assert part.too_few(few) is not None
