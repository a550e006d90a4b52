"""Evaluation: every number is counted again, in another way, from the files."""

import json
import time
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from quickstudy.adaptation.adapted import answers_of, learn
from quickstudy.config import Episodes, Evaluate, Settings
from quickstudy.encoders import make_encoder
from quickstudy.evaluation.answers import Subject, evaluate, nothing_to_judge, summarise, write_evaluation
from quickstudy.evaluation.scratch import train_from_scratch
from quickstudy.kinds.classify import head
from quickstudy.kinds.episodes import pool_of
from quickstudy.model.metamodel import MetaModel
from quickstudy.stats.intervals import OURS
from quickstudy.tasks.frozen import FrozenEpisodes, freeze
from quickstudy.tasks.suites import Suite

SEED = 3
METHODS = (OURS, "logreg_encoder", "centroid_encoder", "logreg_raw", "centroid_raw", "scratch")


@pytest.fixture
def model(tiny: Settings) -> MetaModel:
    torch.manual_seed(0)
    made = MetaModel(tiny.inputs, tiny.model, {"image", "audio"}).eval()
    with torch.no_grad():
        made.learner.alpha.fill_(0.3)
        made.learner.step_alpha.fill_(0.4)
    return made


@pytest.fixture
def subjects(toys, model: MetaModel) -> dict[str, Subject]:
    datasets = [
        toys("image", classes=7, each=8, name="pictures"),
        toys("audio", classes=4, each=6, name="sounds"),
    ]
    return {d.name: Subject(d, model.encoder(d.modality).prepare(d.raw())) for d in datasets}


@pytest.fixture
def frozen(subjects: dict[str, Subject]) -> list[FrozenEpisodes]:
    settings = Episodes(count=8, shots=(1, 3), query=3, way=4, ways={})
    pools = {name: pool_of(s.dataset, np.ones(len(s.dataset), dtype=bool)) for name, s in subjects.items()}
    suites = [Suite(name, "classes", pool) for name, pool in pools.items()]
    suites.append(Suite("pictures@new", "domain", pools["pictures"]))  # two suites of one dataset
    return [block for suite in suites for block in freeze(suite, settings, SEED)]


@pytest.fixture
def frame(model, subjects, frozen) -> pd.DataFrame:
    settings = Evaluate(baselines=True, scratch_episodes=2, scratch_steps=3, timed_episodes=2)
    with joblib.parallel_config("threading"):  # processes would take seconds to start
        return evaluate(model, subjects, frozen, settings, SEED)


def of(frame: pd.DataFrame, block: FrozenEpisodes, method: str) -> pd.DataFrame:
    chosen = (frame["suite"] == block.suite) & (frame["shot"] == block.episodes.shot) & (frame["method"] == method)
    return frame[chosen].sort_values("episode")


def test_there_is_one_row_for_each_episode_and_method(frame: pd.DataFrame, frozen: list[FrozenEpisodes]) -> None:
    assert list(frame.columns) == [
        "kind",
        "suite",
        "dataset",
        "modality",
        "novelty",
        "way",
        "shot",
        "query",
        "episode",
        "method",
        "score",
        "adapt_ms",
        "nll",
        "answers",
        "confidences",
    ]
    assert len(frozen) == 6 and set(frame["method"]) == set(METHODS)
    for block in frozen:
        for method in METHODS:
            rows = of(frame, block, method)
            assert rows["episode"].tolist() == list(range(2 if method == "scratch" else 8))
            about = rows[["kind", "dataset", "modality", "novelty", "way", "query"]].drop_duplicates()
            expected = ["classify", block.dataset, block.modality, block.novelty, block.episodes.way, 3]
            assert about.to_numpy().tolist() == [expected]
            timed = rows["adapt_ms"].notna().sum()
            assert timed == (2 if method in (OURS, "scratch") else 8)
            for column in ("nll", "answers", "confidences"):
                assert rows[column].notna().all() if method == OURS else rows[column].isna().all()
    assert frame["score"].between(0, 1).all() and (frame["adapt_ms"].dropna() > 0).all()


