"""Judge a model on frozen episodes: one row for each episode and method.

Methods: ``quickstudy``; ``logreg_raw``, ``centroid_raw`` (scikit-learn on raw features); ``logreg_encoder``,
``centroid_encoder`` (scikit-learn on the encoder before meta-training: untrained, or pretrained where it is);
``scratch`` (the same network trained on the one task alone).
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
from torch import nn
from torch.nn import functional as F

from quickstudy.adaptation.state import adapt
from quickstudy.config import Evaluate, Inputs, Model
from quickstudy.data.dataset import Dataset
from quickstudy.encoders import Encoder, make_encoder
from quickstudy.kinds.classify.baselines import CLASSIFIERS, Classifier, raw_features, score_episodes
from quickstudy.learners import VectorLearner
from quickstudy.model.metamodel import MetaModel, TaskBatch
from quickstudy.stats.intervals import OURS, beaten_by, mean_interval
from quickstudy.tasks.frozen import FrozenEpisodes

METHODS = (OURS, "logreg_encoder", "centroid_encoder", "logreg_raw", "centroid_raw", "scratch")
BLOCK = 100  # episodes answered, or handed to a process, at once
WEIGHT_BLOCK = 10  # episodes answered at once where each has an encoder of its own

SCRATCH_BATCH = 32

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
        columns suite, dataset, modality, novelty, way, shot, query, episode, method, accuracy, adapt_ms, nll,
        answers, confidences.
        ``adapt_ms`` is the time from a task's files to what answers its queries: for the model (of the first
        ``timed_episodes``) and for training from scratch; for scikit-learn it is the time of fitting alone.
        For the model alone: ``nll`` is the mean negative log likelihood of the queries' true classes, in nats;
        ``answers`` uint16 [N·Q] the class that each query was given and ``confidences`` float32 [N·Q] its probability,
        to a thousandth, query after query, class by class as the episode has them.
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
        frame = pd.DataFrame(results, columns=["accuracy", "adapt_ms"])
        for name, value in (
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
        frame["nll"] = told["nll"] if told else math.nan
        for name in ("answers", "confidences"):
            frame[name] = pd.Series(told[name] if told else [None] * len(frame), dtype=object)
        parts.append(frame)

    for name in dict.fromkeys(block.dataset for block in frozen):
        subject = subjects[name]
        blocks = [_compact(block) for block in frozen if block.dataset == name]
        rows = np.unique(np.concatenate([block.rows for block in blocks]))
        arrays = torch.from_numpy(np.ascontiguousarray(subject.arrays[rows]))
        read = arrays
        if isinstance(model.learner, VectorLearner):  # an example that several episodes share is encoded once
            with torch.inference_mode():
                read = model.encode(subject.dataset.modality, arrays)
        for block in blocks:
            add(block.frozen, OURS, *_ours(model, subject, block, read, rows, settings.timed_episodes))
            done += block.frozen.count
            progress(done, total)
        if settings.baselines:
            before = _encode_untrained(model.inputs, model.shape, subject.dataset.modality, arrays, seed)
            features = {"raw": raw_features(subject.dataset, subject.arrays, rows), "encoder": before}
            for block, method, results in _baselines(blocks, features, rows):
                add(block.frozen, method, results)
                done += block.frozen.count // 2
                progress(min(done, total), total)
        for block in blocks:
            if settings.scratch_episodes:
                add(block.frozen, "scratch", _scratch(model, subject, block, arrays, rows, settings, seed))
    frame = pd.concat(parts, ignore_index=True)
    order = ["suite", "dataset", "modality", "novelty", "way", "shot", "query", "episode", "method"]
    return frame[[*order, "accuracy", "adapt_ms", "nll", "answers", "confidences"]]


@dataclass(frozen=True)
class _Block:
    frozen: FrozenEpisodes
    rows: np.ndarray
    """sorted int64: the rows of the dataset that its episodes use"""


def _compact(frozen: FrozenEpisodes) -> _Block:
    both = torch.cat([frozen.episodes.support.flatten(), frozen.episodes.query.flatten()])
    return _Block(frozen, np.unique(both.numpy()))


def _places(block: _Block, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Support [E, N, K] and query [E, N, Q] as places in ``rows``."""
    episodes = block.frozen.episodes
    support = np.searchsorted(rows, episodes.support.numpy())
    return torch.from_numpy(support), torch.from_numpy(np.searchsorted(rows, episodes.query.numpy()))


