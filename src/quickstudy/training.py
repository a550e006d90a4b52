"""Meta-training: one loop over meta-batches that mix modalities, ways and shots.

Exact by construction: what step t does depends on the seed, t and the weights alone, so that a run that was killed
and resumed ends with the weights of one that was not.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from quickstudy.atomic import draft
from quickstudy.config import Settings, Train
from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.model.learners import WeightLearner
from quickstudy.model.metamodel import MetaModel, TaskBatch
from quickstudy.tasks.episodes import Pool, sample

VALIDATION_EPISODES = 60


@dataclass(frozen=True)
class Source:
    """A pool of examples and the arrays of its dataset, [n, ...], memory-mapped."""

    pool: Pool
    arrays: np.ndarray


@dataclass(frozen=True)
class Look:
    """One line of the training curve."""

    step: int
    loss: float
    accuracy: dict[Modality, float]
    """On meta-validation, 5-way 1-shot; NaN where a modality has no meta-validation pool."""


@dataclass(frozen=True)
class Result:
    curve: list[Look]
    seconds: float
    """of training, over all the runs that it was spread over"""


def gather(arrays: np.ndarray, rows: Tensor) -> Tensor:
    """[n, ...], int64 [...] → [..., array shape]: a whole meta-batch by one index operation."""
    flat = np.ascontiguousarray(arrays[rows.flatten().numpy()])
    return torch.from_numpy(flat).unflatten(0, rows.shape)


def draw_tasks(
    sources: Sequence[Source], train: Train, model: MetaModel, generator: torch.Generator
) -> list[TaskBatch]:
    """One meta-batch: for each modality its number of tasks, each from one source, with a shot and a way of its own."""
    tasks = []
    for modality in model.modalities:
        own = [s for s in sources if s.pool.modality == modality and _way(s.pool, 1, train, modality) >= 2]
        if not own:
            continue
        # A dataset with more classes has more to teach, but does not drown the others.
        weights = torch.tensor([float(len(source.pool.classes)) for source in own]).sqrt()
        for _ in range(getattr(train.tasks, modality)):
            source = own[int(torch.multinomial(weights, 1, generator=generator))]
            shot = train.shots[int(torch.randint(len(train.shots), (1,), generator=generator))]
            while (way := _way(source.pool, shot, train, modality)) < 2 and shot > 1:
                shot -= 1
            episodes = sample(source.pool, 1, way, shot, train.query, generator)
            rows = torch.cat([episodes.support, episodes.query], dim=2)  # [1, N, K + Q]
            arrays = gather(source.arrays, rows[0].flatten())
            arrays = model.encoder(modality).augment(arrays, generator, way)
            arrays = arrays.unflatten(0, (way, shot + train.query))
            tasks.append(
                TaskBatch(
                    modality=modality,
                    support=arrays[:, :shot].flatten(0, 1)[None],
                    query=arrays[:, shot:].flatten(0, 1)[None],
                    way=way,
                )
            )
    return tasks


def _way(pool: Pool, shot: int, train: Train, modality: Modality) -> int:
    return min(getattr(train.examples, modality) // (shot + train.query), pool.largest_way(shot + train.query))


def meta_loss(model: MetaModel, tasks: list[TaskBatch], turns: int = 1) -> Tensor:
    """Mean over tasks of the cross-entropy of their queries, of all their turns (see `MetaModel.forward`), or of what
    a learner that changes the encoder has in its place (see `WeightLearner.loss`)."""
    losses = []
    if isinstance(model.learner, WeightLearner):
        for task in tasks:
            (targets, answers), encoder = task.targets(), model.encoder(task.modality)
            losses.append(model.learner.loss(encoder, task.support, targets, task.query, answers, task.way))
        return torch.stack(losses).mean()
    for logits, task in zip(model(tasks, turns), tasks, strict=True):
        answers = task.targets()[1][:1].expand(len(logits), -1)
        losses.append(F.cross_entropy(logits.flatten(0, 1), answers.flatten()))
    return torch.stack(losses).mean()


def learning_rate(step: int, train: Train) -> float:
    """Linear warm-up, then half a cosine to 0."""
    warm = max(1, round(train.warmup * train.steps))
    if step < warm:
        return train.learning_rate * (step + 1) / warm
    return train.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, train.steps - warm)))


@torch.inference_mode()
def validate(model: MetaModel, sources: Sequence[Source]) -> dict[Modality, float]:
    """Mean accuracy a modality on fixed 5-way 1-shot episodes of the meta-validation pools."""
    model.eval()
    result: dict[Modality, float] = {}
    for modality in model.modalities:
        hits = []
        for source in sources:
            way = min(5, source.pool.largest_way(6))
            if source.pool.modality != modality or way < 2:
                continue
            generator = torch.Generator().manual_seed(0)
            episodes = sample(source.pool, VALIDATION_EPISODES, way, 1, 5, generator)
            task = TaskBatch(
                modality, gather(source.arrays, episodes.support.flatten(1)),
                gather(source.arrays, episodes.query.flatten(1)), way,
            )  # fmt: skip
            hits.append((model([task])[0].argmax(-1) == task.targets()[1]).float().mean())
        result[modality] = float(torch.stack(hits).mean()) if hits else math.nan
    model.train()
    return result


def optimiser(model: MetaModel, train: Train) -> torch.optim.AdamW:
    """AdamW at three paces: scalars and every α (of g, of its steps) learn ten times faster than weights and do not
    decay; what begins pretrained (the projection of minilm's vectors) twenty times slower, without decay."""
    scalars = [p for name, p in model.named_parameters() if p.ndim == 0 or name.endswith("alpha")]
    encoders = [model.encoder(modality) for modality in model.modalities]
    pretrained = [p for encoder in encoders if encoder.pretrained for p in encoder.parameters()]
    known = {id(p) for p in [*scalars, *pretrained]}
    weights = [p for p in model.parameters() if id(p) not in known]
    return torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": train.weight_decay, "pace": 1.0},
            {"params": scalars, "weight_decay": 0.0, "pace": 10.0},
            {"params": pretrained, "weight_decay": 0.0, "pace": 0.05},
        ]
    )


