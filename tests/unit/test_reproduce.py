"""When a rebuilt model whose weights differ counts as the same: real models answer real episodes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy.config import Episodes, Reproduce, Settings
from quickstudy.data.dataset import write_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.answers import Subject, evaluate
from quickstudy.kinds.episodes import pool_of
from quickstudy.lineage.reproduction import Gap, _equivalent, compare
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model
from quickstudy.stats.intervals import mean_interval
from quickstudy.tasks.frozen import freeze, write_episodes
from quickstudy.tasks.suites import Suite

POLICY = Reproduce(bound=0.02, dataset_bound=0.05, episodes=40)


@pytest.fixture
def model(tiny: Settings) -> MetaModel:
    torch.manual_seed(0)
    return MetaModel(tiny.inputs, tiny.model, {"image", "audio"}).eval()


@pytest.fixture
def project(toys, model: MetaModel, tmp_path: Path) -> Path:
    """A rebuilt worktree: two datasets, their frozen episodes, and a model."""
    blocks = []
    for dataset in (
        toys("image", classes=7, each=8, name="pictures"),
        toys("audio", classes=4, each=6, name="sounds"),
    ):
        write_dataset(tmp_path / "data", dataset.info, dataset.table)
        pool = pool_of(dataset, np.ones(len(dataset), dtype=bool))
        suite = Suite(dataset.name, "classes", pool)
        blocks += freeze(suite, Episodes(count=60, shots=(1, 3), query=3, way=4, ways={}), 3)
    (tmp_path / "build/tasks/classify").mkdir(parents=True)
    write_episodes(tmp_path / "build/tasks/classify/episodes.parquet", blocks)
    save_model(model, tmp_path / "build/model", {})
    return tmp_path


def changed(model: MetaModel, folder: Path, by: float) -> Path:
    """The model with noise on its weights, saved."""
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(by * torch.randn(weights.shape, generator=noise))
    save_model(model, folder, {})
    return folder


def test_other_bits_that_answer_alike_are_equivalent(project: Path, model: MetaModel, tmp_path: Path) -> None:
    registered = changed(model, tmp_path / "registered", by=1e-6)
    told: list[tuple[int, int]] = []
    gap, gaps, episodes = compare(registered, project, 40, lambda *at: told.append(at))
    assert episodes == 2 * 2 * 40 and set(gaps) == {"pictures", "sounds"}
    assert told[-1] == (2 * episodes, 2 * episodes) and [done for done, _ in told] == sorted(done for done, _ in told)
    assert _equivalent(gap, gaps, POLICY)[0] == "EQUIVALENT"


def test_a_broken_model_is_different_and_the_gap_is_that_of_paired_episodes(
    toys, project: Path, model: MetaModel, tmp_path: Path
) -> None:
    before = model.encode("image", torch.zeros(1, 1, 16, 16)).detach()
    registered = changed(model, tmp_path / "registered", by=3.0)
    assert not torch.equal(before, model.encode("image", torch.zeros(1, 1, 16, 16)))
    gap, gaps, _ = compare(registered, project, 60)
    answer, why = _equivalent(gap, gaps, POLICY)
    assert answer == "DIFFERENT" and "the weights differ and so do the answers" in why and "not within ± 2" in why
    # Counted again: of one dataset, from each model's own answers.
    from quickstudy.config import Evaluate
    from quickstudy.data.dataset import read_dataset
    from quickstudy.model.store import load_model
    from quickstudy.tasks.frozen import read_episodes

    dataset = read_dataset(project / "data/pictures")
    frozen = read_episodes(project / "build/tasks/classify/episodes.parquet", "classify")
    blocks = [block for block in frozen if block.dataset == "pictures"]
    alone = Evaluate(baselines=False, scratch_episodes=0, scratch_steps=1, timed_episodes=0)
    found = []
    for folder in (project / "build/model", registered):
        loaded = load_model(folder, "classify")
        subject = Subject(dataset, loaded.encoder("image").prepare(dataset.raw()))
        found.append(evaluate(loaded, {"pictures": subject}, blocks, alone, 0)["score"].to_numpy().reshape(2, 60))
    difference = found[0] - found[1]
    halves = [mean_interval(shot)[1] for shot in difference]
    assert gaps["pictures"].mean == pytest.approx(difference.mean())
    assert gaps["pictures"].half == pytest.approx(np.hypot(*halves) / 2, rel=0.05)


def test_what_was_built_before_there_were_kinds_is_compared_as_classify(
    project: Path, model: MetaModel, tmp_path: Path
) -> None:
    """The worktree of such a commit has the episodes and the model in the folders themselves."""
    registered = changed(model, tmp_path / "registered", by=1e-6)
    expected = compare(registered, project, 10)
    for name in ("tasks", "model"):
        folder = project / "build" / name
        for path in (folder / "classify").iterdir():
            path.rename(folder / path.name)
        (folder / "classify").rmdir()
    assert compare(registered, project, 10) == expected


def test_models_that_know_other_modalities_cannot_be_compared(project: Path, tiny: Settings, tmp_path: Path) -> None:
    save_model(MetaModel(tiny.inputs, tiny.model, {"image"}), tmp_path / "registered", {})
    with pytest.raises(QuickstudyError, match="they know different modalities"):
        compare(tmp_path / "registered", project, 10)


@pytest.mark.parametrize(
    ("gap", "of", "answer", "word"),
    [
        (Gap(0.005, 0.010), Gap(0.01, 0.03), "EQUIVALENT", "within ± 2"),
        (Gap(0.005, 0.016), Gap(0.01, 0.03), "DIFFERENT", "with more episodes"),  # not significant is not equivalent
        (Gap(-0.03, 0.001), Gap(-0.03, 0.001), "DIFFERENT", "-3.00 ± 0.10 points of the score, not within ± 2"),
        (Gap(0.001, 0.001), Gap(-0.06, 0.001), "DIFFERENT", "words -6.00 ± 0.10 points, not within ± 5"),
        (Gap(0.0, float("nan")), Gap(0.0, 0.0), "DIFFERENT", "with more episodes"),  # one episode says nothing
    ],
)
def test_the_whole_interval_must_lie_within_the_bound(gap: Gap, of: Gap, answer: str, word: str) -> None:
    found, why = _equivalent(gap, {"digits": Gap(0.0, 0.0), "words": of}, POLICY)
    assert found == answer and word in why
