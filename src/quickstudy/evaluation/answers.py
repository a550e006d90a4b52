"""Judge a model on frozen episodes: one row for each episode and method.

Methods: ``quickstudy``; ``NAME_raw`` (each baseline of the kind on raw features); ``NAME_encoder`` (the same on the
encoder before meta-training: untrained, or pretrained where it is); ``scratch`` (the same network trained on the one
task alone).
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from quickstudy.adaptation.adapted import learn
from quickstudy.config import Evaluate, Inputs, Model
from quickstudy.data.dataset import Dataset
from quickstudy.encoders import Encoder, encoder_class, make_encoder
from quickstudy.evaluation.features import raw_features
from quickstudy.evaluation.scratch import train_from_scratch
from quickstudy.kinds.scores import SCORES
from quickstudy.kinds.task import TaskBatch
from quickstudy.model.metamodel import MetaModel
from quickstudy.stats.intervals import OURS, beaten_by, mean_interval
from quickstudy.tasks.frozen import FrozenEpisodes, targets_of

BLOCK = 100  # episodes answered, or handed to a process, at once
WEIGHT_BLOCK = 10  # episodes answered at once where each has an encoder of its own

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Subject:
    """A dataset to be judged on, with the arrays of its modality's frozen front [n, ...]."""

    dataset: Dataset
    arrays: np.ndarray


