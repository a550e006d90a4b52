"""What every kind of task promises, asked of each kind in the tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quickstudy.adaptation.adapted import Task, adapt, answer, answers_of, encode, learn
from quickstudy.config import Settings
from quickstudy.data.dataset import PLACES, Dataset, DatasetInfo, make_table, read_dataset, write_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.answers import Subject, evaluate
from quickstudy.kinds.episodes import EPISODES, can_be_asked, pool_of
from quickstudy.kinds.heads import HEADS
from quickstudy.kinds.scores import SCORES
from quickstudy.kinds.shown import SHOWN
from quickstudy.kinds.targets import TARGETS, kind_of, targets_of
from quickstudy.model.metamodel import MetaModel
from quickstudy.serving.http.bodies import ExampleCreate
from quickstudy.tasks.frozen import freeze, read_episodes, write_episodes
from quickstudy.tasks.frozen import targets_of as numbers_of
from quickstudy.tasks.suites import Suite

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


# Episodes


def larger(kind: str, rows: int = 60) -> Dataset:
    """Rows enough to draw from; what a row's target is follows from its number."""
    targets = {
        "classify": [f"class {row % 6}" for row in range(rows)],
        "tag": [sorted({f"tag {row % 6}", f"tag {row // 6 % 6}"}) for row in range(rows)],
    }[kind]
    texts = [f"text {row} of {targets[row]}" for row in range(rows)]
    table = make_table("text", texts, targets, ["g"] * rows, kind=kind)
    return Dataset(DatasetInfo(name="larger", modality="text", kind=kind), table)


def frozen(kind: str, tiny: Settings, seed: int = 0) -> tuple[Dataset, list[Any]]:
    dataset = larger(kind)
    pool = pool_of(dataset, np.ones(len(dataset), dtype=bool))
    assert can_be_asked(pool)
    settings = tiny.episodes.model_copy(update={"count": 8, "shots": (2,), "query": 2, "way": 3, "ways": {}})
    return dataset, freeze(Suite("larger", "classes", pool), settings, seed)


@every_kind
def test_a_draw_depends_on_its_seed_alone_and_asks_nothing_that_it_shows(kind: str, tiny: Settings) -> None:
    _, (one,) = frozen(kind, tiny)
    _, (same,) = frozen(kind, tiny)
    _, (other,) = frozen(kind, tiny, seed=1)
    assert torch.equal(one.episodes.support, same.episodes.support)
    assert torch.equal(one.episodes.query, same.episodes.query)
    assert not torch.equal(one.episodes.support, other.episodes.support)
    for support, query in zip(one.episodes.support.flatten(1), one.episodes.query.flatten(1), strict=True):
        rows = [*support.tolist(), *query.tolist()]
        assert len(set(rows)) == len(rows)


@every_kind
def test_frozen_episodes_survive_the_disk(kind: str, tiny: Settings, tmp_path: Path) -> None:
    dataset, blocks = frozen(kind, tiny)
    write_episodes(tmp_path / "episodes.parquet", blocks)
    (again,) = read_episodes(tmp_path / "episodes.parquet", kind)
    for mine, theirs in zip(numbers_of(dataset, blocks[0]), numbers_of(dataset, again), strict=True):
        assert torch.equal(mine, theirs)


@every_kind
def test_numbers_of_an_episode_say_what_the_targets_say(kind: str, tiny: Settings) -> None:
    """By the targets themselves, whatever the numbers: rows with equal targets, as far as is asked, have equal ones."""
    dataset, (block,) = frozen(kind, tiny)
    support, _ = numbers_of(dataset, block)
    part = TARGETS[kind]
    for rows, numbers in zip(block.episodes.support.flatten(1), support, strict=True):
        by_target: dict[Any, Any] = {}
        for target, number in zip(part.of(dataset, rows.numpy()), numbers.tolist(), strict=True):
            assert by_target.setdefault(part.key(target), number) == number


# Scores


def oracle(kind: str, numbers: torch.Tensor, way: int) -> torch.Tensor:
    """Logits [B, Q, N] of who knows."""
    known = torch.nn.functional.one_hot(numbers, way) if numbers.ndim == 2 else numbers
    return 20.0 * (2 * known.float() - 1)


@every_kind
def test_an_oracle_scores_best_and_chance_scores_chance(kind: str, tiny: Settings) -> None:
    dataset, (block,) = frozen(kind, tiny)
    _, numbers = numbers_of(dataset, block)
    way = block.episodes.way
    best = SCORES[kind].judge(oracle(kind, numbers, way), numbers)
    assert best["score"] == [1.0] * 8
    generator = torch.Generator().manual_seed(0)
    scores = [
        np.mean(SCORES[kind].judge(torch.randn(8, numbers.shape[1], way, generator=generator), numbers)["score"])
        for _ in range(50)
    ]
    assert 0.2 < np.mean(scores) < 0.6  # of three
    wrong = SCORES[kind].judge(-oracle(kind, numbers, way), numbers)
    assert max(wrong["score"]) < np.mean(scores)


@every_kind
def test_answers_agree_with_themselves_alone(kind: str) -> None:
    same, _ = SCORES[kind].agreement(SOME[kind], SOME[kind])
    other, _ = SCORES[kind].agreement(SOME[kind], SOME[kind][1:] + SOME[kind][:1])
    assert same == 1.0 and other < 1.0


