"""The default encoders draw and compute what they always did: a model that was trained once is trained again to the
same bits. The numbers below were written down before the encoders could be chosen by name."""

import hashlib

import numpy as np
import pytest
import torch

from quickstudy.config import Settings
from quickstudy.data.dataset import MODALITIES
from quickstudy.model.metamodel import MetaModel


@pytest.fixture
def model(tiny: Settings) -> MetaModel:
    encoders = tiny.model.encoders.model_copy(update={"image": "conv4", "audio": "cnn", "text": "minilm"})
    torch.manual_seed(0)
    return MetaModel(tiny.inputs, tiny.model.model_copy(update={"encoders": encoders}), MODALITIES)


@pytest.mark.parametrize(
    ("modality", "digest", "names"),
    [
        ("audio", "ca2f0ade844cb763", ["blocks.0.0.weight", "blocks.0.1.weight", "blocks.0.1.bias"]),
        ("image", "088e6686b6e40144", ["blocks.0.0.weight", "blocks.0.1.weight", "blocks.0.1.bias"]),
    ],
)
def test_the_first_weights_and_their_names(model: MetaModel, modality, digest: str, names: list[str]) -> None:
    state = model.encoder(modality).state_dict()
    found = hashlib.sha256()
    for name, tensor in state.items():
        found.update(f"{name}{tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().numpy().tobytes())
    assert list(state)[:3] == names
    assert found.hexdigest()[:16] == digest


# The sum of all outputs' sizes, and four outputs.
KNOWN = {
    "audio": [75.84393, 0.8053691, 1.3984317, 0.03389095, 0.01831407],
    "image": [39.674305, 0.2106628, 0.0, 0.001769546, 0.0003264788],
    "text": [161.76575, -1.2048417, -1.4039805, 0.09461644, 0.2117406],
}


def test_what_they_say_in_training_and_after(model: MetaModel) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "audio": random.uniform(-1.5, 1.5, (6, 1, 16, 21)).astype(np.float16),
        "image": random.integers(0, 256, (6, 1, 16, 16), dtype=np.uint8),
        "text": random.normal(0, 1, (6, 384)).astype(np.float32),
    }
    assert list(model.encoder("text").state_dict()) == ["project.weight"]
    for modality, array in arrays.items():
        encoder, rows = model.encoder(modality), torch.from_numpy(array)  # type: ignore[arg-type]
        training = encoder(encoder.augment(rows, torch.Generator().manual_seed(1), 3))
        both = torch.cat([training, encoder.eval()(rows)]).detach()
        found = [both.abs().sum(), both[0, 0], both[3, 5], both[8, 9], both[11, 15]]
        assert found == pytest.approx(KNOWN[modality], rel=1e-4, abs=1e-6)
