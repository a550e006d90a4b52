"""minilm-tuned: the sentence encoder all-MiniLM-L6-v2, its own weights trained with the rest."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.config import TextInput
from quickstudy.encoders.blocks import Modulation
from quickstudy.encoders.text_minilm import OWN, MiniLM, read_bert, read_tokenizer

PADDING = 0
BUCKET = 32  # texts


class TunedMiniLM(MiniLM):
    """Token ids in, and at the start the vectors of minilm out. A saved model holds the network: 90 MB.

    The table of word pieces, half of all weights, stays as it is: words that no training text holds keep their place
    among those that one does. There is no dropout, so that what a training step does depends on its texts alone.
    """

    front_gives_vectors = False

    def __init__(self, inputs: TextInput, dimension: int):
        super().__init__(inputs, dimension)
        # Attention in plain operations: the fused one cannot be differentiated twice, and is no faster on short texts.
        self.bert = read_bert(attn_implementation="eager", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        words = self.bert.embeddings.word_embeddings
        table = words.weight.detach()
        del words.weight
        words.register_buffer("weight", table)

    @property
    def front(self) -> str:
        return f"minilm-tokens/{self.inputs.encoder}/{self.inputs.max_tokens}/{OWN}"

    @cached_property
    def _tokenizer(self) -> Any:
        return read_tokenizer(self.inputs)

    def prepare(self, raw: Sequence[str]) -> np.ndarray:
        """Frozen front: texts → int32 [n, max_tokens], word pieces filled up with ``PADDING``."""
        out = np.full((len(raw), self.inputs.max_tokens), PADDING, dtype=np.int32)
        for row, encoding in zip(out, self._tokenizer.encode_batch(list(raw)), strict=True):
            ids = [i for i in encoding.ids if i != PADDING]  # a text that says [PAD]
            row[: len(ids)] = ids
        return out

    def forward(self, tokens: Tensor, modulation: Modulation | None = None) -> Tensor:
        """int32 [n, L] → [n, D]"""
        lengths = (tokens != PADDING).sum(1)
        order = lengths.argsort(stable=True)  # texts of like length share a pass: little padding
        parts = [self._sentences(tokens[rows, : int(lengths[rows].max())]) for rows in order.split(BUCKET)]
        return super().forward(torch.cat(parts)[order.argsort()], modulation)

    def _sentences(self, tokens: Tensor) -> Tensor:
        """[n, L] → [n, 384], of length 1: mean over tokens, as the model was trained"""
        real = tokens != PADDING
        hidden = self.bert(input_ids=tokens, attention_mask=real.long()).last_hidden_state
        return F.normalize((hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True), dim=1)

    def augment(self, tokens: Tensor, generator: torch.Generator, way: int | None = None) -> Tensor:
        """Texts are taken as they are."""
        return tokens
