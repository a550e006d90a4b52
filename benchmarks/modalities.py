"""One model over all modalities beside one model for each, trained alike on the starter data.

    .venv/bin/python benchmarks/modalities.py [--seeds 2] [--steps 500]

A step of the joint model has as many tasks of each modality as a step of that modality's own model, all take
train.steps steps, and an encoder begins with the same weights in both. What they can gain from each other, or lose, is
the learner g_φ, which the joint model shares: encoders are a modality's own in both. All answer the same frozen
meta-test episodes.

Run it in the project's folder, with the starter data there (`quickstudy data build`). It resumes where it was stopped,
prints a table and writes benchmarks/results/modalities.json. About 10 minutes of one core a seed.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from quickstudy.comparison.grid import freeze_all
from quickstudy.config import Evaluate, changed, load_settings
from quickstudy.evaluation.answers import Subject, evaluate
from quickstudy.pipeline.arrays import read_arrays
from quickstudy.pipeline.inputs import read_datasets
from quickstudy.pipeline.meta_train import prepare_training
from quickstudy.pipeline.paths import CACHE
from quickstudy.starter import STARTER
from quickstudy.stats.intervals import paired_interval, stratified_interval
from quickstudy.system.atomic import write_json
from quickstudy.training import meta_train

KIND = "classify"
MODALITIES = ("image", "audio", "text")
ALONE = Evaluate(baselines=False, scratch_episodes=0, scratch_steps=1, timed_episodes=0)


def quiet(*_: object) -> None:
    """Features are there, or made without a word."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, help="of each training; by default those of params.yaml")
    arguments = parser.parse_args()
    base = load_settings().of(KIND)
    base = changed(base, "train.steps", arguments.steps or base.train.steps)
    datasets = {name: dataset for name, dataset in read_datasets(KIND).items() if name in STARTER}
    frozen = freeze_all(datasets.values(), base, "test")
    found: dict[tuple[str, str, int], dict[str, list[np.ndarray]]] = {}  # by modality, suite, shot: accuracies a seed

    for seed in range(arguments.seeds):
        settings = changed(base, "seed", seed)
        first = prepare_training(settings, KIND, datasets, quiet).model.state_dict()
        for modality in (None, *MODALITIES):
            own = {name: d for name, d in datasets.items() if modality is None or d.modality == modality}
            training, model_name = prepare_training(settings, KIND, own, quiet), modality or "joint"
            model = training.model
            model.load_state_dict({name: first[name] for name in model.state_dict()})

            def progress(step: int, steps: int, text: str, name: str = f"{model_name}, seed {seed}") -> None:
                if step % 100 == 0:
                    print(f"{name}: step {step} of {steps}, {text}", file=sys.stderr)

            checkpoint = CACHE / "checkpoints" / f"modalities-{model_name}-{training.key}.safetensors"
            meta_train(model, training.sources["train"], training.sources["validation"], settings, checkpoint, progress)
            arrays = read_arrays(own, model, quiet)
            subjects = {name: Subject(own[name], array) for name, (array, _) in arrays.items()}
            frame = evaluate(model, subjects, [b for b in frozen if b.dataset in own], ALONE, seed)
            for (kind, suite, shot), part in frame.groupby(["modality", "suite", "shot"], sort=False):
                which = "joint" if modality is None else "single"
                cell = found.setdefault((kind, suite, shot), {"joint": [], "single": []})
                cell[which].append(part["score"].to_numpy())

    print(f"{arguments.seeds} trainings of {base.train.steps} steps each, {base.episodes.count} episodes a cell")
    rows = []
    for (modality, suite, shot), cell in found.items():
        rows.append({"modality": modality, "suite": suite, "shot": shot} | compare([cell]))
    for modality in MODALITIES:
        cells = [cell for (kind, _, _), cell in found.items() if kind == modality]
        rows.append({"modality": modality, "suite": "mean", "shot": None} | compare(cells))
    for row in rows:
        print(
            f"{row['modality']:6} {row['suite']:22} {row['shot'] or '':>3}  joint {100 * row['joint']:.1f}"
            f"  single {100 * row['single']:.1f}  difference {100 * row['gain']:+.2f} ± {100 * row['ci95']:.2f}"
        )
    write_json(
        Path(__file__).parent / "results/modalities.json",
        {"steps": base.train.steps, "seeds": arguments.seeds, "episodes": base.episodes.count, "rows": rows},
    )


def compare(cells: list[dict[str, list[np.ndarray]]]) -> dict[str, float]:
    """Mean accuracies over cells, and the paired difference with its interval over seeds and episodes."""
    joint, single = ([np.stack(cell[which]) for cell in cells] for which in ("joint", "single"))
    gain, half = paired_interval(joint, single)
    values = {"joint": stratified_interval(joint)[0], "single": stratified_interval(single)[0], "gain": gain}
    return {name: round(value, 5) for name, value in (values | {"ci95": half}).items()}


if __name__ == "__main__":
    main()
