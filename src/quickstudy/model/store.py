"""A saved model is a folder with a part for each kind: KIND/{model.safetensors, config.yaml, lineage.json}. No pickle.

Models of before there were kinds have the part for classify in the folder itself.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from quickstudy.config import Inputs, Model
from quickstudy.data.plain_yaml import read_yaml
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel

FORMAT = 2
WEIGHTS = "model.safetensors"
HEADER = 100_000_000  # bytes, as safetensors has it


def save_model(model: MetaModel, folder: Path, lineage: Mapping[str, Any]) -> None:
    """Write the part of a model for its kind, into ``folder/KIND``. The bytes depend on the weights, the settings and
    the lineage alone.

    Args:
        lineage: what it learned from; whatever can be written as JSON.
    """
    folder = folder / model.kind
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in sorted(model.state_dict().items())}
    save_file(weights, folder / WEIGHTS)
    config = {
        "format": FORMAT,
        "kind": model.kind,
        "modalities": sorted(model.encoders),
        "inputs": model.inputs.model_dump(mode="json"),
        "model": model.shape.model_dump(mode="json"),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    (folder / "lineage.json").write_text(json.dumps(lineage, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def parts_of(folder: Path) -> dict[str, Path]:
    """Return the folder of each part of a saved model, by kind; none where there is no model.

    Files of before there were kinds that were left beside parts count no more.
    """
    found = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{WEIGHTS}"))}
    return {"classify": folder} if not found and (folder / WEIGHTS).exists() else found


def part_of(folder: Path, kind: str) -> Path:
    """Return the folder of a model's part for a kind.

    Raises:
        QuickstudyError: no model there, or none with this part.
    """
    parts = parts_of(folder)
    if not parts:
        raise QuickstudyError("no model there", where=folder / kind / WEIGHTS, fix="`quickstudy run` trains one")
    if kind not in parts:
        raise QuickstudyError(
            f"the model has no part for {kind} (it has {', '.join(parts)})",
            where=folder,
            fix=f"Import a dataset of kind {kind} and `quickstudy run`, or name another version",
        )
    return parts[kind]


def load_model(folder: Path, kind: str) -> MetaModel:
    """Read the part of a model for a kind, ready to answer.

    Raises:
        QuickstudyError: no model there, none with this part, or one of another format, or damaged.
    """
    folder = part_of(folder, kind)
    try:
        config = read_yaml((folder / "config.yaml").read_text(encoding="utf-8"))
        if config["format"] != FORMAT:
            raise QuickstudyError(
                f"the model has format {config['format']}, this version reads {FORMAT}",
                where=folder,
                fix="Train it again with `quickstudy run`",
            )
        inputs, shape = Inputs.model_validate(config["inputs"]), Model.model_validate(config["model"])
        made_of: Any = (inputs, shape, config["modalities"], config.get("kind", "classify"))
        _check_sizes(folder / WEIGHTS, made_of)
        model = MetaModel(*made_of)
        model.load_state_dict(load_file(folder / WEIGHTS))
    except FileNotFoundError as error:
        missing = error.filename or folder / WEIGHTS  # safetensors leaves the name out
        raise QuickstudyError("no model there", where=missing, fix="`quickstudy run` trains one") from None
    except QuickstudyError:
        raise
    except (KeyError, TypeError, ValueError, OSError, yaml.YAMLError, SafetensorError, RuntimeError) as error:
        what = str(error).splitlines()[0]
        raise QuickstudyError(
            f"the model is damaged ({what})", where=folder, fix="`quickstudy run` restores it"
        ) from None
    return model.eval()


def _check_sizes(path: Path, made_of: Any) -> None:
    """Check that a file's weights are those of a model, before either asks for memory: by the header of the one, and
    the shapes of the other, which is built of nothing for that.

    Raises:
        ValueError: they are not.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, HEADER):
        raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
    with torch.device("meta"):
        wanted = {name: list(tensor.shape) for name, tensor in MetaModel(*made_of).state_dict().items()}
    with safe_open(path, framework="pt") as file:
        found = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            said, has = (of.get(name, "no") for of in (wanted, found))
            raise ValueError(f"config.yaml describes {name} of sizes {said}, the file has {has}")


def part_digest(part: Path) -> str:
    """Return the sha256 of the weights in a part's own folder, hexadecimal."""
    return sha256((part / WEIGHTS).read_bytes()).hexdigest()


def weights_digest(folder: Path, kind: str) -> str:
    """Return the sha256 of a part's weights, hexadecimal."""
    return part_digest(part_of(folder, kind))
