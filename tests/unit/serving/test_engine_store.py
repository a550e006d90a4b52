"""What the database holds of tasks of any kind."""

from typing import Any

import pytest

from quickstudy.serving.engine.store import Example, Kept, Store

MODEL = "m" * 64


def test_a_target_may_name_several_classes(store: Store) -> None:
    targets = [["billing", "delivery"], ["delivery", "billing"], ["billing"], [], ["late", "late"]]
    contents, packed = [b"1", b"2", b"3", b"4", b"5"], [b""] * 5
    made = store.create("ann", "n", "tag", "text", targets, contents, packed, MODEL)
    assert made.kind == "tag" and made.examples == 5
    assert list(made.classes.items()) == [("billing", 3), ("delivery", 2), ("late", 1)]
    assert store.task("ann", made.id) == made and store.tasks("ann", 10, None) == [made]
    assert store.revisions([made.id]) == {made.id: ("ann", 1, "tag", "text")}
    found = store.contents(made.id, MODEL)
    assert found is not None and found.kind == "tag"
    rows = zip(range(1, 6), targets, contents, strict=True)
    assert found.examples == tuple(Example(number, target, content) for number, target, content in rows)

    def check(kept: Kept) -> None:
        assert kept.examples == 6 and kept.classes == {"billing": 4, "delivery": 2, "late": 2}

    added = store.add("ann", made.id, [["late", "billing"]], [b"6"], [b""], MODEL, check)
    assert added is not None and added[1] == [6]
    left = store.remove("ann", made.id, 2)
    assert left is not None and left.examples == 5 and left.classes == {"billing": 3, "delivery": 1, "late": 2}


@pytest.mark.parametrize("target", [1.5, 0, {"boxes": [[0, 0, 1, 1]]}, [[1, 2], [3, 4]], None, True])
def test_a_target_that_names_no_class_is_kept_and_not_counted_as_one(store: Store, target: Any) -> None:
    made = store.create("ann", "n", "other", "image", [target, target], [b"1", b"2"], [b"", b""], MODEL)
    assert made.classes == {} and made.examples == 2 and store.task("ann", made.id) == made
    found = store.contents(made.id, MODEL)
    assert found is not None and [example.target for example in found.examples] == [target, target]


def test_a_target_that_is_no_json_leaves_nothing_behind(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.create("ann", "n", "other", "text", [float("nan")], [b"1"], [b""], MODEL)
    assert store.tasks("ann", 10, None) == []
