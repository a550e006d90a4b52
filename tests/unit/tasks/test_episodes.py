"""Drawing episodes: what a task may hold, and that nothing is drawn more often than the rest."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from quickstudy.kinds.classify.episodes import draw
from quickstudy.kinds.drawing import MANY
from quickstudy.kinds.episodes import pool_of
from quickstudy.kinds.task import Pool


def whole(dataset) -> Pool:
    return pool_of(dataset, np.ones(len(dataset), dtype=bool))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def uneven(toys) -> Pool:
    """Classes of 3 to 12 examples: two of them too small for 4 + 3."""
    return whole(toys(classes=7, each=[3, 12, 7, 8, 6, 9, 10]))


def test_a_pool_holds_the_masked_rows_class_by_class(toys) -> None:
    dataset = toys(classes=5, each=6)
    mask = np.random.default_rng(0).random(len(dataset)) < 0.4
    mask[dataset.class_index == 2] = False
    pool = pool_of(dataset, mask)
    assert sorted(pool.rows.tolist()) == np.flatnonzero(mask).tolist()
    assert pool.classes == ("class 00", "class 01", "class 03", "class 04")
    for name, start, count in zip(pool.classes, pool.starts, pool.counts, strict=True):
        rows = pool.rows[start : start + count].numpy()
        assert {dataset.classes[i] for i in dataset.class_index[rows]} == {name}


@pytest.mark.parametrize(("way", "shot", "query"), [(2, 1, 1), (5, 1, 5), (5, 4, 3), (3, 6, 2)])
def test_classes_and_rows_of_an_episode_are_distinct(toys, way: int, shot: int, query: int) -> None:
    dataset = toys(classes=7, each=[3, 12, 7, 8, 6, 9, 10])
    episodes = draw(whole(dataset), 300, way, shot, query, seeded())
    assert episodes.support.shape == (300, way, shot) and episodes.query.shape == (300, way, query)
    both = torch.cat([episodes.support, episodes.query], dim=2)
    classes = dataset.class_index[both.numpy()]
    assert (classes == classes[:, :, :1]).all()  # a column is of one class
    for one, own in zip(classes[:, :, 0], both, strict=True):
        assert len(set(one)) == way
        assert len(set(own.flatten().tolist())) == way * (shot + query)  # so support and query share nothing
    able = np.flatnonzero(np.bincount(dataset.class_index) >= shot + query)
    assert set(classes.flatten()) <= set(able)


def test_a_class_with_just_enough_rows_gives_all_of_them(toys) -> None:
    pool = whole(toys(classes=2, each=5))
    episodes = draw(pool, 20, 2, 3, 2, seeded())
    drawn = torch.cat([episodes.support, episodes.query], dim=2).flatten(1)
    assert (drawn.sort(dim=1).values == torch.arange(10)).all()


def test_every_class_is_drawn_equally_often_however_many_rows_it_has(uneven: Pool) -> None:
    episodes = draw(uneven, 4000, 3, 4, 3, seeded())
    index = torch.empty(int(uneven.rows.max()) + 1, dtype=torch.long)
    for c, (start, count) in enumerate(zip(uneven.starts, uneven.counts, strict=True)):
        index[uneven.rows[start : start + count]] = c
    chosen = index[episodes.support[:, :, 0]]
    able = (uneven.counts >= 7).nonzero().flatten()
    for place in range(3):  # at each place, not only on the whole
        counts = torch.bincount(chosen[:, place], minlength=7)
        assert counts.sum() == counts[able].sum()
        assert chisquare(counts[able]).pvalue > 1e-3


def test_every_row_of_a_class_is_drawn_equally_often(uneven: Pool) -> None:
    episodes = draw(uneven, 4000, 4, 2, 3, seeded())
    for rows in (episodes.support[..., 0], episodes.support[..., 1], episodes.query[..., 2]):
        counts = torch.bincount(rows.flatten(), minlength=55)
        for start, count in zip(uneven.starts, uneven.counts, strict=True):
            if count >= 5:
                assert chisquare(counts[uneven.rows[start : start + count]]).pvalue > 1e-3


def test_the_generator_alone_decides(uneven: Pool) -> None:
    torch.manual_seed(1)
    one = draw(uneven, 10, 3, 2, 2, seeded(5))
    torch.manual_seed(2)
    same = draw(uneven, 10, 3, 2, 2, seeded(5))
    other = draw(uneven, 10, 3, 2, 2, seeded(6))
    assert torch.equal(one.support, same.support) and torch.equal(one.query, same.query)
    assert not torch.equal(one.support, other.support)


def test_more_classes_than_can_be_had_is_refused(uneven: Pool) -> None:
    assert uneven.largest_way(7) == 5 and uneven.largest_way(13) == 0
    with pytest.raises(ValueError, match="5 classes have 7 examples, 6 are asked for"):
        draw(uneven, 1, 6, 4, 3, seeded())


def test_few_examples_of_a_class_of_very_many_are_drawn_fairly() -> None:
    counts = torch.tensor([MANY, 6, 3 * MANY])
    starts = torch.cumsum(counts, 0) - counts
    pool = Pool(
        "classify", "big", "text", torch.arange(int(counts.sum())), starts, counts, torch.arange(3), ("a", "b", "c")
    )
    episodes = draw(pool, 3000, 3, 4, 2, seeded())
    rows = torch.cat([episodes.support, episodes.query], dim=2)  # [3000, 3, 6]
    assert all(len(set(own)) == 6 for own in rows.flatten(0, 1).tolist())
    owner = torch.searchsorted(starts, rows, right=True) - 1
    assert (owner == owner[..., :1]).all() and (owner[..., 0].sort(dim=1).values == torch.arange(3)).all()
    small = rows[owner[..., 0] == 1] - starts[1]
    assert (small.sort(dim=1).values == torch.arange(6)).all()  # all that there are
    for place in range(6):  # and each as often as another in each place
        assert chisquare(torch.bincount(small[:, place], minlength=6).numpy()).pvalue > 0.001
        tenth = (rows[owner[..., 0] == 2][:, place] - starts[2]) * 10 // counts[2]
        assert chisquare(torch.bincount(tenth, minlength=10).numpy()).pvalue > 0.001
    assert torch.equal(draw(pool, 3000, 3, 4, 2, seeded()).query, episodes.query)
