"""Tasks of classify whose rows come class by class, as an episode has them."""

import torch
from torch import Tensor

from quickstudy.data.dataset import Modality
from quickstudy.kinds.task import TaskBatch


def grouped(modality: Modality, support: Tensor, query: Tensor, way: int) -> TaskBatch:
    def classes(rows: Tensor) -> Tensor:
        own = torch.arange(way, device=rows.device).repeat_interleave(rows.shape[1] // way)
        return own.expand(len(rows), -1)

    return TaskBatch(modality, support, query, way, classes(support), classes(query))
