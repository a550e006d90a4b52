"""Omniglot: meta-trained on some alphabets, judged on others, with a Conv4-sized encoder.

    .venv/bin/python benchmarks/omniglot.py [--datasets ../shared/datasets] [--split alphabets | characters]

The background set (30 alphabets, 964 characters, 20 drawers) is split by the keyed hash of params.yaml, whole alphabets
at a time, or single characters as the literature does (``--split characters``). In meta-training each class is turned
by a multiple of 90° and may be mirrored, which makes other classes of it. Meta-test is judged twice: on the upright
characters alone, and with each of the four turns as a class of its own, as the literature does. An episode's classes
come from all meta-test alphabets. Every vector is of one example alone, with the running averages of batch norm, so
that no answer depends on the other queries; "moved" is the mean vector of an image and of four copies of it that are
moved by a pixel.

It resumes where it was stopped, prints a table and adds its results to benchmarks/results/omniglot.json. About 40
minutes of one core.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from quickstudy.config import Settings, Splits, changed, load_settings
from quickstudy.data.dataset import Dataset
from quickstudy.encoders.features import features
from quickstudy.ingest.importers.options import ImportOptions
from quickstudy.ingest.importers.source import import_source
from quickstudy.kinds.episodes import labels_of
from quickstudy.kinds.task import Pool
from quickstudy.model.metamodel import MetaModel
from quickstudy.stats.intervals import mean_interval
from quickstudy.system.atomic import write_json
from quickstudy.tasks.frozen import freeze
from quickstudy.tasks.splits import row_splits
from quickstudy.tasks.suites import Suite, test_suites, training_pools
from quickstudy.training import Source, meta_train

PROJECT = Path(__file__).resolve().parent.parent
SHARES = {"validation": 4 / 30, "test": 6 / 30}
CELLS = [(5, 1, 0.99), (5, 5, 0.997), (20, 1, 0.97), (20, 5, 0.99)]  # way, shot, the mark to reach
PUBLISHED = {
    "ProtoNet": [0.988, 0.997, 0.960, 0.989],  # Snell et al. 2017, https://arxiv.org/abs/1703.05175
    "MAML": [0.987, 0.999, 0.958, 0.989],  # Finn et al. 2017, https://arxiv.org/abs/1703.03400
}
EPISODES, QUERY = 1000, 15  # of a cell; a class of five shots has no more than fifteen drawings left
SHIFTS = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]  # pixels


def settings_of(dimension: int, steps: int) -> Settings:
    settings = load_settings(PROJECT / "params.yaml")
    for parameter, value in {
        "splits.validation": SHARES["validation"],
        "splits.test": SHARES["test"],
        "model.learner": "protonet",
        "model.dimension": dimension,
        "train.steps": steps,
        "train.learning_rate": 0.003,
        "train.tasks.image": 1,
        "train.examples.image": 512,  # 128 classes of 4
        "train.shots": [1],
        "train.query": 3,
        "train.turns": 4,  # each of the four is the support once
        "train.validate_every": 100,
        "train.checkpoint_every": 100,
    }.items():
        settings = changed(settings, parameter, value)
    return settings


def with_copies(source: Source, copies: dict[str, np.ndarray]) -> Source:
    """Each class once more for each of these arrays [n, ...] of the same examples, as a class of its own."""
    pool, n, times = source.pool, len(source.arrays), range(1 + len(copies))
    known = int(source.labels.max()) + 1  # classes of the dataset, which the copies' numbers come after
    joined = Pool(
        kind=pool.kind,
        dataset=pool.dataset,
        modality=pool.modality,
        rows=torch.cat([pool.rows + n * i for i in times]),
        starts=torch.cat([pool.starts + len(pool.rows) * i for i in times]),
        counts=pool.counts.repeat(len(times)),
        codes=torch.cat([pool.codes + known * i for i in times]),
        classes=(*pool.classes, *(f"{name}, {copy}" for copy in copies for name in pool.classes)),
    )
    labels = torch.cat([source.labels + known * i for i in times])
    return Source(joined, np.concatenate([source.arrays, *copies.values()]), labels)


@torch.inference_mode()
def encode(model: MetaModel, arrays: np.ndarray, shifts: list[tuple[int, int]]) -> torch.Tensor:
    """uint8 [n, 1, S, S] → [n, D]: the mean of the vectors of an example's shifted copies, brought to length √τ."""
    images = F.pad(torch.from_numpy(np.ascontiguousarray(arrays)), (1, 1, 1, 1))
    size = arrays.shape[-1]
    total = sum(model.encode("image", images[..., 1 + y : 1 + y + size, 1 + x : 1 + x + size]) for y, x in shifts)
    return F.normalize(total, dim=1) * (model.log_tau["image"] / 2).exp()


