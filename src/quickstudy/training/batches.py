"""What a step of meta-training draws: tasks of each modality, from a random stream that each task has for itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quickstudy.config import Train
from quickstudy.data.dataset import Dataset, Modality
from quickstudy.kinds.episodes import EPISODES, labels_of, largest_way, pool_of
from quickstudy.kinds.task import Pool, TaskBatch
from quickstudy.model.metamodel import MetaModel


@dataclass(frozen=True)
class Source:
    """A pool of examples, and the arrays and labels of its dataset."""

    pool: Pool
    arrays: np.ndarray | Tensor
    """[n, ...]: memory-mapped, or a tensor on the device"""
    labels: Tensor
    """[n, ...]: what the kind looks targets up in"""

    @staticmethod
    def of(dataset: Dataset, chosen: np.ndarray, arrays: np.ndarray | Tensor) -> "Source":
        """Return the rows of a dataset where ``chosen`` (bool [n]) is true, with its arrays [n, ...]."""
        return Source(pool_of(dataset, chosen), arrays, labels_of(dataset))


def gather(arrays: np.ndarray | Tensor, rows: Tensor) -> Tensor:
    """[n, ...], int64 [...] → [..., array shape]: a whole meta-batch by one index operation."""
    if isinstance(arrays, Tensor):
        return arrays[rows.to(arrays.device)]
    flat = np.ascontiguousarray(arrays[rows.flatten().numpy()])
    return torch.from_numpy(flat).unflatten(0, rows.shape)


def draw_tasks(
    sources: Sequence[Source],
    train: Train,
    model: MetaModel,
    seed: int,
    step: int,
    part: int = 0,
    parts: int = 1,
    device: torch.device | str = "cpu",
) -> tuple[list[TaskBatch], dict[Modality, int]]:
    """The meta-batch of a step, or one process's part of it.

    For each modality its number of tasks, each from one source, with a shot and a way of its own. What a task is
    depends on the seed, the step and its place in the meta-batch alone. So processes that share a meta-batch draw
    together what one process would; the places move on with the step, so that each meets every modality.

    Args:
        part: which of ``parts`` this process draws.
        device: where tasks are made ready and end up.

    Returns:
        this part's tasks, and how many of each modality the whole meta-batch has.
    """
    tasks, counts, place = [], {}, 0
    for modality in model.modalities:
        own = [s for s in sources if s.pool.modality == modality and _way(s.pool, 1, train, modality)]
        if own and (count := getattr(train.tasks, modality)):
            counts[modality] = count
        for _ in range(counts.get(modality, 0)):
            if (place + step) % parts == part:
                tasks.append(_draw_task(own, train, model, modality, (seed, step, place), torch.device(device)))
            place += 1
    return tasks, counts


def _draw_task(
    sources: Sequence[Source],
    train: Train,
    model: MetaModel,
    modality: Modality,
    stream: tuple[int, int, int],
    device: torch.device,
) -> TaskBatch:
    number = int(np.random.SeedSequence(stream).generate_state(1, np.uint64)[0])
    generator = torch.Generator().manual_seed(number)
    # A dataset with more classes has more to teach, but does not drown the others.
    weights = torch.tensor([float(len(source.pool.classes)) for source in sources]).sqrt()
    source = sources[int(torch.multinomial(weights, 1, generator=generator))]
    shot = train.shots[int(torch.randint(len(train.shots), (1,), generator=generator))]
    while (way := _way(source.pool, shot, train, modality)) is None:
        shot -= 1
    part = EPISODES[source.pool.kind]
    episodes = part.draw(source.pool, 1, way, shot, train.query, generator)
    taught, asked = part.targets(source.labels, episodes)
    rows = torch.cat([episodes.support, episodes.query], dim=2)  # [1, N, K + Q]
    arrays = gather(source.arrays, rows[0].flatten()).to(device)
    if device.type != "cpu":  # augmented where the model reads it, by that device's own stream
        generator = torch.Generator(device).manual_seed(number)
    arrays = model.encoder(modality).augment(arrays, generator, way if part.WHOLE else None)
    arrays = arrays.unflatten(0, (way, shot + train.query))
    return TaskBatch(
        modality=modality,
        support=arrays[:, :shot].flatten(0, 1)[None],
        query=arrays[:, shot:].flatten(0, 1)[None],
        way=way,
        support_targets=taught.to(device),
        query_targets=asked.to(device),
    )


def _way(pool: Pool, shot: int, train: Train, modality: Modality) -> int | None:
    return largest_way(pool, getattr(train.examples, modality) // (shot + train.query), shot + train.query)
