"""The stage meta_train of a kind: data, build/tasks/KIND → build/model/KIND, build/meta_train/KIND."""

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from quickstudy.config import Settings, load_settings
from quickstudy.data.dataset import Dataset
from quickstudy.data.manifest import MANIFEST, read_manifest
from quickstudy.drift.reference import Known, remember, write_reference
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.episodes import labels_of
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model, weights_digest
from quickstudy.pipeline.arrays import read_arrays, set_threads
from quickstudy.pipeline.inputs import open_datasets
from quickstudy.pipeline.paths import CACHE, LIVE, META_TRAIN, MODEL, NO_PART, TASKS, folder_of
from quickstudy.system.atomic import write_json
from quickstudy.system.processes import stream
from quickstudy.system.progress import asking, read_event, say, showing_progress
from quickstudy.tasks.splits import meta_split
from quickstudy.tasks.suites import training_pools
from quickstudy.training import Engine, Source, write_curve
from quickstudy.training.cost import Meter
from quickstudy.training.engine import MEETING
from quickstudy.training.loop import meta_train as fit

KEPT_CHECKPOINTS = 3


def meta_train(kind: str) -> None:
    """Meta-train the model's part for a kind on the meta-train groups.

    With train.processes above 1 it starts that many of itself by torchrun. Where the project has no dataset of the kind
    there is no part, and that is what is written.

    Raises:
        QuickstudyError: nothing can be learned from the data, the settings make no model, the training diverges, or the
            stage tasks has not run.
    """
    settings = load_settings().of(kind)
    if not read_manifest(TASKS / kind / MANIFEST):
        _nothing(kind)
        return
    if settings.train.processes > 1 and "WORLD_SIZE" not in os.environ:
        _in_processes(kind, settings.train.processes, settings.train.threads)
        return

    set_threads(settings)
    engine = Engine(settings.train)
    with engine.fabric.rank_zero_first(), showing_progress() as progress:  # what it computes, the others find cached
        datasets = open_datasets(kind)
        training = prepare_training(settings, kind, datasets, progress)
    model = training.model
    checkpoint = CACHE / "checkpoints" / f"{training.key}.safetensors"
    CACHE.mkdir(exist_ok=True)
    first, gpu = engine.fabric.local_rank == 0, engine.device.type == "cuda"
    with (
        showing_progress() as progress,
        (LIVE if engine.rank == 0 else Path(os.devnull)).open("w") as live,
        Meter(energy=first, gpu=gpu) as meter,
    ):
        result = fit(
            model,
            training.sources["train"],
            training.sources["validation"],
            settings,
            checkpoint,
            (lambda step, steps, text: progress("meta-train", step, steps)) if engine.rank == 0 else None,
            lambda numbers: print(json.dumps(numbers), file=live, flush=True),
            engine,
            meter.read,
        )
    if engine.rank:
        return
    part, folder = folder_of(MODEL, kind), folder_of(META_TRAIN, kind)
    save_model(model, MODEL, training.lineage)
    write_reference(part, remembered(model, datasets, training.sources["train"], settings.drift.examples))
    write_curve(folder / "curve.csv", result.curve)
    last = next(look for look in reversed(result.curve) if look.step <= result.step)
    metrics = {"loss": round(last.loss, 5), "alpha": round(model.learner.alpha.detach().mean().item(), 5)}
    metrics |= {f"validation_{name}": round(value, 5) for name, value in last.scores.items() if value == value}
    write_json(folder / "metrics.json", metrics)
    parameters = sum(p.numel() for p in model.parameters())
    told: dict[str, Any] = {"seconds": round(result.seconds, 1), "steps": result.curve[-1].step}
    told["parameters"] = parameters
    told |= {name: round(value, 4) for name, value in sorted(result.cost.items())}
    if "cpu_wh" in result.cost:
        told["cpu_energy"] = "measured" if meter.measured else "estimated"
    write_json(folder / "training.json", told)
    for old in sorted(checkpoint.parent.glob("*.safetensors"), key=lambda p: p.stat().st_mtime)[:-KEPT_CHECKPOINTS]:
        old.unlink()
    early = (
        f", stopped early; the weights are those of step {result.step}" if result.step < settings.train.steps else ""
    )
    digest = weights_digest(MODEL, kind)
    text = f"{kind}: {result.curve[-1].step} steps in {result.seconds:.0f} s{early}, weights sha256 {digest[:12]}…"
    say({"event": "summary", "text": text}, sys.stdout)


def _nothing(kind: str) -> None:
    """Say in the stage's outputs that there is no part for a kind."""
    why = f"no dataset of kind {kind}"
    write_json(folder_of(MODEL, kind) / NO_PART, {"why": why})
    folder = folder_of(META_TRAIN, kind)
    for name in ("metrics.json", "training.json"):
        write_json(folder / name, {})
    (folder / "curve.csv").write_text("step,loss\n", encoding="utf-8")
    print(f"{kind}: nothing to learn, there is {why}")


