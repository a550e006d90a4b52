"""Real speech, meta-trained on synthetic words alone and with real words added.

    .venv/bin/python benchmarks/speech.py [--datasets ../shared/datasets] [--seeds 2] [--steps 500]

Four trainings for each seed, audio alone, with everything else as in params.yaml: on the starter dataset words
(espeak-ng), and with FSDD, with Arabic speech commands, or with both added. What is judged shares neither a word nor a
person with any training:

- fsdd: English digits, people. Added to training: 0 to 4 by four people. Judged: 5 to 9 by the two others, and, for
  models that never heard FSDD, all ten digits by all six people. (The keyed hash would leave four digits to judge by,
  and no person, so that both are told apart by the order of their names.)
- arabic: 28 keywords, 24 people, apart by the keyed hash with a share of 0.4 for meta-test: 14 keywords by 6 people.

The words of the starter data hold no numbers and are English. The starter data has to be there (`quickstudy data
build`). It resumes where it was stopped, prints a table and writes benchmarks/results/speech.json. About 5 minutes of
one core a training.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from quickstudy.config import Evaluate, Settings, Splits, changed, load_settings
from quickstudy.data.dataset import Dataset, read_dataset
from quickstudy.encoders.features import features
from quickstudy.evaluation.answers import Subject, evaluate
from quickstudy.ingest.importers.options import ImportOptions
from quickstudy.ingest.importers.source import import_source
from quickstudy.kinds.episodes import labels_of, pool_of
from quickstudy.kinds.task import Pool
from quickstudy.model.metamodel import MetaModel
from quickstudy.stats.intervals import paired_interval, stratified_interval
from quickstudy.system.atomic import write_json
from quickstudy.tasks.frozen import freeze
from quickstudy.tasks.splits import row_splits
from quickstudy.tasks.suites import Suite, training_pools
from quickstudy.training import Source, meta_train

PROJECT = Path(__file__).resolve().parent.parent
ADDED: dict[str, tuple[str, ...]] = {
    "synthetic": (),
    "+ fsdd": ("fsdd",),
    "+ arabic": ("arabic",),
    "+ both": ("fsdd", "arabic"),
}
TRAINED_DIGITS, TRAINED_PEOPLE = {"0", "1", "2", "3", "4"}, {"george", "jackson", "lucas", "nicolas"}
ARABIC_SHARES = {"validation": 0.1, "test": 0.4}
WAY, SHOTS, QUERY, EPISODES = 5, (1, 5), 5, 1000
ALONE = Evaluate(baselines=False, scratch_episodes=0, scratch_steps=1, timed_episodes=0)


def real_words(datasets: Path) -> tuple[Dataset, Dataset]:
    spoken = ImportOptions(pattern="{class}_{speaker}_{}", domain="speaker", group="class")
    fsdd = import_source(datasets / "fsdd/recordings.zip", "fsdd", spoken)
    spoken = ImportOptions(pattern="{class}/{speaker}_{}_{}", domain="speaker", group="class")
    arabic = import_source(datasets / "arabic_speech_commands/clips.zip", "arabic", spoken)
    return Dataset(*fsdd), Dataset(*arabic)


def split(fsdd: Dataset, arabic: Dataset, settings: Settings) -> tuple[dict[str, Pool], list[Suite]]:
    """The pools to add to meta-training, by dataset, and the suites to judge by."""
    digit_known = np.isin(fsdd.column("label"), sorted(TRAINED_DIGITS))
    person_known = np.isin(fsdd.column("domain"), sorted(TRAINED_PEOPLE))
    side, unheard = row_splits(arabic, Splits(key=settings.splits.key, **ARABIC_SHARES))
    pools = {
        "fsdd": pool_of(fsdd, digit_known & person_known),
        "arabic": pool_of(arabic, (side == "train") & ~unheard),
    }
    suites = [
        Suite("fsdd, 5 new digits by new people", "domain", pool_of(fsdd, ~digit_known & ~person_known)),
        Suite("fsdd, all ten digits", "dataset", pool_of(fsdd, np.ones(len(fsdd), dtype=bool))),
        Suite("arabic, new keywords by new people", "domain", pool_of(arabic, (side == "test") & unheard)),
    ]
    return pools, suites


def size(pool: Pool, dataset: Dataset) -> dict[str, int]:
    people = np.array(dataset.column("domain"))[pool.rows.numpy()]
    return {"words": len(pool.classes), "people": len(set(people)), "recordings": len(people)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=Path, default=PROJECT / "../shared/datasets")
    parser.add_argument("--data", type=Path, default=PROJECT / "data", help="the starter data")
    parser.add_argument("--cache", type=Path, default=PROJECT / ".cache", help="of features and checkpoints")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, help="of each training; by default those of params.yaml")
    arguments = parser.parse_args()
    base = load_settings(PROJECT / "params.yaml")
    base = changed(base, "train.steps", arguments.steps or base.train.steps)
    words = read_dataset(arguments.data / "words")
    fsdd, arabic = real_words(arguments.datasets)
    pools, suites = split(fsdd, arabic, base)
    reader = MetaModel(base.inputs, base.model, ["audio"]).encoder("audio")
    arrays = {d.name: features(d, reader, arguments.cache / "features")[0] for d in (words, fsdd, arabic)}
    labels = {d.name: labels_of(d) for d in (words, fsdd, arabic)}
    subjects = {d.name: Subject(d, arrays[d.name]) for d in (fsdd, arabic)}
    own, looks = (
        [Source(pool, arrays["words"], labels["words"]) for pool in training_pools(words, base.splits, side)]
        for side in ("train", "validation")
    )
    episodes = base.episodes.model_copy(
        update={"count": EPISODES, "query": QUERY, "way": WAY, "ways": {}, "shots": SHOTS}
    )
    frozen = [block for suite in suites for block in freeze(suite, episodes, base.seed)]
    (arguments.cache / "checkpoints").mkdir(parents=True, exist_ok=True)

    found: dict[tuple[str, str, int], list[np.ndarray]] = {}  # accuracies by training, suite and shot; one a seed
    for seed in range(arguments.seeds):
        settings = changed(base, "seed", seed)
        for training, added in ADDED.items():
            name = "-".join(["speech", str(settings.train.steps), *added, str(seed)])
            torch.manual_seed(seed)
            model = MetaModel(settings.inputs, settings.model, ["audio"])

            def progress(step: int, steps: int, text: str, name: str = name) -> None:
                if step % 100 == 0 or step == steps:
                    print(f"{name}: step {step} of {steps}, {text}", file=sys.stderr)

            sources = own + [Source(pools[other], arrays[other], labels[other]) for other in added]
            checkpoint = arguments.cache / "checkpoints" / f"{name}.safetensors"
            meta_train(model, sources, looks, settings, checkpoint, progress)
            fair = [block for block in frozen if "fsdd" not in added or "all ten" not in block.suite]
            frame = evaluate(model, subjects, fair, ALONE, seed)
            for (suite, shot), part in frame.groupby(["suite", "shot"], sort=False):
                found.setdefault((training, suite, shot), []).append(part["score"].to_numpy())

    sizes = {name: size(pools[name], dataset) for name, dataset in (("fsdd", fsdd), ("arabic", arabic))}
    judged = {suite.name: size(suite.pool, subjects[suite.pool.dataset].dataset) for suite in suites}
    print(f"{arguments.seeds} trainings of {base.train.steps} steps a row, {EPISODES} episodes a cell; added: {sizes}")
    rows = []
    for (training, suite, shot), accuracies in found.items():
        mean, half = stratified_interval([np.stack(accuracies)])
        row = {"training": training, "suite": suite, "way": WAY, "shot": shot, "accuracy": mean, "ci95": half}
        text = f"{training:10} {suite:35} {shot}-shot  {100 * mean:.1f} ± {100 * half:.1f}"
        if training != "synthetic":
            gain, half = paired_interval([np.stack(accuracies)], [np.stack(found["synthetic", suite, shot])])
            row |= {"gain": gain, "gain_ci95": half}
            text += f"   over synthetic {100 * gain:+.1f} ± {100 * half:.1f}"
        print(text)
        rows.append({key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()})
    write_json(
        PROJECT / "benchmarks/results/speech.json",
        {
            "steps": base.train.steps,
            "seeds": arguments.seeds,
            "episodes": EPISODES,
            "query": QUERY,
            "added": sizes,
            "judged": judged,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
