"""timm:NAME: image encoders (Wightman 2019, https://github.com/huggingface/pytorch-image-models)."""

from difflib import get_close_matches
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from quickstudy.encoders.backbone import Backbone, files, is_folder
from quickstudy.encoders.image import rgb
from quickstudy.errors import QuickstudyError


def timm_model(model: str) -> Backbone:
    """Images, in size, cut and colour as the model was trained → what it pools, before the layer of its classes.

    Args:
        model: one of timm's own names ("resnet18", "resnet18.a1_in1k"), or as `files` takes it.
    """
    try:
        import timm
        import timm.data
    except ModuleNotFoundError as error:  # it, or torchvision, without which it does nothing
        fix = "Install it: `pip install 'quickstudy[timm]'`"
        raise QuickstudyError(f"no package {error.name} is installed", fix=fix) from None

    if not is_folder(model) and "/" not in model:
        model = _repository(timm, model)
    folder = files(model)
    if not (folder / "model.safetensors").exists():  # in parts timm reads none, and takes a pickle that lies beside
        raise QuickstudyError(f"no model.safetensors in {folder}", fix="Take a revision of the model that has one")
    network = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)

    def embed(images: list[Image.Image]) -> Tensor:
        return network(torch.stack([prepare(image) for image in images]))

    return Backbone(folder, rgb, embed, Image.new("RGB", (32, 32)))


def _repository(timm: Any, model: str) -> str:
    """Where on the Hugging Face hub the weights of one of timm's own names are."""
    name, _, revision = model.partition("@")
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=3)
        known = f"Did you mean {' or '.join(near)}?" if near else "`timm.list_pretrained()` lists its models"
        raise QuickstudyError(f"timm knows no model {architecture!r}", fix=known)
    if "." in name and name not in timm.list_pretrained(f"{architecture}.*"):
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*"))
        raise QuickstudyError(f"timm knows no weights {name!r}", fix=f"Known: {tags}" if tags else None)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise QuickstudyError(f"timm has no weights of {name!r} on the Hugging Face hub", fix="Name a folder with them")
    return f"{config.hf_hub_id}@{revision}" if revision else config.hf_hub_id
