"""Meta-splits: nothing that a model was trained on may reach its test."""

import numpy as np
import pytest

from quickstudy.config import Splits
from quickstudy.data.dataset import Dataset, DatasetInfo, make_table
from quickstudy.tasks.splits import domain_is_held_out, meta_split, row_splits
from quickstudy.tasks.suites import test_suites as suites_of
from quickstudy.tasks.suites import training_pools

INFO = DatasetInfo(name="words", modality="audio", domain="voice")


def keyed(key: str) -> Splits:
    return Splits(key=key, validation=0.2, test=0.3)


def test_the_draw_never_changes() -> None:
    # u = 0.240, 0.653, 0.393, 0.056 by hand. Where this fails, every champion so far was trained on its own new test.
    splits = Splits(key="quickstudy", validation=0.15, test=0.25)
    sides = [meta_split(INFO, group, splits) for group in ("apple", "zebra", "ähre", "7")]
    assert sides == ["test", "train", "validation", "test"]
    shares = [Splits(key="quickstudy", validation=0.1, test=test) for test in (0.2395, 0.2396)]
    assert [meta_split(INFO, "apple", at) for at in shares] == ["validation", "test"]
    held = [voice for voice in "abcdefghij" if domain_is_held_out(INFO, voice, splits)]
    assert held == ["b", "c", "e", "g"]


def test_new_groups_and_new_examples_move_no_old_group(toys) -> None:
    old = toys(classes=40, groups=40, each=2, domains=2)
    new = toys(classes=90, groups=90, each=5, domains=5)
    moved = 0
    for number in range(20):
        before = dict(zip(old.column("group"), row_splits(old, keyed(f"k{number}"))[0], strict=True))
        after = dict(zip(new.column("group"), row_splits(new, keyed(f"k{number}"))[0], strict=True))
        assert len(after) == 90 and len(set(after.values())) == 3
        moved += sum(after[group] != side for group, side in before.items())
        voices = dict(zip(old.column("domain"), row_splits(old, keyed(f"k{number}"))[1], strict=True))
        later = dict(zip(new.column("domain"), row_splits(new, keyed(f"k{number}"))[1], strict=True))
        moved += sum(later[voice] != out for voice, out in voices.items())
    assert moved == 0


def test_each_side_gets_its_share() -> None:
    sides = [meta_split(INFO, f"g{i}", keyed("k")) for i in range(5000)]
    assert sides.count("test") / 5000 == pytest.approx(0.3, abs=0.02)  # three standard deviations
    assert sides.count("validation") / 5000 == pytest.approx(0.2, abs=0.02)
    held = [domain_is_held_out(INFO, f"v{i}", keyed("k")) for i in range(5000)]
    assert np.mean(held) == pytest.approx(0.3, abs=0.02)


def test_key_dataset_and_kind_of_name_draw_independently() -> None:
    names = [f"n{i}" for i in range(400)]
    one = [meta_split(INFO, name, keyed("a")) for name in names]
    assert one != [meta_split(INFO, name, keyed("b")) for name in names]
    assert one != [meta_split(INFO.model_copy(update={"name": "other"}), name, keyed("a")) for name in names]
    voices = [domain_is_held_out(INFO, name, keyed("a")) for name in names]
    assert voices != [side == "test" for side in one]


def test_a_dataset_may_pin_its_groups() -> None:
    pinned = INFO.model_copy(update={"meta_split": {"g0": "test", "g1": "validation"}})
    assert meta_split(pinned, "g0", keyed("k")) == "test" and meta_split(pinned, "g1", keyed("k")) == "validation"
    others = [f"g{i}" for i in range(2, 100)]
    assert [meta_split(pinned, g, keyed("k")) for g in others] == [meta_split(INFO, g, keyed("k")) for g in others]
    whole = INFO.model_copy(update={"meta_split": "validation"})
    assert {meta_split(whole, g, keyed("k")) for g in others} == {"validation"}


def test_a_dataset_that_is_wholly_meta_test_has_no_domain_held_out(toys) -> None:
    dataset = toys(domains=4, meta_split="test")
    side, held_out = row_splits(dataset, keyed("k"))
    assert set(side) == {"test"} and not held_out.any()
    (suite,) = suites_of(dataset, keyed("k"))
    assert (suite.name, suite.novelty, len(suite.pool.rows)) == ("toys", "dataset", len(dataset))


@pytest.mark.parametrize("scope", ["dataset", "group"])
def test_no_tested_group_and_no_held_out_domain_is_ever_trained_on(scope: str) -> None:
    random = np.random.default_rng(0)
    n = 600
    labels = random.integers(0, 60, n)
    table = make_table(
        "text",
        [f"t{i}" for i in range(n)],
        [f"c{c}" for c in labels],
        [f"g{c % 20}" for c in labels],
        [f"v{v}" for v in random.integers(0, 6, n)],
    )
    info = DatasetInfo(name="d", modality="text", domain="voice", episode_scope=scope)  # type: ignore[arg-type]
    dataset = Dataset(info, table)
    groups, domains = np.array(dataset.column("group")), np.array(dataset.column("domain"))
    kinds = set()
    for number in range(60):
        splits = keyed(f"key {number}")
        learned = {
            split: np.concatenate([pool.rows.numpy() for pool in training_pools(dataset, splits, split)] or [[]])
            for split in ("train", "validation")
        }
        learned = {split: rows.astype(int) for split, rows in learned.items()}
        suites = suites_of(dataset, splits)
        tested = [suite.pool.rows.numpy() for suite in suites]
        sets = [set(groups[learned["train"]]), set(groups[learned["validation"]])]
        sets.append({group for rows in tested for group in groups[rows]})
        assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
        heard = set(domains[learned["train"]]) | set(domains[learned["validation"]])
        for suite, rows in zip(suites, tested, strict=True):
            kinds.add(suite.novelty)
            assert ("@new-voice" in suite.name) == (suite.novelty == "domain")
            if suite.novelty == "domain":
                assert not heard & set(domains[rows])
            elif heard:
                assert {domain for domain in domains[rows] if domain_is_held_out(info, domain, splits)} == set()
            if scope == "group":
                assert len(set(groups[rows])) == 1
        assert not any(domain_is_held_out(info, domain, splits) for domain in heard)
    assert {"classes", "domain"} <= kinds  # the draws did produce what is tested here