@torch.inference_mode()
def _ours(
    model: MetaModel, subject: Subject, block: _Block, read: torch.Tensor, rows: np.ndarray, timed: int
) -> tuple[list[tuple[float, float]], dict[str, list[Any]]]:
    """Accuracy and time of each episode; nll, answers and confidences of each."""
    support, query = _places(block, rows)
    way = block.frozen.episodes.way
    accuracies: list[float] = []
    told: dict[str, list[Any]] = {"nll": [], "answers": [], "confidences": []}
    together = BLOCK if isinstance(model.learner, VectorLearner) else WEIGHT_BLOCK
    for start in range(0, len(support), together):
        s, q = support[start : start + together].flatten(1), query[start : start + together].flatten(1)
        task = TaskBatch(block.frozen.modality, read[s], read[q], way)
        targets, answers = task.targets()
        if isinstance(model.learner, VectorLearner):
            logits = model.learner(task.support, targets, task.query, way)
        else:
            (logits,) = model([task])
        given = logits.argmax(-1)
        accuracies += (given == answers).double().mean(1).tolist()
        logs = logits.double().log_softmax(-1)  # [B, N·Q, N]
        told["nll"] += (-logs.gather(-1, answers.expand_as(given)[..., None])[..., 0]).mean(1).tolist()
        told["answers"] += list(given.numpy().astype(np.uint16))
        told["confidences"] += list(logs.amax(-1).exp().numpy().round(3).astype(np.float32))
    times = [math.nan] * len(accuracies)
    for i in range(min(timed, len(times))):
        times[i] = adapt_ms(model, subject, block.frozen, i)
    return list(zip(accuracies, times, strict=True)), told


@torch.inference_mode()
def _encode_untrained(inputs: Inputs, shape: Model, modality: Any, arrays: torch.Tensor, seed: int) -> np.ndarray:
    """float32 [n, F], each of length 1: what the encoder made of the examples before meta-training. Of a frozen model
    (minilm, minilm-layers, and every LIBRARY:NAME) the arrays are that already."""
    name = getattr(shape.encoders, modality)
    if name in ("minilm", "minilm-layers") or ":" in name:
        return arrays.numpy()
    encoder = _untrained(inputs, shape, modality, seed).eval()
    vectors = torch.cat([encoder(chunk) for chunk in arrays.split(64)])
    return F.normalize(vectors, dim=1).numpy()


def _untrained(inputs: Inputs, shape: Model, modality: Any, seed: int) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_encoder(modality, inputs, shape)


def _baselines(
    blocks: Sequence[_Block], features: Mapping[str, Any], rows: np.ndarray
) -> Iterator[tuple[_Block, str, list[tuple[float, float]]]]:
    """scikit-learn on all cores, one thread each."""
    from joblib import Parallel, delayed

    jobs, plan = [], []
    for block in blocks:
        support, query = (places.numpy() for places in _places(block, rows))
        for what in features:
            for start in range(0, len(support), BLOCK):
                piece = list(zip(support[start : start + BLOCK], query[start : start + BLOCK], strict=True))
                jobs.append(delayed(score_episodes)(features[what], piece))
                plan.append((block, what))
    gathered: dict[Classifier, list[tuple[float, float]]] = {kind: [] for kind in CLASSIFIERS}
    with Parallel(n_jobs=-1, return_as="generator") as parallel:
        for (block, what), results in zip(plan, parallel(jobs), strict=True):
            for kind in CLASSIFIERS:
                gathered[kind] += results[kind]
            if len(gathered[CLASSIFIERS[0]]) == block.frozen.count:
                for kind in CLASSIFIERS:
                    yield block, f"{kind}_{what}", gathered[kind]
                    gathered[kind] = []


def _scratch(
    model: MetaModel,
    subject: Subject,
    block: _Block,
    arrays: torch.Tensor,
    rows: np.ndarray,
    settings: Evaluate,
    seed: int,
) -> list[tuple[float, float]]:
    """Accuracy and time of each episode. As ours, the time begins with the files of the support set: the frozen front
    reads them, whoever learns from what it makes of them."""
    support, query = _places(block, rows)
    results = []
    for i in range(min(settings.scratch_episodes, len(support))):
        encoder = _untrained(model.inputs, model.shape, block.frozen.modality, seed + i)
        s, q = arrays[support[i].flatten()], arrays[query[i].flatten()]
        task = TaskBatch(block.frozen.modality, s[None], q[None], block.frozen.episodes.way)
        targets, answers = (labels[0] for labels in task.targets())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + i)
            accuracy, trained = train_from_scratch(
                encoder, model.shape.dimension, s, targets, q, answers, task.way, settings.scratch_steps
            )
        results.append((accuracy, _read_ms(model, subject, block.frozen, i) + trained))
    return results


