"""LIBRARY:NAME: any model of sentence-transformers, timm or transformers, frozen, and a trainable projection.
``backbone.py`` finds its files; ``pretrained_LIBRARY.py`` runs it."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.config import Inputs
from quickstudy.data.dataset import Modality
from quickstudy.encoders.audio import heard
from quickstudy.encoders.backbone import Backbone, cause
from quickstudy.encoders.pretrained_sentence_transformers import sentence_transformers_model
from quickstudy.encoders.pretrained_timm import timm_model
from quickstudy.encoders.pretrained_transformers import transformers_model
from quickstudy.encoders.projection import ProjectedEncoder
from quickstudy.errors import QuickstudyError

BATCH = 32


class Pretrained(ProjectedEncoder):
    """What a pretrained model says, frozen, then projected.

    Raises:
        QuickstudyError: the library or the model is not there, or makes no vector of an example of the modality.
    """

    def __init__(self, modality: Modality, name: str, inputs: Inputs, dimension: int):
        self.name, self.wanted = name, (modality, name, inputs)
        super().__init__(self.backbone.width, dimension)

    @classmethod
    def sees(cls, modality: Modality, inputs: Inputs, name: str) -> str:
        match modality:
            case "image":
                return f"Images are seen in the size and the colours that {name} was trained on."
            case "audio":
                return heard(f"at the rate that {name} was trained on", inputs.audio)
            case "text":
                return f"Texts are read up to {inputs.text.max_tokens} tokens by {name}, frozen."

    @property
    def backbone(self) -> Backbone:
        # Not a submodule: its weights are neither trained, copied nor saved with ours.
        return backbone(*self.wanted)

    @property
    def front(self) -> str:
        return f"{self.name}/{self.backbone.inputs}/{self.backbone.digest}/{self.backbone.beside}"

    def prepare(self, raw: Sequence[Any]) -> np.ndarray:
        """Frozen front: examples as they are stored → float32 [n, W], of length 1."""
        return self._vectors([len(example) for example in raw], lambda place: self.backbone.decode(raw[place]))

    def decoded(self, raw: Any) -> tuple[int, Any]:
        """Return the size of an example as it is stored, and what the model takes of it."""
        return len(raw), self.backbone.decode(raw)

    def arrays(self, decoded: Sequence[tuple[int, Any]]) -> np.ndarray:
        """Return float32 [n, W], of length 1."""
        return self._vectors([size for size, _ in decoded], lambda place: decoded[place][1])

    def _vectors(self, sizes: Sequence[int], example: Callable[[int], Any]) -> np.ndarray:
        out = np.empty((len(sizes), self.backbone.width), dtype=np.float32)
        order = np.argsort(sizes, kind="stable")  # texts of like length share a batch
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            out[rows] = F.normalize(self.backbone([example(int(i)) for i in rows]), dim=1).numpy()
        return out

    def get_extra_state(self) -> Tensor:
        """The digest of the pretrained model, saved with the projection that was trained for it."""
        return torch.tensor(list(bytes.fromhex(self.backbone.digest)), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        trained = bytes(state.tolist()).hex()
        if trained != self.backbone.digest:
            raise QuickstudyError(
                f"its files have the digest {self.backbone.digest}, the model was trained with those of {trained}",
                where=self.name,
                fix="Bring those back, or train again with `quickstudy run`",
            )


@lru_cache(maxsize=8)
def backbone(modality: Modality, name: str, inputs: Inputs) -> Backbone:
    """The model behind a name of `model.encoders`, read once a process; errors as `Pretrained` has them."""
    library, _, model = name.partition(":")
    try:
        with torch.device("cpu"):  # wherever the model is made that it is a part of
            match library:
                case "timm":
                    found = timm_model(model)
                case "sentence-transformers":
                    found = sentence_transformers_model(model, inputs.text)
                case _:
                    found = transformers_model(model, modality, inputs)
            assert found.width > 0  # it runs
    except QuickstudyError as error:
        raise QuickstudyError(error.what, where=name, fix=error.fix) from None
    except Exception as error:  # what a library raises on a model that it cannot use is written nowhere
        said = cause(error, name)
        raise QuickstudyError(f"{library} makes no vector of {modality} with it ({said})", where=name) from None
    return found