def meta_train(
    model: MetaModel,
    train_sources: Sequence[Source],
    validation_sources: Sequence[Source],
    settings: Settings,
    checkpoint: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Result:
    """Train ``model`` in place.

    Args:
        checkpoint: file to resume from where it exists, and to write every ``checkpoint_every`` steps. Its name is
            the caller's key of everything the run depends on.
        progress: called with (step, steps, text) after each step.

    Raises:
        QuickstudyError: the loss is no longer a number (the last good checkpoint stays), no task can be drawn, or the
            checkpoint cannot be read.
    """
    train = settings.train
    optimizer = optimiser(model, train)
    looks: list[Look] = []
    recent: list[float] = []  # losses since the last look
    step, seconds = 0, 0.0
    if checkpoint is not None and checkpoint.exists():
        step, seconds, looks, recent = load_checkpoint(checkpoint, model, optimizer)
    model.train()
    started = time.monotonic() - seconds
    while step < train.steps:
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, train) * group["pace"]
        tasks = draw_tasks(train_sources, train, model, generator)
        if not tasks:
            raise QuickstudyError(
                "no task can be drawn: no two classes of a dataset have the examples for one shot and train.query",
                where="meta_train", fix="Lower train.query, raise train.tasks and train.examples, or import more data",
            )  # fmt: skip
        loss = meta_loss(model, tasks, train.turns)
        if not torch.isfinite(loss):
            raise QuickstudyError(
                f"the loss is {loss.item()} at step {step}", where="meta_train", fix="Lower train.learning_rate"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        step += 1
        recent.append(loss.item())
        if step % train.validate_every == 0 or step == train.steps:
            looks.append(Look(step, float(np.mean(recent)), validate(model, validation_sources)))
            recent = []
        if progress is not None:
            progress(step, train.steps, f"loss {loss.item():.3f}")
        if checkpoint is not None and (step % train.checkpoint_every == 0 or step == train.steps):
            save_checkpoint(checkpoint, model, optimizer, step, time.monotonic() - started, looks, recent)
    model.eval()
    return Result(looks, time.monotonic() - started)


def write_curve(path: Path, curve: Sequence[Look]) -> None:
    """The curve as CSV: step, loss, and the meta-validation accuracy of each modality."""
    modalities = sorted(curve[-1].accuracy)
    lines = [",".join(["step", "loss", *modalities])]
    for look in curve:
        values = [look.loss, *(look.accuracy[modality] for modality in modalities)]  # type: ignore[index]
        lines.append(",".join([str(look.step), *(f"{value:.5f}" for value in values)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def save_checkpoint(
    path: Path,
    model: MetaModel,
    optimizer: torch.optim.Optimizer,
    step: int,
    seconds: float,
    looks: list[Look],
    recent: list[float],
) -> None:
    """Weights, moments and place in the run, as safetensors: no pickle. The file appears whole or not at all."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in state.items()}
    curve = [{"step": look.step, "loss": look.loss, "accuracy": look.accuracy} for look in looks]
    meta = {"step": str(step), "seconds": str(seconds), "curve": json.dumps(curve), "recent": json.dumps(recent)}
    with draft(path) as part:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata=meta)


def load_checkpoint(
    path: Path, model: MetaModel, optimizer: torch.optim.Optimizer
) -> tuple[int, float, list[Look], list[float]]:
    """Restore what `save_checkpoint` wrote.

    Returns:
        steps done, seconds they took, the curve so far, the losses since its last point.

    Raises:
        QuickstudyError: the file is damaged or none of ours.
    """
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            meta: Mapping[str, str] = file.metadata()
            for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                kind, _, rest = key.partition("/")
                if kind == "model":
                    weights[rest] = file.get_tensor(key)
                else:
                    index, _, name = rest.partition("/")
                    moments.setdefault(int(index), {})[name] = file.get_tensor(key)
        looks = [Look(row["step"], row["loss"], row["accuracy"]) for row in json.loads(meta["curve"])]
        step, seconds, recent = int(meta["step"]), float(meta["seconds"]), json.loads(meta["recent"])
        model.load_state_dict(weights)
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        what = str(error).splitlines()[0]
        raise QuickstudyError(
            f"the checkpoint is damaged ({what})", where=path, fix="Delete the file; the training then starts anew"
        ) from None
    return step, seconds, looks, recent