def adapt_ms(model: MetaModel, subject: Subject, frozen: FrozenEpisodes, episode: int) -> float:
    """Milliseconds from the files of an episode's support set to the state of its task."""
    labels = [str(n) for n in range(frozen.episodes.way) for _ in range(frozen.episodes.shot)]
    return adapt(model, frozen.modality, _support(subject, frozen, episode), labels, "").adapt_ms


def _support(subject: Subject, frozen: FrozenEpisodes, episode: int) -> Sequence[Any]:
    """File bytes or texts of an episode's support set, class by class."""
    return subject.dataset.raw(frozen.episodes.support[episode].flatten().numpy())


def _read_ms(model: MetaModel, subject: Subject, frozen: FrozenEpisodes, episode: int) -> float:
    """Milliseconds that the frozen front takes to read an episode's support set from its files."""
    examples = _support(subject, frozen, episode)
    started = time.perf_counter()
    model.encoder(frozen.modality).prepare(examples)
    return (time.perf_counter() - started) * 1000


def train_from_scratch(
    encoder: Encoder,
    dimension: int,
    support: torch.Tensor,
    targets: torch.Tensor,
    query: torch.Tensor,
    answers: torch.Tensor,
    way: int,
    steps: int,
) -> tuple[float, float]:
    """The same network, its weights drawn anew, with a linear head, trained on one task's support set alone.

    Args:
        encoder: untrained; trained in place.
        support, query: arrays of the frozen front, [S, ...], [Q, ...].
        steps: of Adam, on batches of at most ``SCRATCH_BATCH`` examples, with the modality's augmentation.

    Returns:
        accuracy, milliseconds of training.
    """
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    head = nn.Linear(dimension, way)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=2e-3)
    encoder.train()
    for _ in range(steps):
        rows = torch.randperm(len(support), generator=generator)[:SCRATCH_BATCH]
        loss = F.cross_entropy(head(encoder(encoder.augment(support[rows], generator))), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    elapsed = (time.perf_counter() - started) * 1000
    # Running averages over so few steps are poor: count batch statistics once more over the whole support set.
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        encoder(support)
        encoder.eval()
        return float((head(encoder(query)).argmax(-1) == answers).double().mean()), elapsed


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each suite, shot and method: suite, modality, novelty, way, shot, method, episodes, accuracy, ci95
    (half width), adapt_ms (median)."""
    rows = []
    keys = ["suite", "modality", "novelty", "way", "shot", "method"]
    for key, part in frame.groupby(keys, sort=False):
        accuracy, half = mean_interval(part["accuracy"].to_numpy())
        row = dict(zip(keys, key, strict=True))
        rows.append(
            row | {"episodes": len(part), "accuracy": accuracy, "ci95": half, "adapt_ms": part["adapt_ms"].median()}
        )
    return pd.DataFrame(rows)


def write_evaluation(folder: Path, frame: pd.DataFrame) -> None:
    """episodes.parquet, table.csv, shots.csv (the model's accuracy by shot, for the plot) and metrics.json."""
    folder.mkdir(parents=True, exist_ok=True)
    table = summarise(frame)
    frame.to_parquet(folder / "episodes.parquet", index=False, compression="zstd")
    table.to_csv(folder / "table.csv", index=False, float_format="%.5f")
    ours = table[table["method"] == OURS]
    ours[["suite", "shot", "accuracy", "ci95"]].to_csv(folder / "shots.csv", index=False, float_format="%.5f")
    metrics: dict[str, Any] = {}
    for row in ours.itertuples():
        metrics.setdefault(row.suite, {})[f"{row.shot}-shot"] = {
            "accuracy": round(row.accuracy, 5),
            "ci95": round(row.ci95, 5),
            "episodes": row.episodes,
        }
    metrics["mean_accuracy"] = round(float(ours["accuracy"].mean()), 5)
    metrics["below_a_baseline"] = len(beaten_by(table))
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
