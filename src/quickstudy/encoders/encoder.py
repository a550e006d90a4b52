"""What every encoder is: f_θ of one modality."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quickstudy.config import Inputs
from quickstudy.data.dataset import Modality


class Encoder(nn.Module, ABC):
    """A frozen front (file bytes or text → array, computed once and cached) and a trainable network (array → vector
    in the D-dimensional space that all modalities share)."""

    pretrained = False
    """Its weights are good as they begin, so that they are trained with care."""

    front_gives_vectors = False
    """Its front gives vectors of length 1, which the network only projects."""

    front_dtype: torch.dtype = torch.float32
    """What a sentence encoder in the front multiplies in, set before its first text; training has float32."""

    @classmethod
    @abstractmethod
    def sees(cls, modality: Modality, inputs: Inputs, name: str) -> str:
        """Return what encoders of this class see of an example, in a sentence for the model card, as plain text. No
        weights are asked, which may not be on this machine.

        Args:
            name: of the encoder in `model.encoders`.
        """

    @property
    @abstractmethod
    def front(self) -> str:
        """Names what `prepare` computes by all that it depends on: encoders whose arrays differ differ here."""

    @abstractmethod
    def prepare(self, raw: Sequence[Any]) -> np.ndarray:
        """Frozen front: examples as they are stored → arrays [n, ...]. It is `decoded` of each, then `arrays`."""

    def decoded(self, raw: Any) -> Any:
        """Return what the front takes of an example, where a file must be read for it; of a text, the text. It computes
        nothing by torch, so that any thread may do it."""
        return raw

    def arrays(self, decoded: Sequence[Any]) -> np.ndarray:
        """The rest of the frozen front: what was decoded → arrays [n, ...]."""
        return self.prepare(decoded)

    @abstractmethod
    def forward(self, arrays: Tensor) -> Tensor:
        """[n, ...] → [n, D]"""

    @abstractmethod
    def augment(self, arrays: Tensor, generator: torch.Generator, way: int | None = None) -> Tensor:
        """Another [n, ...] of the same examples, for training.

        Args:
            way: where given, rows come class by class, and a class may be changed as a whole.
        """
