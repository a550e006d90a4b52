"""What a model remembers of the examples that it learned from: `reference.safetensors`, beside its weights.

Drift is a distance to the training examples, and asked when the data has changed or is gone (on a phone, in a registry
of years ago). So a sample of their embeddings stays with the model, written when it is trained and registered with it:
of each dataset the vectors of at most ``drift.examples`` examples in half precision (0.8 MB of 1,000), what they belong
to, and a digest of 8 bytes of every example that was there, so that later ones can be told from those.

A model is whole without this file, and its weights' digest does not depend on it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from quickstudy.data.dataset import Dataset, Modality
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.targets import TARGETS
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import part_digest
from quickstudy.system.atomic import draft

FILE = "reference.safetensors"
FORMAT = 1
EACH = 5
"""Examples of a class that are kept where there are too many classes for all: a class of one example would not show how
much classes differ."""

NO_GROUP = ("class", "dataset")
"""What a dataset calls its group where it has none: every class by itself, or all of it."""


@dataclass(frozen=True)
class Known:
    """What is remembered of one dataset."""

    name: str
    modality: Modality
    contents: np.ndarray
    """uint64 [n], sorted: digests of the examples that were there"""
    learned: np.ndarray
    """bool [n]: which of them the model learned from"""
    vectors: np.ndarray
    """float32 [m, D]: embeddings of some that it learned from; m = 0 where it learned from none"""
    units: Mapping[str, Sequence[str]]
    """kind (domain, group, class; the coarsest first) → what each belongs to [m]"""
    words: Mapping[str, str]
    """kind → what such a unit is, in a word: voice, script"""

    def is_there(self, digests: np.ndarray) -> np.ndarray:
        """bool [len(digests)]: which were there when the model was trained."""
        return np.isin(digests, self.contents)

    def is_learned(self, digests: np.ndarray) -> np.ndarray:
        """bool [len(digests)]: which the model learned from."""
        return np.isin(digests, self.contents[self.learned])


def content_digests(dataset: Dataset) -> np.ndarray:
    """uint64 [n]: of each example as it is stored, its labels left out."""
    return dataset.digests


def units_of(dataset: Dataset, rows: np.ndarray) -> tuple[dict[str, list[str]], dict[str, str]]:
    """What examples belong to, by kind of unit, and what each kind is in a word; the coarsest kind first."""
    info = dataset.info
    labels, groups = _labels(dataset, rows), dataset.column("group", rows)
    units: dict[str, list[str]] = {}
    words: dict[str, str] = {}
    if info.domain is not None:
        units["domain"], words["domain"] = dataset.column("domain", rows), info.domain
    if info.group not in NO_GROUP:
        units["group"], words["group"] = groups, info.group
    if info.episode_scope == "group":  # a class is one of its group's
        labels = [f"{group}/{label}" for group, label in zip(groups, labels, strict=True)]
    units["class"], words["class"] = labels, "class"
    return units, words


def _labels(dataset: Dataset, rows: np.ndarray) -> list[str]:
    """What each example is of, in one text: its class, or its tags together."""
    part = TARGETS[dataset.info.kind]
    return [part.shown(target) for target in part.of(dataset, rows)]


def remember(
    model: MetaModel, dataset: Dataset, learned: np.ndarray, arrays: np.ndarray | None, examples: int
) -> Known:
    """Embed some of the examples that a model learned from.

    Which ones depends on the names of the classes and on the contents alone: data added later changes few of them.

    Args:
        learned: int [k], rows of the dataset.
        arrays: of the encoder's frozen front, row by row as in the dataset; None where nothing was learned.
        examples: that are kept, at most.
    """
    digests = content_digests(dataset)
    order = np.argsort(digests, kind="stable")
    was_learned = np.zeros(len(dataset), dtype=bool)
    was_learned[learned] = True
    vectors = np.zeros((0, model.shape.dimension), np.float32)
    units: dict[str, list[str]] = {}
    words: dict[str, str] = {}
    if len(learned):
        assert arrays is not None
        rows = _some(dataset, np.sort(learned), digests, examples)
        vectors = embed(model, dataset.modality, arrays[rows])
        units, words = units_of(dataset, rows)
        if len(set(units["class"])) == len({*units.get("group", ())}):  # each class its own group, under another word
            del units["group"], words["group"]
    return Known(dataset.name, dataset.modality, digests[order], was_learned[order], vectors, units, words)


@torch.inference_mode()
def embed(model: MetaModel, modality: Modality, arrays: np.ndarray) -> np.ndarray:
    """f_θ of arrays of the encoder's frozen front: [n, ...] → float32 [n, D]"""
    return model.encode(modality, torch.from_numpy(np.ascontiguousarray(arrays))).numpy()