def test_our_score_and_likelihood_are_those_of_adapting_and_asking_one_by_one(frame, model, subjects, frozen) -> None:
    seen = []
    for block in frozen:
        dataset = subjects[block.dataset].dataset
        ours, nll = (of(frame, block, OURS)[column].tolist() for column in ("score", "nll"))
        for i in range(0, 8, 3):
            support, query = block.episodes.support[i].flatten(), block.episodes.query[i].flatten()
            labels = [dataset.classes[dataset.class_index[row]] for row in support]
            state = learn(model, block.modality, dataset.raw(support.numpy()), labels, "")
            found = answers_of(model, state, dataset.raw(query.numpy()))
            answers, probabilities = found.targets, found.probabilities
            truth = [dataset.classes[dataset.class_index[row]] for row in query]
            places = [state.names.index(label) for label in truth]
            assert nll[i] == pytest.approx(-np.log(probabilities[range(len(truth)), places]).mean(), rel=1e-4)
            row = of(frame, block, OURS).iloc[i]
            drawn = list(dict.fromkeys(labels))  # an episode numbers its classes as they were drawn
            assert [drawn[n] for n in row["answers"]] == answers
            assert row["confidences"] == pytest.approx(probabilities.max(1), abs=0.00051)
            hits = sum(answer == label for answer, label in zip(answers, truth, strict=True))
            assert ours[i] == pytest.approx(hits / len(truth))
            seen.append(ours[i])
    assert min(seen) < max(seen)


@pytest.mark.parametrize("what", ["raw", "encoder"])
def test_baselines_are_plain_scikit_learn_on_the_same_episodes(frame, tiny, subjects, frozen, what: str) -> None:
    for block in frozen[:4]:
        subject = subjects[block.dataset]
        if what == "raw":
            features = subject.arrays.reshape(len(subject.arrays), -1).astype(np.float64)
            features = features / 255 if block.modality == "image" else features
        else:  # the encoder as it was before meta-training
            torch.manual_seed(SEED)
            encoder = make_encoder(block.modality, tiny.inputs, tiny.model).eval()
            with torch.no_grad():
                features = encoder(torch.from_numpy(subject.arrays)).numpy().astype(np.float64)
            features /= np.linalg.norm(features, axis=1, keepdims=True)
        for kind, make in (("logreg", partial(LogisticRegression, tol=1e-9)), ("centroid", NearestCentroid)):
            theirs = of(frame, block, f"{kind}_{what}")["score"].to_numpy()
            expected = []
            for support, query in zip(block.episodes.support, block.episodes.query, strict=True):
                labels = subject.dataset.class_index
                with np.errstate(all="ignore"):
                    fitted = make().fit(features[support.flatten()], labels[support.flatten()])
                expected.append((fitted.predict(features[query.flatten()]) == labels[query.flatten()]).mean())
            # a question that lies between two classes to the last digit may fall either way
            assert np.abs(theirs - expected).max() <= 1 / 12 + 1e-9 and np.mean(theirs != expected) <= 1 / 8


def test_the_same_again_and_the_random_stream_of_others_untouched(model, subjects, frozen) -> None:
    settings = Evaluate(baselines=False, scratch_episodes=1, scratch_steps=2, timed_episodes=0)
    frames = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = torch.rand(3)
        torch.manual_seed(seed)
        frames.append(evaluate(model, subjects, frozen[:2], settings, SEED))
        assert torch.equal(torch.rand(3), expected)
    assert set(frames[0]["method"]) == {OURS, "scratch"}
    pd.testing.assert_frame_equal(frames[0].drop(columns="adapt_ms"), frames[1].drop(columns="adapt_ms"))


def test_progress_ends_at_the_total(model, subjects, frozen) -> None:
    told: list[tuple[int, int]] = []
    settings = Evaluate(baselines=True, scratch_episodes=0, scratch_steps=1, timed_episodes=0)
    with joblib.parallel_config("threading"):
        evaluate(model, subjects, frozen, settings, SEED, lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told) and told[-1] == (3 * 48, 3 * 48)


