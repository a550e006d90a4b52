"""Threads for what lets go of the interpreter's lock."""

import threading

import pytest

from quickstudy.workers import WORTH_THREADS, in_threads


@pytest.mark.parametrize("count", [0, 1, WORTH_THREADS - 1, WORTH_THREADS, 101])
def test_results_come_in_order_each_once(count: int) -> None:
    asked: list[int] = []

    def square(item: int) -> int:
        asked.append(item)
        return item * item

    assert in_threads(square, range(count)) == [item * item for item in range(count)]
    assert sorted(asked) == list(range(count))


def test_few_items_stay_where_they_are_and_many_do_not() -> None:
    here = threading.get_ident()
    assert {here} == set(in_threads(lambda _: threading.get_ident(), range(WORTH_THREADS - 1)))
    assert here not in in_threads(lambda _: threading.get_ident(), range(WORTH_THREADS))


def test_of_several_errors_the_first_item_has_its_own_raised() -> None:
    def fail(item: int) -> int:
        if item % 10 == 3:
            raise ValueError(f"item {item}")
        return item

    with pytest.raises(ValueError, match=r"^item 3$"):
        in_threads(fail, range(100))
    assert in_threads(str, range(20)) == [str(item) for item in range(20)]  # and it goes on
