"""What `quickstudy compare` runs: cells trained alike, judged on the same episodes, timed together."""

import contextlib
import json
import math
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import pandas as pd
import torch

from quickstudy.comparison.grid import Cell
from quickstudy.comparison.table import Cost
from quickstudy.comparison.timing import time_adaptation
from quickstudy.config import Evaluate, Settings
from quickstudy.data.dataset import Dataset
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.answers import Subject, evaluate
from quickstudy.model.store import load_model, save_model
from quickstudy.pipeline.arrays import read_arrays
from quickstudy.pipeline.judging import judging_code
from quickstudy.pipeline.meta_train import Training, prepare_training
from quickstudy.system.atomic import draft, write_json
from quickstudy.tasks.frozen import FrozenEpisodes
from quickstudy.training import meta_train, write_curve

CELLS = Path(".cache/compare")


Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Run:
    """A cell that was trained with one seed, and judged."""

    folder: Path
    answers: pd.DataFrame
    """one row an episode"""
    cost: Cost


def compare_all(
    cell: Cell,
    settings: Settings,
    datasets: dict[str, Dataset],
    frozen: Sequence[FrozenEpisodes],
    title: str,
    progress: Progress,
) -> Run:
    """Train a model and judge it; what was done before is read."""
    with threads_of(settings.train.threads):
        training = prepare_training(settings, frozen[0].kind, datasets, progress)
        folder = CELLS / training.key
        cost = _train(training, settings, folder, lambda done, total: progress(title, done, total))
        answers = _judge(folder, settings, datasets, frozen, f"{title}: judge", progress)
    about = {"cell": cell.name, "learner": cell.learner, "change": cell.change.text if cell.change else ""}
    return Run(folder, answers.assign(**about, seed=settings.seed), cost)


@contextlib.contextmanager
def threads_of(number: int) -> Iterator[None]:
    """So many threads of torch for a while; 0 leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(training: Training, settings: Settings, folder: Path, progress: Callable[[int, int], None]) -> Cost:
    """FOLDER/model, curve.csv and, last of all, cost.json, which says that the cell is trained."""
    record, checkpoint = folder / "cost.json", folder / "checkpoint.safetensors"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Cost(**json.loads(record.read_text(encoding="utf-8")))
    counted = _forget_peak()
    result = meta_train(
        training.model,
        training.sources["train"],
        training.sources["validation"],
        settings,
        checkpoint,
        lambda step, steps, text: progress(step, steps),
    )
    parameters = sum(p.numel() for p in training.model.parameters())
    cost = Cost(result.seconds, parameters, _peak_mib() if counted else math.nan)
    save_model(training.model, folder / "model", training.lineage)
    write_curve(folder / "curve.csv", result.curve)
    write_json(record, asdict(cost))
    checkpoint.unlink(missing_ok=True)
    return cost


def _judge(
    folder: Path,
    settings: Settings,
    datasets: Mapping[str, Dataset],
    frozen: Sequence[FrozenEpisodes],
    title: str,
    progress: Progress,
) -> pd.DataFrame:
    """One row an episode of what the model has learned; kept in FOLDER, a file a dataset."""
    try:
        model = load_model(folder / "model", frozen[0].kind)
    except QuickstudyError as error:
        raise QuickstudyError(error.what, where=folder, fix="Delete the folder: it is then trained anew") from None
    blocks = [block for block in frozen if block.modality in model.encoders]
    if not blocks:
        raise QuickstudyError(f"there are no episodes of what it has learned ({', '.join(model.modalities)})")
    names = dict.fromkeys(block.dataset for block in blocks)
    arrays = read_arrays({name: datasets[name] for name in names}, model, progress)
    ours = Evaluate(baselines=False, scratch_episodes=0, scratch_steps=1, timed_episodes=1)  # `time_all` has the word
    total, before = sum(block.count for block in blocks), 0
    parts = []
    for name in names:
        own = [block for block in blocks if block.dataset == name]
        path = folder / f"judged-{name}-{_judgement_key(own, arrays[name][1])}.parquet"
        frame = None
        with contextlib.suppress(OSError, ValueError):  # missing, or damaged: judged anew
            frame = pd.read_parquet(path)
        if frame is None:
            subject = {name: Subject(datasets[name], arrays[name][0])}
            frame = evaluate(
                model,
                subject,
                own,
                ours,
                settings.seed,
                lambda done, _, before=before: progress(title, before + done, total),  # type: ignore[misc]
            )
            with draft(path) as part:
                frame.to_parquet(part, index=False, compression="zstd")
        parts.append(frame.drop(columns=["method", "adapt_ms"]))
        before += sum(block.count for block in own)
    return pd.concat(parts, ignore_index=True)


def _judgement_key(blocks: Sequence[FrozenEpisodes], data: str) -> str:
    """Names a judgement by what it depends on besides the model: episodes, data and code."""
    digest = blake2b(data.encode(), digest_size=12)
    digest.update(judging_code(blocks[0].kind).encode())
    for block in blocks:
        episodes = block.episodes
        digest.update(repr((block.suite, episodes.support.shape, episodes.query.shape)).encode())
        for rows in (episodes.support, episodes.query, episodes.asked):
            digest.update(rows.numpy().tobytes() if rows is not None else b"")
    return digest.hexdigest()


def time_all(
    folders: Mapping[str, Path],
    datasets: Mapping[str, Dataset],
    frozen: Sequence[FrozenEpisodes],
    count: int,
    progress: Progress,
) -> pd.DataFrame:
    """What adapting takes by cell, suite, shot and episode. Another cell beside them, and all are timed anew: only
    times that were taken together can be compared."""
    digest = blake2b(repr((count, sorted((n, f.name) for n, f in folders.items()))).encode(), digest_size=12)
    digest.update(_judgement_key(frozen, "").encode())
    path = CELLS / f"times-{digest.hexdigest()}.parquet"
    with contextlib.suppress(OSError, ValueError):
        return pd.read_parquet(path)
    models = {name: load_model(folder / "model", frozen[0].kind) for name, folder in folders.items()}
    blocks = [block for block in frozen if all(block.modality in model.encoders for model in models.values())]
    times = time_adaptation(models, datasets, blocks, count, lambda done, total: progress("time", done, total))
    with draft(path) as part:
        times.to_parquet(part, index=False, compression="zstd")
    return times


def _forget_peak() -> bool:
    """Let the system count the most memory that the process holds from here on. False where it cannot (not Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