@every_kind
def test_the_baselines_run_and_beat_chance_where_it_is_easy(kind: str, tiny: Settings) -> None:
    dataset, (block,) = frozen(kind, tiny)
    parts = [part.numpy() for part in numbers_of(dataset, block)]
    # A feature for each name: who reads it knows the answer.
    array = TARGETS[kind].array(dataset)
    features = (np.eye(int(array.max()) + 1)[array] if array.ndim == 1 else array).astype(np.float32)
    rows = (block.episodes.support.flatten(1).numpy(), block.episodes.query.flatten(1).numpy())
    results = SCORES[kind].baselines(features, list(zip(*rows, *parts, strict=True)))
    assert set(results) == set(SCORES[kind].BASELINES)
    for found in results.values():
        assert len(found) == 8 and np.mean([score for score, _ in found]) > 0.7


# Heads


@pytest.fixture
def model(kind: str, tiny: Settings) -> MetaModel:
    torch.manual_seed(0)
    shape = tiny.model.model_copy(
        update={"learner": "ridge", "encoders": tiny.model.encoders.model_copy(update={"text": "bytes-cnn"})}
    )
    return MetaModel(tiny.inputs, shape, {"text"}, kind).eval()


@every_kind
def test_what_has_no_names_survives_naming(kind: str) -> None:
    """Numbers → targets without names → numbers."""
    _, numbers = HEADS[kind].arrange(SOME[kind])
    _, again = HEADS[kind].arrange(HEADS[kind].plain(numbers))
    assert torch.equal(numbers, again)


@every_kind
def test_a_loss_is_lower_for_who_knows(kind: str, tiny: Settings) -> None:
    dataset, (block,) = frozen(kind, tiny)
    _, numbers = numbers_of(dataset, block)
    right = oracle(kind, numbers, block.episodes.way)
    assert HEADS[kind].loss(right, numbers) < 0.01 < HEADS[kind].loss(-right, numbers)


@every_kind
def test_many_tasks_at_once_are_answered_as_each_alone(kind: str, model: MetaModel, tiny: Settings) -> None:
    dataset, (block,) = frozen(kind, tiny)
    taught, _ = numbers_of(dataset, block)
    arrays = torch.from_numpy(model.encoder("text").prepare(dataset.raw()))
    with torch.inference_mode():
        vectors = model.encode("text", arrays)
        support, query = (vectors[rows.flatten(1)] for rows in (block.episodes.support, block.episodes.query))
        way = block.episodes.way
        together = model.answer(model.learner.adapt(*model.head.pose(support, taught, way)), query)
        for place in range(len(support)):
            one = slice(place, place + 1)
            alone = model.answer(model.learner.adapt(*model.head.pose(support[one], taught[one], way)), query[one])
            assert torch.allclose(together[one], alone, atol=1e-4)
    assert together.shape == (8, query.shape[1], way)


@every_kind
def test_an_example_that_was_taught_is_answered_with_its_target(kind: str, model: MetaModel) -> None:
    texts = ["aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"]
    task = Task(kind, "text", tuple(SOME[kind]), encode(model, "text", texts), "")
    said = answer(model, adapt(model, task, 0.05), encode(model, "text", texts))
    score, _ = SCORES[kind].agreement(said.targets, SOME[kind])
    assert score > 0.7 and len(said.targets) == len(said.confidence) == 4
    assert ((said.confidence > 0.3) & (said.confidence <= 1)).all()


@every_kind
def test_a_task_in_a_file_answers_as_the_one_at_hand(kind: str, model: MetaModel, tmp_path: Path) -> None:
    texts, asked = ["aaaa", "bbbb", "cccc", "dddd"], ["aabb", "ccdd"]
    state = learn(model, "text", texts, SOME[kind], "digest", names=texts)
    (tmp_path / "task").write_bytes(state.to_bytes())
    again = type(state).read(tmp_path / "task")
    assert (again.kind, again.names, again.shots) == (kind, state.names, state.shots)
    assert again.support is not None and list(again.support.targets) == SOME[kind]
    task = Task(kind, "text", tuple(SOME[kind]), encode(model, "text", texts), "digest")
    mine, theirs = (
        answers_of(model, again, asked),
        answer(model, adapt(model, task, 0.05), encode(model, "text", asked)),
    )
    assert mine.targets == theirs.targets and np.allclose(mine.probabilities, theirs.probabilities, atol=1e-5)


@every_kind
def test_an_evaluation_names_kind_score_and_metrics(kind: str, model: MetaModel, tiny: Settings) -> None:
    dataset, blocks = frozen(kind, tiny)
    arrays = model.encoder("text").prepare(dataset.raw())
    settings = tiny.evaluate.model_copy(update={"baselines": True, "scratch_episodes": 1, "timed_episodes": 1})
    frame = evaluate(model, {"larger": Subject(dataset, arrays)}, blocks, settings, 0)
    assert set(frame["kind"]) == {kind} and frame["score"].between(0, 1).all()
    wanted = {
        "quickstudy",
        "scratch",
        *(f"{name}_{of}" for name in SCORES[kind].BASELINES for of in ("raw", "encoder")),
    }
    assert set(frame["method"]) == wanted
    assert frame[frame["method"] == "quickstudy"]["nll"].notna().all()


# The wire, and what is shown


@every_kind
def test_a_target_survives_the_body_of_a_request(kind: str) -> None:
    field = TARGETS[kind].COLUMN
    for target in SOME[kind]:
        body = ExampleCreate.model_validate_json(json.dumps({"input": "x", field: target}))
        assert body.target(kind, "examples.0") == target
    with pytest.raises(QuickstudyError, match=rf"examples\.0\.{field}: field required"):
        ExampleCreate(input="x").target(kind, "examples.0")


def test_every_table_has_every_kind() -> None:
    assert set(TARGETS) == set(EPISODES) == set(HEADS) == set(SCORES) == set(SHOWN)


def test_a_kind_that_this_version_does_not_know_is_told_with_the_closest_name() -> None:
    with pytest.raises(QuickstudyError, match=r"no kind of task 'clasify'\. Did you mean classify\?"):
        targets_of("clasify")
