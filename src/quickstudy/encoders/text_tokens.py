"""bytes-*, words-*: texts as bytes or hashed words, embedded and encoded by a network trained from scratch."""

import re
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from quickstudy.config import Inputs, TextInput
from quickstudy.data.dataset import Modality
from quickstudy.encoders.encoder import Encoder
from quickstudy.encoders.sequences import Convolutions, Recurrent, Summary, Transformer

Unit = Literal["bytes", "words"]
Network = Literal["cnn", "gru", "lstm", "transformer"]

PADDING = 0
DROPPED = 0.2  # of a text's tokens, at most, in training


class TokenEncoder(Encoder):
    """Tokens are embedded, a network reads them, and their mean and maximum are projected.

    Bytes need no vocabulary and know every script and typing error. Words have none either: each is hashed to one of
    ``word_buckets`` places (Weinberger et al. 2009, https://arxiv.org/abs/0902.2206), where another word may sit too;
    they suit scripts that part words by blanks.
    """

    def __init__(self, inputs: TextInput, unit: Unit, network: Network, width: int, dimension: int, heads: int):
        super().__init__()
        self.inputs, self.unit = inputs, unit
        channels = 2 * width
        self.embed = nn.Embedding(1 + (256 if unit == "bytes" else inputs.word_buckets), channels)
        self.network: nn.Module
        match network:
            case "cnn":
                self.network = Convolutions(channels)
            case "gru" | "lstm":
                self.network = Recurrent(network, channels, width)
            case "transformer":
                self.network = Transformer(channels, heads)
        self.summary = Summary(channels, dimension)

    @classmethod
    def sees(cls, modality: Modality, inputs: Inputs, name: str) -> str:
        by = "a network that knows the texts below alone"
        if name.startswith("bytes-"):
            return f"Texts are read up to {inputs.text.max_bytes} bytes by {by}."
        told = "a word that is in none of them tells it little"
        return f"Texts are read up to {inputs.text.max_tokens} words by {by}: {told}."

    @property
    def front(self) -> str:
        if self.unit == "bytes":
            return f"bytes/{self.inputs.max_bytes}"
        return f"words/{self.inputs.max_tokens}/{self.inputs.word_buckets}"

    def prepare(self, raw: Sequence[str]) -> np.ndarray:
        """Frozen front: texts → int32 [n, max_bytes] or [n, max_tokens], filled up with ``PADDING``."""
        if self.unit == "bytes":
            length = self.inputs.max_bytes
            tokens = [np.frombuffer(text.encode(errors="replace"), np.uint8)[:length] + np.int32(1) for text in raw]
        else:
            length = self.inputs.max_tokens
            tokens = [np.array([self._bucket(w) for w in words(text)[:length]], dtype=np.int32) for text in raw]
        out = np.full((len(tokens), length), PADDING, dtype=np.int32)
        for row, found in zip(out, tokens, strict=True):
            row[: len(found)] = found
        return out

    def _bucket(self, word: str) -> int:
        # Not Python's hash, which differs from process to process.
        digest = blake2b(word.encode(errors="replace"), digest_size=8).digest()
        return 1 + int.from_bytes(digest, "little") % self.inputs.word_buckets

    def forward(self, tokens: Tensor) -> Tensor:
        """int32 [n, L] → [n, D]"""
        tokens = tokens[:, : _longest(tokens)]
        real = tokens != PADDING
        x = self.embed(tokens).masked_fill(~real[..., None], 0.0)
        return self.summary(self.network(x, real), real)

    def augment(self, tokens: Tensor, generator: torch.Generator, way: int | None = None) -> Tensor:
        """int32 [n, L] → the same, each text without some of its tokens; half of the texts lose none, and none loses
        all."""
        share = (torch.rand(len(tokens), 1, generator=generator, device=tokens.device) * 2 - 1) * DROPPED
        kept = (torch.rand(tokens.shape, generator=generator, device=tokens.device) >= share) & (tokens != PADDING)
        kept = torch.where(kept.any(1, keepdim=True), kept, tokens != PADDING)
        order = (~kept).int().argsort(dim=1, stable=True)  # what is kept moves up, in its order
        return tokens.masked_fill(~kept, PADDING).gather(1, order)


def words(text: str) -> list[str]:
    """Letters and digits that touch, and every other sign by itself; capitals make no difference."""
    return re.findall(r"\w+|[^\w\s]", unicodedata.normalize("NFKC", text).casefold())


def _longest(tokens: Tensor) -> int:
    """Places of the longest text, at least 1: nobody need compute padding that all have."""
    try:
        return max(int((tokens != PADDING).any(0).sum()), 1)
    except RuntimeError:  # mapped over tasks by torch.func, where no number can be looked at
        return tokens.shape[1]