def write_reference(folder: Path, known: Sequence[Known]) -> None:
    """Write the file into the folder of a model's part. The bytes depend on the arguments and the weights alone."""
    tensors: dict[str, np.ndarray] = {}
    about = []
    for one in sorted(known, key=lambda each: each.name):
        tensors[f"{one.name}/contents"] = one.contents
        tensors[f"{one.name}/learned"] = one.learned
        tensors[f"{one.name}/vectors"] = one.vectors.astype(np.float16)
        names = {}
        for kind, units in one.units.items():
            names[kind], numbers = np.unique(np.array(units), return_inverse=True)
            tensors[f"{one.name}/{kind}"] = numbers.astype(np.int32)
        kinds = [[kind, one.words[kind], names[kind].tolist()] for kind in one.units]
        about.append({"name": one.name, "modality": one.modality, "kinds": kinds})
    described = {"format": FORMAT, "weights": part_digest(folder), "datasets": about}
    with draft(folder / FILE) as part:
        # A second entry of the metadata would be written before or after the first, by chance.
        save_file(tensors, part, metadata={"reference": json.dumps(described, ensure_ascii=False)})


def read_reference(folder: Path, where: object = None) -> dict[str, Known]:
    """What the model in a folder remembers, by dataset.

    Args:
        where: what the user called the model, for errors.

    Raises:
        QuickstudyError: there is no such file, or it is damaged, of another format or of other weights.
    """
    where = where or folder
    try:
        with safe_open(folder / FILE, framework="numpy") as file:
            described = json.loads(file.metadata()["reference"])
            if described["format"] != FORMAT:
                raise QuickstudyError(
                    f"{FILE} has format {described['format']}, this version reads {FORMAT}", where=where, fix=_AGAIN
                )
            if described["weights"] != part_digest(folder):
                raise QuickstudyError(f"{FILE} is that of another model's weights", where=where, fix=_AGAIN)
            return {one["name"]: _known(file, one) for one in described["datasets"]}
    except FileNotFoundError:
        what = "the model keeps no sample of what it learned from: an earlier version of Quickstudy trained it"
        raise QuickstudyError(what, where=where, fix=_AGAIN) from None
    except QuickstudyError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, IndexError, OSError) as error:
        raise QuickstudyError(f"{FILE} is damaged ({str(error).splitlines()[0]})", where=where, fix=_AGAIN) from None


_AGAIN = "`quickstudy run` trains one that does; `--model build/model` is the one that was trained last"


def _known(file: Any, about: Mapping[str, Any]) -> Known:
    name = about["name"]
    kinds = {kind: (word, np.array(names, dtype=object)) for kind, word, names in about["kinds"]}
    return Known(
        name,
        about["modality"],
        file.get_tensor(f"{name}/contents"),
        file.get_tensor(f"{name}/learned"),
        file.get_tensor(f"{name}/vectors").astype(np.float32),
        {kind: names[file.get_tensor(f"{name}/{kind}")].tolist() for kind, (_, names) in kinds.items()},
        {kind: word for kind, (word, _) in kinds.items()},
    )


def _some(dataset: Dataset, rows: np.ndarray, digests: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows: class after class, in the order of the digests of their names, of each the examples
    of the smallest digests."""
    classes, kind = np.unique(np.array(_labels(dataset, rows), dtype=object), return_inverse=True)
    each = max(EACH, -(-most // len(classes)))
    turn = [blake2b(name.encode(), digest_size=8).digest() for name in classes]
    chosen: list[int] = []
    for place in sorted(range(len(classes)), key=turn.__getitem__):
        own = rows[kind == place]
        chosen += own[np.argsort(digests[own], kind="stable")[:each]].tolist()
        if len(chosen) >= most:
            break
    return np.sort(np.array(chosen[:most], dtype=np.int64))
