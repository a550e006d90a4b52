"""A saved model is a folder: model.safetensors, config.yaml, lineage.json. No pickle."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from quickstudy.config import Inputs, Model
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel

FORMAT = 2


def save_model(model: MetaModel, folder: Path, lineage: Mapping[str, Any]) -> None:
    """Write a model. The bytes depend on the weights, the settings and the lineage alone.

    Args:
        lineage: what it learned from; whatever can be written as JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in sorted(model.state_dict().items())}
    save_file(weights, folder / "model.safetensors")
    config = {
        "format": FORMAT,
        "modalities": sorted(model.encoders),
        "inputs": model.inputs.model_dump(mode="json"),
        "model": model.shape.model_dump(mode="json"),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    (folder / "lineage.json").write_text(json.dumps(lineage, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_model(folder: Path) -> MetaModel:
    """Read a model, ready to answer.

    Raises:
        QuickstudyError: no model there, or one of another format, or damaged.
    """
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        if config["format"] != FORMAT:
            raise QuickstudyError(
                f"the model has format {config['format']}, this version reads {FORMAT}",
                where=folder,
                fix="Train it again with `quickstudy run`",
            )
        inputs, shape = Inputs.model_validate(config["inputs"]), Model.model_validate(config["model"])
        model = MetaModel(inputs, shape, config["modalities"])
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except FileNotFoundError as error:
        missing = error.filename or folder / "model.safetensors"  # safetensors leaves the name out
        raise QuickstudyError("no model there", where=missing, fix="`quickstudy run` trains one") from None
    except QuickstudyError:
        raise
    except (KeyError, TypeError, ValueError, OSError, yaml.YAMLError, SafetensorError, RuntimeError) as error:
        what = str(error).splitlines()[0]
        raise QuickstudyError(
            f"the model is damaged ({what})", where=folder, fix="`quickstudy run` restores it"
        ) from None
    return model.eval()


def weights_digest(folder: Path) -> str:
    """sha256 of model.safetensors, hexadecimal."""
    return sha256((folder / "model.safetensors").read_bytes()).hexdigest()