@torch.inference_mode()
def judge(model: MetaModel, suite: Suite, vectors: torch.Tensor, settings: Settings, way: int) -> dict[int, np.ndarray]:
    """The accuracy of each frozen episode, by shot."""
    shots = tuple(shot for w, shot, _ in CELLS if w == way)
    episodes = settings.episodes.model_copy(
        update={"count": EPISODES, "query": QUERY, "way": way, "ways": {}, "shots": shots}
    )
    found = {}
    for block in freeze(suite, episodes, settings.seed):
        hits = []
        for support, query in zip(
            block.episodes.support.flatten(1).split(100), block.episodes.query.flatten(1).split(100), strict=True
        ):
            answers = torch.arange(way).repeat_interleave(QUERY)
            targets = torch.arange(way).repeat_interleave(block.episodes.shot).expand(len(support), -1)
            logits = model.learner(vectors[support], targets, vectors[query], way)
            hits.append((logits.argmax(-1) == answers).double().mean(1))
        found[block.episodes.shot] = torch.cat(hits).numpy()
    return found


def count(dataset: Dataset, splits: Splits) -> dict[str, dict[str, int]]:
    """How many alphabets and characters are on each side of the meta-split."""
    side, _ = row_splits(dataset, splits)
    labels = np.array(dataset.column("label"))
    counts = {}
    for split in ("train", "validation", "test"):
        characters = sorted(set(labels[side == split]))
        counts[split] = {"alphabets": len({c.split("/")[0] for c in characters}), "characters": len(characters)}
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=Path, default=PROJECT / "../shared/datasets")
    parser.add_argument("--split", choices=["alphabets", "characters"], default="alphabets")
    parser.add_argument("--dimension", type=int, default=384, help="D of the encoder's vectors")
    parser.add_argument("--steps", type=int, default=2800)
    parser.add_argument("--cache", type=Path, default=PROJECT / ".cache", help="of features and checkpoints")
    parser.add_argument("--validation", action="store_true", help="judge on meta-validation, and write nothing")
    arguments = parser.parse_args()
    settings = settings_of(arguments.dimension, arguments.steps)
    info, table = import_source(
        arguments.datasets / "omniglot/images_background.zip",
        "omniglot",
        ImportOptions(licence="MIT", group="class" if arguments.split == "characters" else None),
    )
    dataset = Dataset(info, table)
    torch.manual_seed(settings.seed)
    model = MetaModel(settings.inputs, settings.model, ["image"])
    arrays, _ = features(dataset, model.encoder("image"), arguments.cache / "features")
    (train,), (validation,) = (training_pools(dataset, settings.splits, s) for s in ("train", "validation"))
    name = f"omniglot-{arguments.split}-{arguments.dimension}-{arguments.steps}"

    def progress(step: int, steps: int, text: str) -> None:
        if step % 100 == 0:
            print(f"{name}: step {step} of {steps}, {text}", file=sys.stderr)

    (arguments.cache / "checkpoints").mkdir(parents=True, exist_ok=True)
    labels = labels_of(dataset)
    learned = with_copies(Source(train, arrays, labels), {"mirrored": arrays[..., ::-1]})
    checkpoint = arguments.cache / "checkpoints" / f"{name}.safetensors"
    result = meta_train(model, [learned], [Source(validation, arrays, labels)], settings, checkpoint, progress)
    (suite,) = (
        [Suite("omniglot", "classes", validation)] if arguments.validation else test_suites(dataset, settings.splits)
    )
    counts, parameters = count(dataset, settings.splits), sum(p.numel() for p in model.encoder("image").parameters())
    print(f"{counts}, encoder of {parameters:,} parameters, {result.seconds:.0f} s of training")
    upright = Source(suite.pool, arrays, labels)
    turned = with_copies(upright, {f"turned by {90 * k}°": np.rot90(arrays, k, (2, 3)) for k in (1, 2, 3)})
    rows = []
    for classes, judged in (("upright", upright), ("four turns", turned)):
        for images, shifts in (("once", SHIFTS[:1]), ("moved", SHIFTS)):
            vectors = torch.zeros(len(judged.arrays), settings.model.dimension)
            vectors[judged.pool.rows] = encode(model, judged.arrays[judged.pool.rows.numpy()], shifts)
            of = Suite(suite.name, suite.novelty, judged.pool)
            accuracies = {way: judge(model, of, vectors, settings, way) for way in (5, 20)}
            for i, (way, shot, mark) in enumerate(CELLS):
                accuracy, half = mean_interval(accuracies[way][shot])
                published = ", ".join(f"{who} {100 * values[i]:.1f}" for who, values in PUBLISHED.items())
                print(
                    f"{classes:10} {images:5} {way:3}-way {shot}-shot  {100 * accuracy:.2f} ± {100 * half:.2f}"
                    f"  mark {100 * mark:.1f} {'met' if accuracy >= mark else 'missed'}  ({published})"
                )
                rows.append(
                    {
                        "classes": classes,
                        "images": images,
                        "way": way,
                        "shot": shot,
                        "accuracy": round(accuracy, 5),
                        "ci95": round(half, 5),
                        "mark": mark,
                    }
                )
    if arguments.validation:
        return
    path = Path(__file__).parent / "results/omniglot.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results[name] = {
        "split": arguments.split,
        "sides": counts,
        "parameters": parameters,
        "dimension": arguments.dimension,
        "steps": arguments.steps,
        "seed": settings.seed,
        "episodes": EPISODES,
        "query": QUERY,
        "rows": rows,
    }
    write_json(path, dict(sorted(results.items())))


if __name__ == "__main__":
    main()
