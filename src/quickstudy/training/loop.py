"""Meta-training: one loop over meta-batches that mix modalities, ways and shots.

Exact by construction: what step t does depends on the seed, t and the weights alone, so that a run that was killed
and resumed ends with the weights of one that was not.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from quickstudy.config import Settings, Train
from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.episodes import EPISODES, largest_way
from quickstudy.kinds.scores import SCORES
from quickstudy.kinds.task import TaskBatch, turned
from quickstudy.model.metamodel import MetaModel
from quickstudy.training.batches import Source, draw_tasks, gather
from quickstudy.training.checkpoint import Look, Place, is_whole, load_checkpoint, save_checkpoint
from quickstudy.training.cost import Cost, added
from quickstudy.training.engine import Engine

VALIDATION_EPISODES = 60
FIRST = 10  # steps that say what an untrained model's loss is
WORSE, DIVERGED = 1.5, 3.0  # times that loss: no checkpoint is written any more; the training stops


@dataclass(frozen=True)
class Result:
    curve: list[Look]
    seconds: float
    """of training, over all the runs that it was spread over"""
    cost: dict[str, float]
    """see `quickstudy.training.cost`, over all the runs and processes"""
    step: int
    """of the weights: the last one, or with early stopping the best look's"""


def meta_loss(model: MetaModel, tasks: list[TaskBatch], turns: int = 1, count: int | None = None) -> Tensor:
    """Return the mean over tasks of the kind's loss of their queries, of all their turns (see `MetaModel.forward`), or
    of what a learner that changes the encoder has in its place (see `WeightLearner.loss`).

    Args:
        count: what the sum is divided by, where these tasks are a part of a meta-batch of so many.
    """
    losses = []
    if (changes := model.learner.on_weights) is not None:
        for task in tasks:
            support, targets, way = model.head.pose(task.support, task.support_targets, task.way)
            query, answers, _ = model.head.pose(task.query, task.query_targets, task.way)
            losses.append(changes.loss(model.encoder(task.modality), support, targets, query, answers, way))
        return torch.stack(losses).sum() / (count or len(tasks))
    for logits, task in zip(model(tasks, turns), tasks, strict=True):
        _, answers = turned(task.support_targets, task.query_targets, task.way, turns)
        losses.append(model.head.loss(logits, answers))
    return torch.stack(losses).sum() / (count or len(tasks))


def learning_rate(step: int, train: Train) -> float:
    """Linear warm-up, then half a cosine to 0."""
    warm = max(1, round(train.warmup * train.steps))
    if step < warm:
        return train.learning_rate * (step + 1) / warm
    return train.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, train.steps - warm)))