def _in_processes(kind: str, count: int, threads: int) -> None:
    """This stage in so many processes on this machine, by torchrun. What they tell is passed on, and what else they
    print where they fail.

    By itself torchrun has its processes meet at a port that every machine reaches, asks nobody for a password there and
    loads pickles from it. Here they meet in a folder of this user's, and speak by the loopback interface.
    """
    lines: list[str] = []
    mistakes: list[str] = []

    def take(line: str) -> None:
        event = read_event(line)
        if event is None:
            lines.append(line)
        elif event["event"] == "error":
            mistakes.append(event["text"])
        else:
            say(event, sys.stdout)

    loopback = "lo" if sys.platform == "linux" else "lo0"
    with tempfile.TemporaryDirectory(prefix="quickstudy-processes-") as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(count)]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{folder}/torchrun", "--rdzv-conf", "store_type=file"]
        command += ["--rdzv-id", kind, "-m", "quickstudy", "meta_train", "--kind", kind]
        env = {
            **asking(),
            "OMP_NUM_THREADS": str(threads or max(1, (os.cpu_count() or 1) // count)),
            MEETING: f"{folder}/processes",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", loopback),
            "NCCL_SOCKET_IFNAME": os.environ.get("NCCL_SOCKET_IFNAME", loopback),
        }
        code = stream(command, Path.cwd(), take, env)
    if code:
        if mistakes:
            raise QuickstudyError(mistakes[0])
        print("\n".join(lines[-40:]), file=sys.stderr)
        raise typer.Exit(1)


@dataclass(frozen=True)
class Training:
    """What a training begins with."""

    model: MetaModel
    """untrained"""
    sources: dict[str, list[Source]]
    """by side of the meta-split: train, validation"""
    key: str
    """names all that the training depends on"""
    lineage: dict[str, Any]
    """what is kept with the trained model"""


def prepare_training(settings: Settings, kind: str, datasets: dict[str, Dataset], progress: Any) -> Training:
    """Draw the model's first weights and gather what it will learn from.

    Raises:
        QuickstudyError: there is nothing to learn from, or the settings make no model.
    """
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
    model = MetaModel(settings.inputs, settings.model, {datasets[name].modality for name in learned}, kind)
    arrays = read_arrays(
        {n: datasets[n] for n in datasets if pools["train"][n] or pools["validation"][n]}, model, progress
    )
    sources = {
        split: [
            Source(pool, arrays[name][0], labels_of(datasets[name]))
            for name, found in by_name.items()
            for pool in found
            if pool.modality in model.encoders
        ]
        for split, by_name in pools.items()
    }
    key = _training_key(settings, kind, {name: arrays[name][1] for name in sorted(arrays)})
    groups = {name: _trained_groups(datasets[name], settings) for name in learned}
    lineage = {"trained_on": groups, "seed": settings.seed, "steps": settings.train.steps, "inputs": key}
    return Training(model, sources, key, lineage)


def remembered(model: MetaModel, datasets: dict[str, Dataset], learned: list[Source], examples: int) -> list[Known]:
    """What a trained model remembers of each dataset, to tell drift by; ``learned`` is what it was trained on."""
    known = []
    for name, dataset in datasets.items():
        own = [source for source in learned if source.pool.dataset == name]
        rows = np.concatenate([np.empty(0, np.int64), *(source.pool.rows.numpy() for source in own)])
        known.append(remember(model, dataset, rows, np.asarray(own[0].arrays) if own else None, examples))
    return known


def _trained_groups(dataset: Dataset, settings: Settings) -> list[str]:
    groups, _ = dataset.codes("group")
    return [group for group in groups if meta_split(dataset.info, group, settings.splits) == "train"]


def _training_key(settings: Settings, kind: str, digests: dict[str, str]) -> str:
    """Names a checkpoint by all that a training depends on: settings, data and code."""
    digest = blake2b(digest_size=12)
    values = settings.model_dump(mode="json", include={"seed", "splits", "inputs", "model", "train"})
    digest.update(json.dumps([kind, values, digests, torch.__version__], sort_keys=True).encode())
    digest.update(_training_code(kind))
    return digest.hexdigest()


@cache
def _training_code(kind: str) -> bytes:
    """The code that a training runs, read once: what is edited later does not run in this process."""
    package = Path(__file__).parents[1]
    rooms = ("encoders/**", "kinds", f"kinds/{kind}", "learners/**", "model/**", "tasks/**", "training/**")
    paths = sorted(path for room in rooms for path in package.glob(f"{room}/*.py"))
    return b"".join(path.read_bytes() for path in paths)
