"""Checkpoints: weights, moments and the place in the run, as safetensors. No pickle."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from quickstudy.config import Settings
from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.system.atomic import draft, set_aside


@dataclass(frozen=True)
class Look:
    """One line of the training curve."""

    step: int
    loss: float
    scores: dict[Modality, float]
    """On meta-validation, 5-way 1-shot; NaN where a modality has no meta-validation pool."""


@dataclass
class Place:
    """How far a training has come."""

    step: int = 0
    seconds: float = 0.0
    cost: dict[str, float] = field(default_factory=dict)
    """see `quickstudy.training.cost`, over all the runs and processes so far"""
    curve: list[Look] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    """losses since the last look"""
    first: float = 0.0
    """the loss of an untrained model: the mean of the first steps"""
    smooth: float = 0.0
    """the loss of late: a running mean"""
    best: dict[str, Tensor] | None = None
    """the weights of the best look, where early stopping asks for them"""


def save_checkpoint(
    path: Path, model: MetaModel, optimizer: torch.optim.Optimizer, place: Place, settings: Settings
) -> None:
    """The file appears whole or not at all."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in state.items()}
    tensors |= {f"best/{name}": tensor for name, tensor in (place.best or {}).items()}
    values = {name: value for name, value in vars(place).items() if name not in ("best", "curve")}
    values["curve"] = [asdict(look) for look in place.curve]
    meta = {"place": json.dumps(values), "training": json.dumps(_training(settings))}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    meta["digest"] = _digest(tensors, meta)
    with draft(path) as part:
        save_file(tensors, part, metadata=meta)


def is_whole(path: Path) -> bool:
    """Return whether a checkpoint is there and holds what `save_checkpoint` wrote, bit for bit. One that does not is
    set aside, and that is told."""
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            meta = dict(file.metadata() or {})
            said = meta.pop("digest", None)
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        why = None if said == _digest(tensors, meta) else "its digest is another"
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
    if why is not None:
        set_aside(path, why)
    return why is None


def _digest(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> str:
    """Of all that a checkpoint holds, hexadecimal."""
    digest = sha256(json.dumps(sorted(meta.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}/{tensor.dtype}/{tuple(tensor.shape)}/".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_checkpoint(path: Path, model: MetaModel, optimizer: torch.optim.Optimizer, settings: Settings) -> Place:
    """Restore what `save_checkpoint` wrote, after `is_whole` has looked at it.

    Raises:
        QuickstudyError: the file is none of ours, or of a training with other settings.
    """
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "best": {}}
    fix = "Delete the file; the training then starts anew"
    try:
        with safe_open(path, framework="pt") as file:
            meta: Mapping[str, str] = file.metadata()
            values, training = json.loads(meta["place"]), json.loads(meta["training"])
            for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                kind, _, name = key.partition("/")
                parts[kind][name] = file.get_tensor(key)
        if (difference := _difference(training, _training(settings))) is not None:
            raise QuickstudyError(f"the checkpoint is of another training: {difference}", where=path, fix=fix)
        curve = [Look(**look) for look in values.pop("curve")]
        place = Place(**values, curve=curve, best=parts["best"] or None)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in parts["optimizer"].items():
            index, _, name = key.partition("/")
            moments.setdefault(int(index), {})[name] = tensor
        model.load_state_dict(parts["model"])
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    except QuickstudyError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        what = str(error).splitlines()[0]
        raise QuickstudyError(f"the checkpoint is damaged ({what})", where=path, fix=fix) from None
    return place


def _training(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(mode="json", include={"seed", "inputs", "model", "train"})


def _difference(there: Any, here: Any, name: str = "") -> str | None:
    """The first parameter that differs, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            found = _difference(there.get(key), here.get(key), f"{name}.{key}".lstrip("."))
            if found is not None:
                return found
        return None
    return None if there == here else f"its {name} is {there}, params.yaml has {here}"