def test_the_time_of_training_from_scratch_begins_with_the_files_as_ours_does(model, subjects, frozen, monkeypatch):
    encoder = model.encoder("image")
    front = encoder.prepare

    def slow(raw):
        time.sleep(0.05)
        return front(raw)

    monkeypatch.setattr(encoder, "prepare", slow)
    settings = Evaluate(baselines=False, scratch_episodes=1, scratch_steps=1, timed_episodes=1)
    frame = evaluate(model, subjects, [frozen[0]], settings, SEED)
    assert frame["modality"].eq("image").all() and frame["adapt_ms"].notna().sum() == 2
    assert (frame["adapt_ms"].dropna() >= 50).all()


def test_training_from_scratch_learns_a_task_that_can_be_learned(tiny: Settings, toys) -> None:
    dataset = toys("image", classes=3, each=12)
    torch.manual_seed(0)
    encoder = make_encoder("image", tiny.inputs, tiny.model)
    arrays = torch.from_numpy(encoder.prepare(dataset.raw())).unflatten(0, (3, 12))
    labels = torch.arange(3)
    support, query = arrays[:, :8].flatten(0, 1), arrays[:, 8:].flatten(0, 1)
    targets = labels.repeat_interleave(8)
    logits, milliseconds = train_from_scratch(encoder, 16, head.loss, support, targets, query, 3, 60)
    accuracy = (logits.argmax(-1) == labels.repeat_interleave(4)).double().mean()
    assert logits.shape == (12, 3) and accuracy >= 0.75 and milliseconds > 0


def test_the_summary_is_the_mean_with_students_interval(frame: pd.DataFrame, frozen: list[FrozenEpisodes]) -> None:
    table = summarise(frame)
    assert len(table) == len(frozen) * len(METHODS)
    for row in table.itertuples():
        part = frame[(frame["suite"] == row.suite) & (frame["shot"] == row.shot) & (frame["method"] == row.method)]
        x = part["score"].to_numpy()
        assert row.episodes == len(x) and row.score == pytest.approx(x.mean())
        assert row.adapt_ms == part["adapt_ms"].median()
        if x.std() > 0:
            low, high = t.interval(0.95, len(x) - 1, loc=x.mean(), scale=x.std(ddof=1) / len(x) ** 0.5)
            assert (row.score - row.ci95, row.score + row.ci95) == pytest.approx((low, high))


def test_what_is_written(frame: pd.DataFrame, tmp_path: Path) -> None:
    write_evaluation(tmp_path / "out", frame)
    read = pd.read_parquet(tmp_path / "out" / "episodes.parquet")
    pd.testing.assert_frame_equal(read, frame)
    ours = read[read["method"] == OURS].iloc[0]
    assert (ours["answers"].dtype, ours["confidences"].dtype) == (np.uint16, np.float32)  # small on disk
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert ",".join(table.columns) == "kind,metric,suite,modality,novelty,way,shot,method,episodes,score,ci95,adapt_ms"
    assert set(table["metric"]) == {"accuracy"}
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    ours = table[table["method"] == OURS]
    for row in ours.itertuples():
        cell = metrics[row.suite][f"{row.shot}-shot"]
        assert (cell["score"], cell["episodes"]) == (pytest.approx(row.score), 8)
    assert metrics["mean_score"] == pytest.approx(ours["score"].mean(), abs=1e-5)
    below = 0
    for row in table[table["method"] != OURS].itertuples():
        (own,) = ours[(ours["suite"] == row.suite) & (ours["shot"] == row.shot)]["score"]
        below += own < row.score - row.ci95
    assert metrics["below_a_baseline"] == below
    shots = pd.read_csv(tmp_path / "out" / "shots.csv")
    assert shots[["suite", "shot"]].to_numpy().tolist() == ours[["suite", "shot"]].to_numpy().tolist()


def test_an_evaluation_without_an_episode_is_read_like_any_other(frame: pd.DataFrame, tmp_path: Path) -> None:
    nothing_to_judge(tmp_path / "none")
    write_evaluation(tmp_path / "some", frame)
    none, some = ({path.name for path in (tmp_path / name).iterdir()} for name in ("none", "some"))
    assert none == some
    read = pd.read_parquet(tmp_path / "none/episodes.parquet", columns=["dataset", "suite", "shot", "method", "score"])
    assert (
        read.empty and pd.read_csv(tmp_path / "none/shots.csv").empty and pd.read_csv(tmp_path / "none/table.csv").empty
    )
    assert json.loads((tmp_path / "none/metrics.json").read_text()) == {}
