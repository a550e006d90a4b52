"""transformers:NAME: encoders of text (BERT …), image (ViT, ConvNeXt, ResNet …) and audio (wav2vec 2.0 …), by the
library of Wolf et al. 2020 (https://arxiv.org/abs/1910.03771)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from quickstudy.config import AudioInput, Inputs, TextInput
from quickstudy.data.dataset import Modality
from quickstudy.data.media import decode_audio
from quickstudy.encoders.audio import middle
from quickstudy.encoders.backbone import Backbone, files
from quickstudy.encoders.image import rgb
from quickstudy.errors import QuickstudyError

UNUSED = ("pooler.", "masked_spec_embed")  # may be missing from the files: without the first, tokens are pooled by us
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def transformers_model(model: str, modality: Modality, inputs: Inputs) -> Backbone:
    """Vectors of one modality; what of an example the model is given and how it is pooled stands below."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = files(model)
    match modality:
        case "text":
            return _text(folder, inputs.text)
        case "image":
            return _image(folder)
        case "audio":
            return _audio(folder, inputs.audio)


def _text(folder: Path, inputs: TextInput) -> Backbone:
    """Mean over the tokens of the last layer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
    network, _ = _network(folder)
    longest = min(inputs.max_tokens, tokenizer.model_max_length)

    def embed(texts: list[str]) -> Tensor:
        tokens = tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
        lengths = torch.tensor([max(len(ids), 1) for ids in tokens])
        ids = torch.zeros(len(tokens), int(lengths.max()), dtype=torch.long)
        for row, own in zip(ids, tokens, strict=True):
            row[: len(own)] = torch.tensor(own, dtype=torch.long)
        return _mean(network(input_ids=ids, attention_mask=_mask(ids, lengths).long()).last_hidden_state, lengths)

    return Backbone(folder, str, embed, "a text", f"{inputs.max_tokens} tokens")


def _image(folder: Path) -> Backbone:
    """What the model pools, or its first token where its files have no weights to pool with; size, mean and spread of
    the pixels as it was trained."""
    from transformers import AutoImageProcessor

    # Pillow scales images to other pixels than torchvision does, and is on every machine.
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **LOCAL)
    network, pools = _network(folder)

    def embed(images: list[Image.Image]) -> Tensor:
        out = network(**processor(images=images, return_tensors="pt"))
        return out.pooler_output if pools and out.pooler_output is not None else out.last_hidden_state[:, 0]

    return Backbone(folder, rgb, embed, Image.new("RGB", (32, 32)))


def _audio(folder: Path, inputs: AudioInput) -> Backbone:
    """Mean over the frames of the last layer; at most ``seconds`` of a recording, around the middle of its energy, at
    the model's own rate."""
    from transformers import AutoFeatureExtractor

    extractor = AutoFeatureExtractor.from_pretrained(folder, **LOCAL)
    network, _ = _network(folder)
    rate: int = extractor.sampling_rate
    samples = round(inputs.seconds * rate)

    def decode(data: bytes) -> np.ndarray:
        wave = decode_audio(data, rate)
        start = min(max(middle(wave) - samples // 2, 0), max(len(wave) - samples, 0))
        return wave[start : start + samples]

    def embed(waves: list[np.ndarray]) -> Tensor:
        # All are filled up to one length, so that a vector does not depend on which others are in its batch.
        given = extractor(waves, sampling_rate=rate, padding="max_length", max_length=samples, return_tensors="pt")
        frames = network(**given).last_hidden_state
        lengths = torch.tensor([len(wave) for wave in waves])
        real = (lengths * frames.shape[1] / samples).floor().clamp(1, frames.shape[1])
        return _mean(frames, real)

    return Backbone(folder, decode, embed, np.sin(np.arange(samples, dtype=np.float32) / 20), f"{inputs.seconds:g} s")


def _network(folder: Path) -> tuple[Any, bool]:
    """The encoder without what it was trained to predict with, and whether its files hold all that it pools with."""
    from transformers import AutoModel

    network, report = AutoModel.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **LOCAL
    )
    missing = sorted(report["missing_keys"])
    if fatal := [key for key in missing if not any(part in key for part in UNUSED)]:
        raise QuickstudyError(f"its files lack {len(fatal)} of its weights ({fatal[0]}, …)", fix="Download it again")
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    return network.eval(), not missing


def _mask(places: Tensor, lengths: Tensor) -> Tensor:
    """[n, L, ...], [n] → bool [n, L]"""
    return torch.arange(places.shape[1]) < lengths[:, None]


def _mean(places: Tensor, lengths: Tensor) -> Tensor:
    """[n, L, W], of which so many are real, [n] → [n, W]"""
    return (places * _mask(places, lengths)[..., None]).sum(1) / lengths[:, None]
