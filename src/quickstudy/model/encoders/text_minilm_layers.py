"""minilm-layers: the frozen sentence encoder all-MiniLM-L6-v2, read at several depths, and a trainable projection."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.model.encoders.text_minilm import MiniLM

# Of the embeddings and the six layers after them. Lower layers hold the words, the last one the meaning that sentences
# are compared by (Jawahar et al. 2019, What does BERT learn about the structure of language?). Chosen on texts of the
# training and validation parts of CLINC150: benchmarks/open_set.py.
WEIGHTS = (0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 3.0)


class LayeredMiniLM(MiniLM):
    """A text's vector is the weighted sum of what the layers say, each mean over tokens at length 1."""

    @property
    def front(self) -> str:
        depths = ",".join(f"{weight:g}" for weight in WEIGHTS)
        return f"minilm-layers/{depths}/{self.inputs.encoder}/{self.inputs.max_tokens}"

    def pool(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        parts = (
            weight * F.normalize(super(LayeredMiniLM, self).pool([layer], mask), dim=1)
            for weight, layer in zip(WEIGHTS, layers, strict=True)
            if weight
        )
        return torch.stack(list(parts)).sum(0)