@torch.inference_mode()
def validate(model: MetaModel, sources: Sequence[Source]) -> dict[Modality, float]:
    """Return the mean score a modality on fixed 5-way 1-shot episodes of the meta-validation pools."""
    model.eval()
    device = next(model.parameters()).device
    result: dict[Modality, float] = {}
    for modality in model.modalities:
        scores: list[float] = []
        for source in sources:
            pool, part = source.pool, EPISODES[source.pool.kind]
            way = largest_way(pool, 5, 6)
            if pool.modality != modality or way is None:
                continue
            generator = torch.Generator().manual_seed(0)
            episodes = part.draw(pool, VALIDATION_EPISODES, way, 1, 5, generator)
            support, query = (gather(source.arrays, rows.flatten(1)) for rows in (episodes.support, episodes.query))
            taught, asked = part.targets(source.labels, episodes)
            task = TaskBatch(modality, support.to(device), query.to(device), way, taught.to(device), asked)
            (logits,) = model([task])
            scores.append(float(np.mean(SCORES[pool.kind].judge(logits.cpu(), asked)["score"])))
        result[modality] = float(np.mean(scores)) if scores else math.nan
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
    record: Callable[[Mapping[str, float]], None] | None = None,
    engine: Engine | None = None,
    meter: Callable[[float], Cost] = lambda seconds: {},
) -> Result:
    """Train ``model`` in place.

    Args:
        checkpoint: file to resume from where it exists, and to write every ``checkpoint_every`` steps. Its name is
            the caller's key of everything the run depends on.
        progress: called with (step, steps, text) after each step.
        record: called with a step's numbers by name: "step" and others.
        engine: where it runs; by default as the settings say.
        meter: what this process has cost since it began, of so many seconds of the clock.

    Raises:
        QuickstudyError: the training diverges (the last good checkpoint stays), no task can be drawn, fewer tasks than
            processes, or the checkpoint is another training's. (A damaged one is set aside; the training begins anew.)
    """
    train = settings.train
    engine = engine or Engine(train)
    engine.setup(model)
    sources, held_out = engine.place(train_sources), engine.place(validation_sources)
    optimizer, place = optimiser(model, train), Place()
    if checkpoint is not None and engine.share(engine.rank == 0 and is_whole(checkpoint)):
        place = load_checkpoint(checkpoint, model, optimizer, settings)
    saved, before, cost = place.step, place.seconds, place.cost
    model.train()
    started = time.monotonic() - place.seconds
    while place.step < train.steps and not _stops_early(place.curve, train):
        began = time.monotonic()
        rate = learning_rate(place.step, train)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["pace"]
        tasks, counts = draw_tasks(
            sources, train, model, settings.seed, place.step, engine.rank, engine.processes, engine.device
        )
        _check_counts(counts, engine.processes)
        with engine.autocast(model):
            loss = meta_loss(model, tasks, train.turns, sum(counts.values()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        loss = engine.add_up(model, loss, tasks, counts)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        lost, slope = torch.stack([loss, norm]).tolist()  # a GPU is waited for once a step
        _follow(place, lost, slope, checkpoint, saved)
        optimizer.step()
        place.step += 1
        numbers = {
            "step": place.step,
            "loss": lost,
            "gradient_norm": slope,
            "learning_rate": rate,
            "tasks_per_second": sum(counts.values()) / (time.monotonic() - began),
        }
        if place.step % train.validate_every == 0 or place.step == train.steps:
            found = engine.share(validate(model, held_out) if engine.rank == 0 else {})
            place.curve.append(Look(place.step, float(np.mean(place.recent)), found))
            place.recent = []
            if train.patience and _best(place.curve) == len(place.curve) - 1:
                place.best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            numbers |= {f"validation_{name}": value for name, value in found.items() if value == value}
        if record is not None and engine.rank == 0:
            record(numbers)
        if progress is not None:
            progress(place.step, train.steps, f"loss {lost:.3f}")
        due = place.step % train.checkpoint_every == 0 or place.step == train.steps or _stops_early(place.curve, train)
        if checkpoint is not None and due and place.smooth <= WORSE * place.first:
            place.seconds, saved = time.monotonic() - started, place.step
            place.cost = added(cost, engine.total(meter(place.seconds - before)))
            if engine.rank == 0:
                save_checkpoint(checkpoint, model, optimizer, place, settings)
    step = place.step
    if place.best is not None:
        model.load_state_dict(place.best)
        step = place.curve[_best(place.curve)].step
    model.to("cpu").eval()
    seconds = time.monotonic() - started
    return Result(place.curve, seconds, added(cost, engine.total(meter(seconds - before))), step)


def _check_counts(counts: Mapping[Modality, int], processes: int) -> None:
    if not counts:
        raise QuickstudyError(
            "no task can be drawn: no two classes of a dataset have the examples for one shot and train.query",
            where="meta_train",
            fix="Lower train.query, raise train.tasks and train.examples, or import more data",
        )
    if sum(counts.values()) < processes:
        raise QuickstudyError(
            f"a meta-batch has {sum(counts.values())} tasks, fewer than the {processes} processes that share it",
            where="train.tasks",
            fix="Raise train.tasks or start fewer processes",
        )


def _follow(place: Place, loss: float, norm: float, checkpoint: Path | None, saved: int) -> None:
    """Take note of a step's loss, before it changes the weights.

    Raises:
        QuickstudyError: the loss or its gradient is no number, or the loss of late is far above that of the start.
    """
    place.recent.append(loss)
    place.first = max(place.first, loss) if place.step < FIRST else place.first
    place.smooth = 0.9 * place.smooth + 0.1 * loss if place.step else loss
    if not (math.isfinite(loss) and math.isfinite(norm)):
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient of the loss is {norm}"
    elif place.smooth > DIVERGED * place.first:
        what = f"the loss has risen to {place.smooth:.3g}, from {place.first:.3g} at the start"
    else:
        return
    stays = f"; the checkpoint of step {saved} stays: {checkpoint}" if checkpoint is not None and saved else ""
    raise QuickstudyError(
        f"the training diverges: {what} at step {place.step}{stays}",
        where="meta_train",
        fix="Lower train.learning_rate",
    )


def _best(curve: Sequence[Look]) -> int:
    """The place in the curve of the best mean score over modalities, the first of equals."""
    scores = []
    for look in curve:
        known = [value for value in look.scores.values() if not math.isnan(value)]
        scores.append(sum(known) / len(known) if known else -1.0)
    return scores.index(max(scores))


def _stops_early(curve: Sequence[Look], train: Train) -> bool:
    """Whether so many looks (`train.patience`) came after the best one."""
    return train.patience > 0 and len(curve) > 0 and len(curve) - 1 - _best(curve) >= train.patience


def write_curve(path: Path, curve: Sequence[Look]) -> None:
    """The curve as CSV: step, loss, and the meta-validation score of each modality."""
    modalities = sorted(curve[-1].scores)
    lines = [",".join(["step", "loss", *modalities])]
    for look in curve:
        values = [look.loss, *(look.scores[modality] for modality in modalities)]  # type: ignore[index]
        lines.append(",".join([str(look.step), *(f"{value:.5f}" for value in values)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
