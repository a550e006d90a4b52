"""What holds for every encoder that can be named."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
import yaml

from quickstudy.config import Encoders, Episodes, Evaluate, Settings, load_settings
from quickstudy.data.dataset import MODALITIES
from quickstudy.encoders import encoder_class, make_encoder
from quickstudy.encoders.features import features
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.answers import Subject, evaluate
from quickstudy.evaluation.scratch import train_from_scratch
from quickstudy.kinds.classify import head
from quickstudy.kinds.episodes import pool_of
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import load_model, save_model
from quickstudy.tasks.frozen import freeze
from quickstudy.tasks.suites import Suite
from quickstudy.training import Source, meta_train, optimiser

ALL = [(m, name) for m in MODALITIES for name in Encoders.known(m)]
TRAINED = [(modality, name) for modality, name in ALL if not name.startswith("minilm")]


def with_encoder(settings: Settings, modality: str, name: str, **model: Any) -> Settings:
    encoders = settings.model.encoders.model_copy(update={modality: name})
    return settings.model_copy(update={"model": settings.model.model_copy(update={"encoders": encoders, **model})})


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_files_become_vectors(tiny: Settings, toys, modality, name) -> None:
    chosen = with_encoder(tiny, modality, name)
    encoder = make_encoder(modality, chosen.inputs, chosen.model)
    assert type(encoder) is encoder_class(modality, chosen.inputs, chosen.model)
    arrays = encoder.prepare(toys(modality, classes=2, each=3).raw())
    assert len(arrays) == 6
    vectors = encoder(torch.from_numpy(arrays))
    assert vectors.shape == (6, 16) and vectors.dtype == torch.float32 and torch.isfinite(vectors).all()
    augmented = encoder.augment(torch.from_numpy(arrays), torch.Generator().manual_seed(0), 2)
    assert encoder(augmented).shape == (6, 16)


@pytest.mark.parametrize(("modality", "name"), TRAINED)
def test_it_learns_what_can_be_learned(tiny: Settings, toys, modality, name) -> None:
    chosen = with_encoder(tiny, modality, name, width=16)
    dataset = toys(modality, classes=3, each=8)
    if modality == "audio":  # chirps of unlike pitch, the same for all examples of a class but for noise
        times = np.arange(1600) / 4000
        random = np.random.default_rng(0)
        encoder = make_encoder(modality, chosen.inputs, chosen.model)
        waves = [
            np.sin(2 * np.pi * hertz * times) + random.normal(0, 0.1, 1600)
            for hertz in (200, 600, 1500)
            for _ in range(8)
        ]
        arrays = encoder.log_mel(torch.tensor(np.array(waves), dtype=torch.float32)).half()
    else:
        arrays = torch.from_numpy(make_encoder(modality, chosen.inputs, chosen.model).prepare(dataset.raw()))
    torch.manual_seed(0)
    encoder = make_encoder(modality, chosen.inputs, chosen.model)
    rows, labels = arrays.unflatten(0, (3, 8)), torch.arange(3)
    support, query = rows[:, :6].flatten(0, 1), rows[:, 6:].flatten(0, 1)
    logits, _ = train_from_scratch(encoder, 16, head.loss, support, labels.repeat_interleave(6), query, 3, 40)
    assert torch.equal(logits.argmax(-1), labels.repeat_interleave(2))


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_a_model_is_saved_and_loaded(tiny: Settings, toys, tmp_path: Path, modality, name) -> None:
    chosen = with_encoder(tiny, modality, name)
    torch.manual_seed(1)
    model = MetaModel(chosen.inputs, chosen.model, {modality}).eval()
    save_model(model, tmp_path / "model", {})
    torch.manual_seed(2)
    loaded = load_model(tmp_path / "model", "classify")
    assert getattr(loaded.shape.encoders, modality) == name
    arrays = torch.from_numpy(loaded.encoder(modality).prepare(toys(modality, classes=2, each=2).raw()))
    with torch.no_grad():
        assert torch.equal(model.encode(modality, arrays), loaded.encode(modality, arrays))


@pytest.mark.parametrize(
    ("modality", "name"), [("image", "resnet12"), ("audio", "lstm"), ("text", "bytes-transformer")]
)
def test_meta_training_goes_on_after_a_stop_as_if_there_was_none(tiny, toys, tmp_path, modality, name) -> None:
    chosen = with_encoder(tiny, modality, name)
    dataset = toys(modality, classes=6, each=6)
    finals = []
    for stopped in (False, True):
        torch.manual_seed(0)
        model = MetaModel(chosen.inputs, chosen.model, {modality})
        source = Source.of(dataset, np.ones(36, dtype=bool), model.encoder(modality).prepare(dataset.raw()))
        checkpoint = tmp_path / f"{stopped}.safetensors"
        if stopped:  # of 6 steps 3 are done, and the checkpoint of the third is there

            def stop(step: int, steps: int, text: str) -> None:
                if step == 4:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                meta_train(model, [source], [source], chosen, checkpoint, stop)
            model = MetaModel(chosen.inputs, chosen.model, {modality})
        meta_train(model, [source], [source], chosen, checkpoint)
        finals.append(model.state_dict())
    assert all(torch.equal(finals[0][key], finals[1][key]) for key in finals[0])


def test_only_what_begins_pretrained_is_trained_with_care(tiny: Settings) -> None:
    for name in ("minilm", "minilm-layers", "minilm-tuned", "words-cnn"):
        chosen = with_encoder(tiny, "text", name)
        model = MetaModel(chosen.inputs, chosen.model, MODALITIES)
        groups = optimiser(model, chosen.train).param_groups
        careful = {id(p) for p in groups[2]["params"]}
        assert careful == ({id(p) for p in model.encoder("text").parameters()} if name != "words-cnn" else set())
        assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


@pytest.mark.parametrize("name", ["minilm", "minilm-layers", "words-cnn"])
def test_the_baseline_sees_the_encoder_before_meta_training(tiny: Settings, toys, monkeypatch, name: str) -> None:
    chosen = with_encoder(tiny, "text", name)
    dataset = toys("text", classes=4, each=6)
    torch.manual_seed(0)
    model = MetaModel(chosen.inputs, chosen.model, {"text"}).eval()
    arrays = model.encoder("text").prepare(dataset.raw())
    pool = pool_of(dataset, np.ones(24, dtype=bool))
    frozen = freeze(Suite("toys", "classes", pool), Episodes(count=4, shots=(2,), query=2, way=3, ways={}), 0)
    seen = {}

    def score(features, episodes):
        seen[features.shape] = features
        return {kind: [(0.5, 1.0)] * len(episodes) for kind in ("logreg", "centroid")}

    monkeypatch.setattr("quickstudy.kinds.classify.score.baselines", score)
    only = Evaluate(baselines=True, scratch_episodes=1, scratch_steps=1, timed_episodes=1)
    with joblib.parallel_config("threading"):
        evaluate(model, {"toys": Subject(dataset, arrays)}, frozen, only, seed=7)
    if name.startswith("minilm"):
        expected = arrays
    else:
        torch.manual_seed(7)
        with torch.no_grad():
            expected = make_encoder("text", chosen.inputs, chosen.model).eval()(torch.from_numpy(arrays)).numpy()
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    rows = np.unique(torch.cat([e.flatten() for b in frozen for e in (b.episodes.support, b.episodes.query)]).numpy())
    assert np.allclose(seen[len(rows), expected.shape[1]], expected[rows], atol=1e-5)


def test_unlike_fronts_never_share_a_cached_file(tiny: Settings, toys, tmp_path: Path) -> None:
    dataset = toys("text", classes=2, each=2)
    inputs = tiny.inputs
    cut = inputs.model_copy(update={"text": inputs.text.model_copy(update={"max_tokens": 9})})
    fewer = inputs.model_copy(update={"text": inputs.text.model_copy(update={"word_buckets": 300})})
    shorter = inputs.model_copy(update={"text": inputs.text.model_copy(update={"max_bytes": 10})})
    keys: dict[str, str] = {}
    for name, settings in (
        ("minilm", inputs),
        ("minilm", cut),
        ("minilm-layers", inputs),
        ("minilm-tuned", inputs),
        ("minilm-tuned", cut),
        ("bytes-cnn", inputs),
        ("bytes-cnn", shorter),
        ("words-cnn", inputs),
        ("words-cnn", cut),
        ("words-cnn", fewer),
    ):
        encoder = make_encoder("text", settings, with_encoder(tiny, "text", name).model)
        array, key = features(dataset, encoder, tmp_path)
        assert np.array_equal(array, encoder.prepare(dataset.raw()))
        assert key not in keys, (name, keys[key])
        keys[key] = name
    assert len(list(tmp_path.iterdir())) == len(keys) == 10
    # what a front does not depend on computes nothing anew, nor does another network over the same front
    for name, settings in (("minilm", shorter), ("bytes-gru", cut), ("words-transformer", shorter)):
        encoder = make_encoder("text", settings, with_encoder(tiny, "text", name).model)
        assert keys[features(dataset, encoder, tmp_path)[1]].split("-")[0] == name.split("-")[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": "vgg"}, "model.encoders.image = 'vgg': input should be 'conv4', 'resnet12' or, for a pretrained"),
        ({"audio": "conv4"}, "model.encoders.audio = 'conv4': input should be 'cnn', 'gru', 'lstm' or, for"),
        ({"text": "bytes"}, "model.encoders.text = 'bytes': input should be 'minilm', 'minilm-layers'"),
        ({"video": "cnn"}, "unknown parameter 'model.encoders.video'. Known here: image, audio, text"),
    ],
)
def test_an_unknown_name_is_one_line(tiny_params: dict[str, Any], tmp_path: Path, change, said: str) -> None:
    model = tiny_params["model"]
    params = tiny_params | {"model": model | {"encoders": model["encoders"] | change}}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    with pytest.raises(QuickstudyError) as caught:
        load_settings(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)