def evaluate(
    model: MetaModel,
    subjects: Mapping[str, Subject],
    frozen: Sequence[FrozenEpisodes],
    settings: Evaluate,
    seed: int,
    progress: Progress = lambda done, total: None,
) -> pd.DataFrame:
    """Answer every frozen episode by the model and by the baselines.

    Args:
        subjects: by the name of the dataset.
        seed: of the untrained encoders.

    Returns:
        columns kind, suite, dataset, modality, novelty, way, shot, query, episode, method, score, adapt_ms and, of the
        model alone, what else the kind keeps of an episode (`quickstudy.kinds.scores`), as of classify nll, answers and
        confidences.
        ``adapt_ms`` is the time from a task's files to what answers its queries: for the model (of the first
        ``timed_episodes``) and for training from scratch; for scikit-learn it is the time of fitting alone.
    """
    total = sum(block.count for block in frozen) * (3 if settings.baselines else 1)
    done = 0
    parts: list[pd.DataFrame] = []

    def add(
        block: FrozenEpisodes,
        method: str,
        results: Sequence[tuple[float, float]],
        told: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        way, shot, query = block.episodes.way, block.episodes.shot, block.episodes.query.shape[2]
        frame = pd.DataFrame(results, columns=["score", "adapt_ms"])
        for name, value in (
            ("kind", block.kind),
            ("suite", block.suite),
            ("dataset", block.dataset),
            ("modality", block.modality),
            ("novelty", block.novelty),
            ("way", way),
            ("shot", shot),
            ("query", query),
            ("method", method),
        ):
            frame[name] = value
        frame["episode"] = np.arange(len(frame))
        for name, values in (told or {}).items():
            frame[name] = pd.Series(values, dtype=object if isinstance(values[0], np.ndarray) else None)
        parts.append(frame)

    for name in dict.fromkeys(block.dataset for block in frozen):
        subject = subjects[name]
        blocks = [_compact(block) for block in frozen if block.dataset == name]
        rows = np.unique(np.concatenate([block.rows for block in blocks]))
        arrays = torch.from_numpy(np.ascontiguousarray(subject.arrays[rows]))
        read = arrays
        if model.learner.on_vectors is not None:  # an example that several episodes share is encoded once
            with torch.inference_mode():
                read = model.encode(subject.dataset.modality, arrays)
        for block in blocks:
            add(block.frozen, OURS, *_ours(model, subject, block, read, rows, settings.timed_episodes))
            done += block.frozen.count
            progress(done, total)
        if settings.baselines:
            before = _encode_untrained(model.inputs, model.shape, subject.dataset.modality, arrays, seed)
            features = {"raw": raw_features(subject.dataset, subject.arrays, rows), "encoder": before}
            for block, method, results in _baselines(blocks, subject, features, rows):
                add(block.frozen, method, results)
                done += block.frozen.count // 2
                progress(min(done, total), total)
        for block in blocks:
            if settings.scratch_episodes:
                add(block.frozen, "scratch", _scratch(model, subject, block, arrays, rows, settings, seed))
    frame = pd.concat(parts, ignore_index=True)
    order = ["kind", "suite", "dataset", "modality", "novelty", "way", "shot", "query", "episode", "method"]
    order += ["score", "adapt_ms"]
    frame = frame[[*order, *(name for name in frame.columns if name not in order)]]
    # Where a method has no list there is None, as Parquet will give it back.
    lists = frame.columns[frame.dtypes.map(pd.api.types.is_object_dtype)]
    frame[lists] = frame[lists].where(frame[lists].notna(), None)
    return frame


@dataclass(frozen=True)
class _Block:
    frozen: FrozenEpisodes
    rows: np.ndarray
    """sorted int64: the rows of the dataset that its episodes use"""


def _compact(frozen: FrozenEpisodes) -> _Block:
    both = torch.cat([frozen.episodes.support.flatten(), frozen.episodes.query.flatten()])
    return _Block(frozen, np.unique(both.numpy()))


def _places(block: _Block, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Support [E, N·K] and query [E, N·Q] as places in ``rows``."""
    episodes = block.frozen.episodes
    support, query = (np.searchsorted(rows, part.flatten(1).numpy()) for part in (episodes.support, episodes.query))
    return support, query


@torch.inference_mode()
def _ours(
    model: MetaModel, subject: Subject, block: _Block, read: torch.Tensor, rows: np.ndarray, timed: int
) -> tuple[list[tuple[float, float]], dict[str, list[Any]]]:
    """Score and time of each episode, and what else is kept of each."""
    support, query = _places(block, rows)
    targets, answers = targets_of(subject.dataset, block.frozen)
    way = block.frozen.episodes.way
    told: dict[str, list[Any]] = {}
    learner = model.learner.on_vectors
    together = BLOCK if learner is not None else WEIGHT_BLOCK
    for start in range(0, len(support), together):
        part = slice(start, start + together)
        task = TaskBatch(
            block.frozen.modality, read[support[part]], read[query[part]], way, targets[part], answers[part]
        )
        if learner is not None:
            state = learner.adapt(*model.head.pose(task.support, task.support_targets, way))
            logits = model.answer(state, task.query)
            offsets = model.head.offsets(learner, task.support, task.support_targets, way)
            logits = logits - offsets[:, None] if isinstance(offsets, torch.Tensor) else logits
        else:
            (logits,) = model([task])
        for name, values in SCORES[model.kind].judge(logits, task.query_targets).items():
            told.setdefault(name, []).extend(values)
    times = [math.nan] * len(support)
    for i in range(min(timed, len(times))):
        times[i] = adapt_ms(model, subject, block.frozen, i)
    return list(zip(told.pop("score"), times, strict=True)), told


@torch.inference_mode()
def _encode_untrained(inputs: Inputs, shape: Model, modality: Any, arrays: torch.Tensor, seed: int) -> np.ndarray:
    """float32 [n, F], each of length 1: what the encoder made of the examples before meta-training. Where a frozen
    model makes vectors in the front, the arrays are that already."""
    if encoder_class(modality, inputs, shape).front_gives_vectors:
        return arrays.numpy()
    encoder = _untrained(inputs, shape, modality, seed).eval()
    vectors = torch.cat([encoder(chunk) for chunk in arrays.split(64)])
    return F.normalize(vectors, dim=1).numpy()


def _untrained(inputs: Inputs, shape: Model, modality: Any, seed: int) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_encoder(modality, inputs, shape)


def _baselines(
    blocks: Sequence[_Block], subject: Subject, features: Mapping[str, Any], rows: np.ndarray
) -> Iterator[tuple[_Block, str, list[tuple[float, float]]]]:
    """scikit-learn on all cores, one thread each."""
    from joblib import Parallel, delayed

    scoring = SCORES[blocks[0].frozen.kind]
    jobs, plan = [], []
    for block in blocks:
        parts = (*_places(block, rows), *(part.numpy() for part in targets_of(subject.dataset, block.frozen)))
        for what in features:
            for start in range(0, block.frozen.count, BLOCK):
                piece = list(zip(*(part[start : start + BLOCK] for part in parts), strict=True))
                jobs.append(delayed(scoring.baselines)(features[what], piece))
                plan.append((block, what))
    gathered: dict[str, list[tuple[float, float]]] = {name: [] for name in scoring.BASELINES}
    with Parallel(n_jobs=-1, return_as="generator") as parallel:
        for (block, what), results in zip(plan, parallel(jobs), strict=True):
            for name in gathered:
                gathered[name] += results[name]
            if len(gathered[scoring.BASELINES[0]]) == block.frozen.count:
                for name in gathered:
                    yield block, f"{name}_{what}", gathered[name]
                    gathered[name] = []


def _scratch(
    model: MetaModel,
    subject: Subject,
    block: _Block,
    arrays: torch.Tensor,
    rows: np.ndarray,
    settings: Evaluate,
    seed: int,
) -> list[tuple[float, float]]:
    """Score and time of each episode. As ours, the time begins with the files of the support set: the frozen front
    reads them, whoever learns from what it makes of them."""
    support, query = _places(block, rows)
    targets, answers = targets_of(subject.dataset, block.frozen)
    results = []
    for i in range(min(settings.scratch_episodes, len(support))):
        encoder = _untrained(model.inputs, model.shape, block.frozen.modality, seed + i)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + i)
            logits, trained = train_from_scratch(
                encoder,
                model.shape.dimension,
                model.head.loss,
                arrays[support[i]],
                targets[i],
                arrays[query[i]],
                block.frozen.episodes.way,
                settings.scratch_steps,
            )
        (score,) = SCORES[model.kind].judge(logits[None], answers[i][None])["score"]
        results.append((score, _read_ms(model, subject, block.frozen, i) + trained))
    return results


def adapt_ms(model: MetaModel, subject: Subject, frozen: FrozenEpisodes, episode: int) -> float:
    """Return milliseconds from the files of an episode's support set to the state of its task."""
    targets = model.head.plain(targets_of(subject.dataset, frozen.part(episode, episode + 1))[0][0])
    return learn(model, frozen.modality, _support(subject, frozen, episode), targets, "").adapt_ms


def _support(subject: Subject, frozen: FrozenEpisodes, episode: int) -> Sequence[Any]:
    """File bytes or texts of an episode's support set, class by class."""
    return subject.dataset.raw(frozen.episodes.support[episode].flatten().numpy())


def _read_ms(model: MetaModel, subject: Subject, frozen: FrozenEpisodes, episode: int) -> float:
    """Milliseconds that the frozen front takes to read an episode's support set from its files."""
    examples = _support(subject, frozen, episode)
    started = time.perf_counter()
    model.encoder(frozen.modality).prepare(examples)
    return (time.perf_counter() - started) * 1000


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each suite, shot and method: kind, metric (its score's name), suite, modality, novelty, way,
    shot, method, episodes, score, ci95 (half width), adapt_ms (median)."""
    rows = []
    keys = ["kind", "suite", "modality", "novelty", "way", "shot", "method"]
    for key, part in frame.groupby(keys, sort=False):
        score, half = mean_interval(part["score"].to_numpy())
        row = {"kind": key[0], "metric": SCORES[key[0]].NAME} | dict(zip(keys, key, strict=True))
        rows.append(row | {"episodes": len(part), "score": score, "ci95": half, "adapt_ms": part["adapt_ms"].median()})
    return pd.DataFrame(rows)


def write_evaluation(folder: Path, frame: pd.DataFrame) -> None:
    """episodes.parquet, table.csv, shots.csv (the model's score by shot, for the plot) and metrics.json."""
    folder.mkdir(parents=True, exist_ok=True)
    table = summarise(frame)
    frame.to_parquet(folder / "episodes.parquet", index=False, compression="zstd")
    table.to_csv(folder / "table.csv", index=False, float_format="%.5f")
    ours = table[table["method"] == OURS]
    ours[["suite", "shot", "score", "ci95"]].to_csv(folder / "shots.csv", index=False, float_format="%.5f")
    metrics: dict[str, Any] = {}
    for row in ours.itertuples():
        metrics.setdefault(row.suite, {})[f"{row.shot}-shot"] = {
            "score": round(row.score, 5),
            "ci95": round(row.ci95, 5),
            "episodes": row.episodes,
        }
    metrics["mean_score"] = round(float(ours["score"].mean()), 5)
    metrics["below_a_baseline"] = len(beaten_by(table))
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


def nothing_to_judge(folder: Path) -> None:
    """Write an evaluation without an episode, of a kind that the model has not learned."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame({name: [] for name in ("kind", "suite", "dataset", "shot", "episode", "method", "score")})
    frame.to_parquet(folder / "episodes.parquet", index=False, compression="zstd")
    for name in ("table.csv", "shots.csv"):
        (folder / name).write_text("suite,shot,score,ci95\n", encoding="utf-8")
    (folder / "metrics.json").write_text("{}\n", encoding="utf-8")
