"""Texts that share a pass of the sentence encoder, and threads that compute side by side."""

import random
import threading
from typing import Any

import numpy as np
import pytest
import torch

from quickstudy.config import Settings
from quickstudy.encoders.text_minilm import STEP, TOKENS, MiniLM, _passes
from quickstudy.system.workers import side_by_side


def test_every_text_is_in_one_pass_in_order_and_passes_are_alike() -> None:
    drawn = random.Random(0)
    for _ in range(2000):
        lengths = [drawn.choice((drawn.randint(2, 12), drawn.randint(2, 300))) for _ in range(drawn.randint(0, 60))]
        passes = _passes(lengths)
        ends = [0, *(rows.stop for rows in passes)]
        assert [rows.start for rows in passes] == ends[:-1] and ends[-1] == len(lengths) and ends == sorted(set(ends))
        assert all(sum(lengths[rows]) <= TOKENS + max(lengths) or len(lengths[rows]) == 1 for rows in passes)
    assert [rows.stop - rows.start for rows in _passes([12] * 24)] == [12, 12]


def test_vectors_do_not_depend_on_the_number_of_threads(tiny: Settings) -> None:
    encoder, texts = MiniLM(tiny.inputs.text, 384), [f"a sentence, number {i}, of several words" for i in range(80)]
    before, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(encoder.prepare(texts))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_passes_have_few_lengths_and_what_fills_them_up_changes_no_vector(tiny: Settings) -> None:
    encoder = MiniLM(tiny.inputs.text, 384)
    tokenizer, bert = encoder._sentence_encoder
    seen: set[int] = set()

    def recorded(**given: Any) -> Any:
        seen.add(given["input_ids"].shape[1])
        return bert(**given)

    encoder.__dict__["_sentence_encoder"] = (tokenizer, recorded)
    texts = ["one", "a few words", *("word " * count for count in range(1, 40))]
    apart = np.concatenate([encoder.prepare([text]) for text in texts])
    assert len(seen) <= 5 and all(length % STEP == 0 for length in seen)
    assert np.allclose(encoder.prepare(texts), apart, atol=1e-5)


def test_each_thread_computes_alone_and_a_fault_is_told() -> None:
    before, seen = torch.get_num_threads(), set()
    both = threading.Barrier(2, timeout=30)

    def work(item: int) -> None:
        both.wait()
        seen.add((threading.get_ident(), torch.get_num_threads()))
        if item == 3:
            raise ValueError("three")

    try:
        torch.set_num_threads(2)
        side_by_side(work, [0, 1])
        assert len({thread for thread, _ in seen}) == 2 and {number for _, number in seen} == {1}
        with pytest.raises(ValueError, match="three"):
            side_by_side(work, [2, 3])
        assert torch.get_num_threads() == 2
        seen.clear()
        torch.set_num_threads(1)
        side_by_side(lambda item: seen.add((threading.get_ident(), item)), [0, 1])
        assert {thread for thread, _ in seen} == {threading.get_ident()}
    finally:
        torch.set_num_threads(before)
