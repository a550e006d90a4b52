"""The arrays of datasets, as an encoder's frozen front makes them, and the threads that compute."""

from functools import partial
from typing import Any

import torch

from quickstudy.config import Settings
from quickstudy.data.dataset import Dataset
from quickstudy.encoders.features import features
from quickstudy.model.metamodel import MetaModel
from quickstudy.pipeline.paths import CACHE


def read_arrays(datasets: dict[str, Dataset], model: MetaModel, progress: Any) -> dict[str, tuple[Any, str]]:
    """By dataset: its memory-mapped array and the digest of what it was computed from."""
    found = {}
    for name, dataset in datasets.items():
        if dataset.modality in model.encoders:
            told = partial(progress, f"prepare {name}")
            found[name] = features(dataset, model.encoder(dataset.modality), CACHE / "features", told)
    return found


def set_threads(settings: Settings) -> None:
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
