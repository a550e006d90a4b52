"""Frozen episodes: the same for every model, whatever lies beside them."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from quickstudy.config import Episodes
from quickstudy.kinds.episodes import pool_of
from quickstudy.tasks import frozen as frozen_module
from quickstudy.tasks.frozen import FrozenEpisodes, freeze, read_episodes, write_episodes
from quickstudy.tasks.suites import Suite

SETTINGS = Episodes(count=70, shots=(1, 3), query=2, way=4, ways={"narrow": 2})


def suite(dataset, name: str | None = None) -> Suite:
    return Suite(name or dataset.name, "classes", pool_of(dataset, np.ones(len(dataset), dtype=bool)))


def same(a: FrozenEpisodes, b: FrozenEpisodes) -> bool:
    about = [
        (x.kind, x.suite, x.dataset, x.modality, x.novelty, x.count, x.episodes.way, x.episodes.shot) for x in (a, b)
    ]
    return about[0] == about[1] and all(
        torch.equal(getattr(a.episodes, part), getattr(b.episodes, part)) for part in ("support", "query")
    )


def test_there_are_as_many_as_asked_for_of_each_shot(toys) -> None:
    blocks = freeze(suite(toys()), SETTINGS, 0)
    assert [(b.count, b.episodes.way, b.episodes.shot, b.episodes.query.shape[2]) for b in blocks] == [
        (70, 4, 1, 2),
        (70, 4, 3, 2),
    ]
    everything = torch.cat([blocks[0].episodes.support, blocks[0].episodes.query], dim=2).flatten(1)
    assert len(torch.unique(everything, dim=0)) == 70  # the blocks they are drawn in do not repeat


def test_the_way_follows_the_dataset_and_what_it_holds(toys) -> None:
    assert [b.episodes.way for b in freeze(suite(toys(name="narrow")), SETTINGS, 0)] == [2, 2]
    assert [b.episodes.way for b in freeze(suite(toys(classes=3)), SETTINGS, 0)] == [3, 3]
    # three classes of four have the five examples that 3 shots need; then only one has: no episodes of 3 shots
    assert [b.episodes.way for b in freeze(suite(toys(classes=4, each=[3, 5, 5, 5])), SETTINGS, 0)] == [4, 3]
    assert [b.episodes.shot for b in freeze(suite(toys(classes=4, each=[3, 4, 4, 5])), SETTINGS, 0)] == [1]


def test_a_suite_depends_on_its_seed_and_name_alone(toys) -> None:
    ours = freeze(suite(toys()), SETTINGS, 3)
    torch.manual_seed(9)
    freeze(suite(toys(classes=9)), SETTINGS, 3)
    assert all(map(same, ours, freeze(suite(toys()), SETTINGS, 3)))
    one_shot = freeze(suite(toys()), SETTINGS.model_copy(update={"shots": (3,)}), 3)
    assert same(ours[1], one_shot[0])  # another shot beside it changes nothing either
    assert not torch.equal(ours[0].episodes.support, freeze(suite(toys()), SETTINGS, 4)[0].episodes.support)
    assert not torch.equal(ours[0].episodes.support, freeze(suite(toys(), "b"), SETTINGS, 3)[0].episodes.support)


def test_round_trip(toys, tmp_path: Path) -> None:
    blocks = [
        *freeze(suite(toys(classes=9)), SETTINGS, 0),
        *freeze(Suite("a@new-voice", "domain", suite(toys(name="a")).pool), SETTINGS, 0),
    ]
    write_episodes(tmp_path / "episodes.parquet", blocks)
    back = read_episodes(tmp_path / "episodes.parquet", "classify")
    assert len(back) == len(blocks) == 4 and all(map(same, blocks, back))
    assert pq.read_metadata(tmp_path / "episodes.parquet").num_rows == 280


def test_the_file_is_the_same_bytes_each_time(toys, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_episodes(tmp_path / name, freeze(suite(toys()), SETTINGS, 0))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("count", [2, 49, 50, 51, 100])
def test_counts_around_the_size_of_a_block(toys, count: int) -> None:
    assert frozen_module.BLOCK == 50  # what the counts above are about
    blocks = freeze(suite(toys()), SETTINGS.model_copy(update={"count": count}), 0)
    assert [block.count for block in blocks] == [count, count]
