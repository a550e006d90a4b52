"""The stages that dvc.yaml calls: files in, files out, nothing else."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from quickstudy.errors import QuickstudyError
from quickstudy.system.atomic import write_json

if TYPE_CHECKING:
    from quickstudy.config import Settings
    from quickstudy.data.dataset import Dataset
    from quickstudy.drift.reference import Known
    from quickstudy.model.metamodel import MetaModel
    from quickstudy.training import Source

DATA, CACHE = Path("data"), Path(".cache")
TASKS, MODEL, META_TRAIN = Path("build/tasks"), Path("build/model"), Path("build/meta_train")
EVALUATE, CARD = Path("build/evaluate"), Path("build/card")
KEPT_CHECKPOINTS = 3
LIVE = CACHE / "live.jsonl"
"""A line for each step of the training that runs, or ran last."""

PANEL = "Stages (dvc.yaml calls these; `quickstudy run` brings them up to date)"


def register(app: typer.Typer) -> None:
    """Add the stages to the command line."""
    app.command(rich_help_panel=PANEL)(tasks)
    app.command("meta_train", rich_help_panel=PANEL)(meta_train)
    app.command(rich_help_panel=PANEL)(card)


def tasks() -> None:
    """Check the data, split it by group and freeze the evaluation episodes. data → build/tasks"""
    from dataclasses import asdict
    from functools import partial

    import numpy as np
    import yaml

    from quickstudy.config import load_settings
    from quickstudy.ingest.checks import check_datasets
    from quickstudy.system.progress import showing_progress
    from quickstudy.tasks.frozen import freeze, write_episodes
    from quickstudy.tasks.splits import meta_split, row_splits
    from quickstudy.tasks.suites import test_suites

    settings = load_settings()
    datasets = open_datasets()
    with showing_progress() as progress:
        findings = check_datasets(
            list(datasets.values()), settings, partial(meta_split, splits=settings.splits),
            cache=CACHE / "checks", progress=lambda name, done, total: progress(f"check {name}", done, total),
        )  # fmt: skip
    fatal = [finding for finding in findings if finding.severity == "fatal"]
    if fatal:
        more = f" (and {len(fatal) - 1} more: `quickstudy data check`)" if len(fatal) > 1 else ""
        raise QuickstudyError(fatal[0].what + more, where=f"data/{fatal[0].dataset}", fix=fatal[0].fix)
    splits: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    frozen = []
    for name, dataset in datasets.items():
        groups = [(group, meta_split(dataset.info, group, settings.splits)) for group in dataset.codes("group")[0]]
        splits[name] = {"groups": dict(groups)}
        _, held_out = row_splits(dataset, settings.splits)
        if held_out.any():
            domains, domain = dataset.codes("domain")
            splits[name]["domains_held_out"] = [domains[number] for number in np.unique(domain[held_out])]
        suites = test_suites(dataset, settings.splits)
        frozen += [block for suite in suites for block in freeze(suite, settings.episodes, settings.seed)]
        counts[name] = {"examples": len(dataset), "classes": len(dataset.classes)}
        counts[name] |= {f"groups_{s}": sum(1 for _, of in groups if of == s) for s in ("train", "validation", "test")}
    if not frozen:
        raise QuickstudyError(
            "no dataset has a group on the meta-test side with enough examples", where="data",
            fix="Import one with --split test, or lower episodes.shots in params.yaml",
        )  # fmt: skip
    TASKS.mkdir(parents=True, exist_ok=True)
    (TASKS / "splits.yaml").write_text(yaml.safe_dump(splits, allow_unicode=True), encoding="utf-8")
    write_episodes(TASKS / "episodes.parquet", frozen)
    write_json(TASKS / "checks.json", [asdict(finding) for finding in findings])
    write_json(TASKS / "tasks.json", counts)
    episodes = sum(block.count for block in frozen)
    print(f"{len(datasets)} datasets, {episodes:,} frozen episodes, {len(findings)} findings recorded")


def meta_train() -> None:
    """Meta-train the model on the meta-train groups. data, build/tasks → build/model, build/meta_train

    With train.processes above 1 it starts that many of itself by torchrun. Over several machines start it by torchrun
    on each: `torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m quickstudy
    meta_train`, in project folders on a file system that they share.
    """
    import os

    from quickstudy.config import load_settings

    settings = load_settings()
    if settings.train.processes > 1 and "WORLD_SIZE" not in os.environ:
        _in_processes(settings.train.processes, settings.train.threads)
        return
    import json

    from quickstudy.drift.reference import write_reference
    from quickstudy.model.store import save_model, weights_digest
    from quickstudy.system.progress import showing_progress
    from quickstudy.training import Engine, meta_train, write_curve
    from quickstudy.training.cost import Meter

    _set_threads(settings)
    engine = Engine(settings.train)
    with engine.fabric.rank_zero_first(), showing_progress() as progress:  # what it computes, the others find cached
        datasets = open_datasets()
        training = prepare_training(settings, datasets, progress)
    model = training.model
    checkpoint = CACHE / "checkpoints" / f"{training.key}.safetensors"
    CACHE.mkdir(exist_ok=True)
    first, gpu = engine.fabric.local_rank == 0, engine.device.type == "cuda"
    with (
        showing_progress() as progress,
        (LIVE if engine.rank == 0 else Path(os.devnull)).open("w") as live,
        Meter(energy=first, gpu=gpu) as meter,
    ):
        result = meta_train(
            model, training.sources["train"], training.sources["validation"], settings, checkpoint,
            (lambda step, steps, text: progress("meta-train", step, steps)) if engine.rank == 0 else None,
            lambda numbers: print(json.dumps(numbers), file=live, flush=True), engine, meter.read,
        )  # fmt: skip
    if engine.rank:
        return
    save_model(model, MODEL, training.lineage)
    write_reference(MODEL, remembered(model, datasets, training.sources["train"], settings.drift.examples))
    META_TRAIN.mkdir(parents=True, exist_ok=True)
    write_curve(META_TRAIN / "curve.csv", result.curve)
    last = next(look for look in reversed(result.curve) if look.step <= result.step)
    metrics = {"loss": round(last.loss, 5), "alpha": round(model.learner.alpha.detach().mean().item(), 5)}
    metrics |= {f"validation_{name}": round(value, 5) for name, value in last.accuracy.items() if value == value}
    write_json(META_TRAIN / "metrics.json", metrics)
    parameters = sum(p.numel() for p in model.parameters())
    told: dict[str, Any] = {"seconds": round(result.seconds, 1), "steps": result.curve[-1].step}
    told["parameters"] = parameters
    told |= {name: round(value, 4) for name, value in sorted(result.cost.items())}
    if "cpu_wh" in result.cost:
        told["cpu_energy"] = "measured" if meter.measured else "estimated"
    write_json(META_TRAIN / "training.json", told)
    for old in sorted(checkpoint.parent.glob("*.safetensors"), key=lambda p: p.stat().st_mtime)[:-KEPT_CHECKPOINTS]:
        old.unlink()
    early = (
        f", stopped early; the weights are those of step {result.step}" if result.step < settings.train.steps else ""
    )
    print(
        f"{result.curve[-1].step} steps in {result.seconds:.0f} s{early}, weights sha256 {weights_digest(MODEL)[:12]}…"
    )


def _in_processes(count: int, threads: int) -> None:
    """This stage in so many processes on this machine, by torchrun. What they print is passed on."""
    import os
    import sys

    from quickstudy.system.processes import stream

    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        if line.startswith("meta-train: ") or " steps in " in line:
            print(line, flush=True)

    code = stream(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m",
         "quickstudy", "meta_train"],
        Path.cwd(), tell, {"OMP_NUM_THREADS": str(threads or max(1, (os.cpu_count() or 1) // count))},
    )  # fmt: skip
    if code:
        told = [line.removeprefix("quickstudy: ") for line in lines if line.startswith("quickstudy: ")]
        if told:
            raise QuickstudyError(told[0])
        print("\n".join(lines[-40:]), file=sys.stderr)
        raise typer.Exit(1)


def evaluate_stage() -> None:
    """Judge the model on the frozen episodes, beside the baselines. build/model, build/tasks → build/evaluate"""
    from quickstudy.config import load_settings
    from quickstudy.evaluation.answers import Subject, beaten_by, evaluate, summarise, write_evaluation
    from quickstudy.model.store import load_model
    from quickstudy.system.progress import showing_progress
    from quickstudy.tasks.frozen import read_episodes

    settings = load_settings()
    _set_threads(settings)
    model = load_model(MODEL)
    frozen = [block for block in read_episodes(TASKS / "episodes.parquet") if block.modality in model.encoders]
    if not frozen:
        raise QuickstudyError(
            f"no episodes of what the model has learned ({', '.join(model.modalities)})",
            where=TASKS / "episodes.parquet", fix="Import such data for meta-test, or other data for meta-train",
        )  # fmt: skip
    datasets = read_datasets()
    with showing_progress() as progress:
        arrays = read_arrays(
            {name: datasets[name] for name in dict.fromkeys(block.dataset for block in frozen)}, model, progress
        )
        subjects = {name: Subject(datasets[name], array) for name, (array, _) in arrays.items()}
        frame = evaluate(
            model, subjects, frozen, settings.evaluate, settings.seed,
            lambda done, total: progress("evaluate", done, total),
        )  # fmt: skip
    write_evaluation(EVALUATE, frame)
    below = beaten_by(summarise(frame))
    print(f"{len(frame):,} episodes judged; below a baseline's interval at {len(below)} places")


def card() -> None:
    """Write the model card and its figures. build/* → build/card"""
    from quickstudy.card import write_card

    write_card(Path("build"), CARD)


@dataclass(frozen=True)
class Training:
    """What a training begins with."""

    model: "MetaModel"
    """untrained"""
    sources: "dict[str, list[Source]]"
    """by side of the meta-split: train, validation"""
    key: str
    """names all that the training depends on"""
    lineage: dict[str, Any]
    """what is kept with the trained model"""


def prepare_training(settings: "Settings", datasets: "dict[str, Dataset]", progress: Any) -> Training:
    """Draw the model's first weights and gather what it will learn from.

    Raises:
        QuickstudyError: there is nothing to learn from, or the settings make no model.
    """
    import torch

    from quickstudy.model.metamodel import MetaModel
    from quickstudy.tasks.suites import training_pools
    from quickstudy.training import Source

    pools = {
        split: {name: training_pools(dataset, settings.splits, split) for name, dataset in datasets.items()}
        for split in ("train", "validation")
    }
    learned = [name for name, found in pools["train"].items() if found]
    if not learned:
        raise QuickstudyError(
            "no dataset has a group on the meta-train side", where="data", fix="Import one without --split test"
        )
    torch.manual_seed(settings.seed)
    model = MetaModel(settings.inputs, settings.model, {datasets[name].modality for name in learned})
    arrays = read_arrays(
        {n: datasets[n] for n in datasets if pools["train"][n] or pools["validation"][n]}, model, progress
    )
    sources = {
        split: [Source(pool, arrays[name][0]) for name, found in by_name.items() for pool in found
                if pool.modality in model.encoders]
        for split, by_name in pools.items()
    }  # fmt: skip
    key = _training_key(settings, {name: arrays[name][1] for name in sorted(arrays)})
    groups = {name: _trained_groups(datasets[name], settings) for name in learned}
    lineage = {"trained_on": groups, "seed": settings.seed, "steps": settings.train.steps, "inputs": key}
    return Training(model, sources, key, lineage)


def remembered(
    model: "MetaModel", datasets: "dict[str, Dataset]", learned: "list[Source]", examples: int
) -> "list[Known]":
    """What a trained model remembers of each dataset, to tell drift by; ``learned`` is what it was trained on."""
    import numpy as np

    from quickstudy.drift.reference import remember

    known = []
    for name, dataset in datasets.items():
        own = [source for source in learned if source.pool.dataset == name]
        rows = np.concatenate([np.empty(0, np.int64), *(source.pool.rows.numpy() for source in own)])
        known.append(remember(model, dataset, rows, np.asarray(own[0].arrays) if own else None, examples))
    return known


def read_datasets() -> "dict[str, Dataset]":
    """All of data/ in memory, by name. QuickstudyError where there is none."""
    from quickstudy.data.dataset import read_dataset

    return {name: read_dataset(DATA / name) for name in _names()}


def open_datasets() -> "dict[str, Dataset]":
    """All of data/ by name, its examples read as they are asked for. QuickstudyError where there is none."""
    from quickstudy.data.contents import MEMORY
    from quickstudy.data.dataset import PLACES, read_dataset

    return {name: read_dataset(DATA / name, PLACES, MEMORY) for name in _names()}


def _names() -> list[str]:
    from quickstudy.data.dataset import dataset_names

    names = dataset_names(DATA)
    if not names:
        raise QuickstudyError("no datasets", where=DATA, fix="`quickstudy data build` makes the starter data")
    return names


def read_arrays(datasets: "dict[str, Dataset]", model: "MetaModel", progress: Any) -> dict[str, tuple[Any, str]]:
    """By dataset: its memory-mapped array and the digest of what it was computed from."""
    from functools import partial

    from quickstudy.encoders.features import features

    found = {}
    for name, dataset in datasets.items():
        if dataset.modality in model.encoders:
            told = partial(progress, f"prepare {name}")
            found[name] = features(dataset, model.encoder(dataset.modality), CACHE / "features", told)
    return found


def _trained_groups(dataset: "Dataset", settings: "Settings") -> list[str]:
    from quickstudy.tasks.splits import meta_split

    groups, _ = dataset.codes("group")
    return [group for group in groups if meta_split(dataset.info, group, settings.splits) == "train"]


def _training_key(settings: "Settings", digests: dict[str, str]) -> str:
    """Names a checkpoint by all that a training depends on: settings, data and code."""
    import json
    from hashlib import blake2b

    import torch

    digest = blake2b(digest_size=12)
    values = settings.model_dump(mode="json", include={"seed", "splits", "inputs", "model", "train"})
    digest.update(json.dumps([values, digests, torch.__version__], sort_keys=True).encode())
    digest.update(_training_code())
    return digest.hexdigest()


@cache
def _training_code() -> bytes:
    """The code that a training runs, read once: what is edited later does not run in this process."""
    import quickstudy

    package = Path(quickstudy.__file__).parent
    paths = sorted([*package.glob("model/**/*.py"), *package.glob("tasks/*.py"), *package.glob("training/*.py")])
    return b"".join(path.read_bytes() for path in paths)


def _set_threads(settings: "Settings") -> None:
    import torch

    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
