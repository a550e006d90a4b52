"""Encoders named LIBRARY:NAME, over tiny models with random weights that are made on the spot."""

import io
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import joblib
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.nn import functional as F

from quickstudy.config import Encoders, Settings
from quickstudy.data.media import decode_audio, decode_image
from quickstudy.encoders import make_encoder
from quickstudy.encoders.encoder import Encoder
from quickstudy.encoders.features import features
from quickstudy.encoders.pretrained import backbone
from quickstudy.encoders.text_minilm import encoder_folder, read_bert, read_tokenizer
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.answers import Subject, evaluate
from quickstudy.kinds.episodes import pool_of
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import load_model, save_model
from quickstudy.tasks.frozen import freeze
from quickstudy.tasks.suites import Suite
from quickstudy.training import Source, meta_train

LEARNERS = ("protonet", "adapt", "film", "ridge", "kernel", "anil", "maml", "reptile", "incontext")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Make a tiny model of a kind in a folder of its own, by transformers, and give the folder."""

    def make(kind: str, seed: int = 0) -> Path:
        import transformers as tf
        from tokenizers import Tokenizer, models, pre_tokenizers

        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(seed)
        layers = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
        pixels = {"size": {"height": 32, "width": 32}, "resample": Image.Resampling.BICUBIC}
        if kind in ("bert", "t5"):
            words = ["[UNK]", "[PAD]", "red", "blue", "old", "new", "thing", "number", *map(str, range(10))]
            tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
            tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
            special = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
            tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
        if kind == "bert":
            model = tf.BertModel(tf.BertConfig(vocab_size=20, **layers), add_pooling_layer=False)
        elif kind == "t5":
            model = tf.T5Model(tf.T5Config(vocab_size=20, d_model=12, d_kv=6, d_ff=16, num_layers=1, num_heads=2))
        elif kind in ("vit", "vit without pooler"):
            config = tf.ViTConfig(image_size=32, patch_size=8, **layers)
            model = tf.ViTModel(config, add_pooling_layer=kind == "vit")
            colours = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3}
            tf.ViTImageProcessor(**pixels, **colours).save_pretrained(folder)
        elif kind == "resnet":
            model = tf.ResNetModel(tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1]))
            tf.ViTImageProcessor(**pixels).save_pretrained(folder)
        else:
            config = tf.Wav2Vec2Config(
                conv_dim=(8, 8),
                conv_stride=(5, 4),
                conv_kernel=(10, 4),
                num_conv_pos_embeddings=4,
                num_conv_pos_embedding_groups=2,
                feat_extract_norm="layer" if kind == "masked" else "group",
                **layers,
            )
            model = tf.Wav2Vec2Model(config)
            extractor = tf.Wav2Vec2FeatureExtractor(sampling_rate=4000, return_attention_mask=kind == "masked")
            extractor.save_pretrained(folder)
        model.save_pretrained(folder)
        return folder

    return make


def named(settings: Settings, modality: str, name: str, **model) -> Settings:
    encoders = settings.model.encoders.model_copy(update={modality: name})
    return settings.model_copy(update={"model": settings.model.model_copy(update={"encoders": encoders, **model})})


def encoder_of(settings: Settings, modality: str, name: str) -> Encoder:
    return make_encoder(modality, settings.inputs, named(settings, modality, name).model)  # type: ignore[arg-type]


def refusal(settings: Settings, modality: str, name: str) -> str:
    with pytest.raises(QuickstudyError) as caught:
        encoder_of(settings, modality, name)
    line = str(caught.value)
    assert line.startswith(f"{name}: ") and "\n" not in line and caught.value.__suppress_context__
    return line


@pytest.mark.parametrize("library", ["transformers", "sentence-transformers"])
def test_the_sentence_encoder_by_its_name_says_what_minilm_says(tiny: Settings, toys, library: str) -> None:
    texts = [*toys("text").raw(), "A whole sentence, with a comma.", "", "word " * 200]
    minilm = encoder_of(tiny, "text", "minilm")
    vectors = encoder_of(tiny, "text", f"{library}:{encoder_folder()}").prepare(texts)
    np.testing.assert_allclose(vectors, minilm.prepare(texts), atol=1e-5)
    assert vectors.dtype == np.float32


def test_layers_of_the_sentence_encoder_are_added_up_whatever_else_is_read_with_a_text(tiny: Settings, toys) -> None:
    texts = [*toys("text").raw(), "A whole sentence, with a comma.", "", "word " * 200]
    encoder = encoder_of(tiny, "text", "minilm-layers")
    together = encoder.prepare(texts)
    tokenizer, bert = read_tokenizer(tiny.inputs.text), read_bert().double()
    for text, vector in zip(texts, together, strict=True):
        ids = torch.tensor([tokenizer.encode(text).ids])
        said = [F.normalize(layer[0].mean(0), dim=0) for layer in bert(ids, output_hidden_states=True).hidden_states]
        expected = F.normalize(said[2] + said[3] + said[4] + said[5] + 3 * said[6], dim=0)
        np.testing.assert_allclose(vector, expected.detach().numpy(), atol=1e-5)


def test_text_is_the_mean_over_its_tokens(tiny: Settings, made) -> None:
    from transformers import AutoTokenizer, BertModel

    folder = made("bert")
    texts = ["red thing number 3", "blue", "old new old new red " * 30]
    vectors = encoder_of(tiny, "text", f"transformers:{folder}").prepare([*texts, ""])
    tokenizer, model = AutoTokenizer.from_pretrained(folder), BertModel.from_pretrained(folder).eval().double()
    for text, vector in zip(texts, vectors, strict=False):  # one at a time, without padding
        ids = torch.tensor([tokenizer(text)["input_ids"][:64]])
        with torch.no_grad():
            mean = model(ids).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector, mean / mean.norm(), atol=1e-6)
    assert np.isfinite(vectors).all()  # of no token at all, too


def test_of_a_model_of_two_halves_the_encoder_is_taken(tiny: Settings, made, toys) -> None:
    vectors = encoder_of(tiny, "text", f"transformers:{made('t5')}").prepare(toys("text").raw())
    assert vectors.shape == (48, 12) and np.isfinite(vectors).all()


@pytest.mark.parametrize("kind", ["vit", "vit without pooler", "resnet"])
def test_image_is_what_the_model_pools(tiny: Settings, made, png, kind: str) -> None:
    from transformers import ResNetModel, ViTModel

    folder = made(kind)
    files = [png(0, "L"), png(1, "RGB", (40, 20)), png(2, "RGB", (32, 32)), png(3, "LA")]
    vectors = encoder_of(tiny, "image", f"transformers:{folder}").prepare(files)
    model = (ResNetModel if kind == "resnet" else ViTModel).from_pretrained(folder).eval()
    mean, spread = (0.5, 0.5) if kind == "resnet" else (0.4, 0.2)
    for file, vector in zip(files, vectors, strict=True):
        image = Image.fromarray(decode_image(file)).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
        pixels = (torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255 - mean) / spread
        with torch.no_grad():
            last = model(pixels).last_hidden_state[0]
            if kind == "resnet":
                pooled = last.mean((1, 2))
            else:
                pooled = torch.tanh(model.pooler.dense(last[0])) if kind == "vit" else last[0]
        np.testing.assert_allclose(vector, F.normalize(pooled, dim=0), atol=1e-5)


def test_sound_is_the_mean_over_its_frames(tiny: Settings, made, wav) -> None:
    from transformers import Wav2Vec2Model

    folder = made("masked")
    files = [wav(0, seconds=0.1, rate=4000), wav(1, seconds=0.3, rate=8000), wav(2, seconds=0.4, rate=4000)]
    vectors = encoder_of(tiny, "audio", f"transformers:{folder}").prepare(files)
    model = Wav2Vec2Model.from_pretrained(folder).eval()
    for file, vector in zip(files, vectors, strict=True):  # one at a time, without padding
        wave = torch.from_numpy(decode_audio(file, 4000))
        with torch.no_grad():
            frames = model(((wave - wave.mean()) / (wave.var(correction=0) + 1e-7).sqrt())[None]).last_hidden_state[0]
        np.testing.assert_allclose(vector, F.normalize(frames.mean(0), dim=0), atol=1e-5)


def test_a_long_recording_is_heard_around_its_loudest_part(tiny: Settings, made, wav) -> None:
    encoder = encoder_of(tiny, "audio", f"transformers:{made('wav2vec2')}")
    assert encoder.prepare([wav(0, seconds=3.0, rate=4000)]).shape == (1, 12)
    wave = np.zeros(9000, dtype=np.float32)
    wave[6000:6400] = 1
    cut = encoder.backbone.decode(_recorded(wave))  # type: ignore[attr-defined]
    assert len(cut) == 1600 and cut[600:1000].mean() > 0.9


def _recorded(wave: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, 4000, format="WAV")
    return buffer.getvalue()


@pytest.mark.parametrize(("modality", "kind"), [("text", "bert"), ("image", "vit"), ("audio", "wav2vec2")])
def test_a_vector_does_not_depend_on_its_batch(tiny: Settings, made, toys, modality: str, kind: str) -> None:
    encoder = encoder_of(tiny, modality, f"transformers:{made(kind)}")
    raw = list(toys(modality, each=7).raw())  # more than a batch
    alone = np.concatenate([encoder.prepare([example]) for example in raw])
    np.testing.assert_allclose(encoder.prepare(raw), alone, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, rtol=1e-5)


def test_vectors_are_computed_once_and_anew_for_other_weights(tiny: Settings, made, toys, tmp_path: Path) -> None:
    folder, cache, dataset = made("bert"), tmp_path / "cache", toys("text")
    cache.mkdir()
    name = f"transformers:{folder}"
    first, key = features(dataset, encoder_of(tiny, "text", name), cache)
    assert isinstance(first, np.memmap) and first.shape == (48, 12)
    inode = next(cache.iterdir()).stat().st_ino
    again, same = features(dataset, encoder_of(tiny, "text", name), cache)
    assert same == key and np.array_equal(first, again) and next(cache.iterdir()).stat().st_ino == inode
    cut = tiny.model_copy(
        update={
            "inputs": tiny.inputs.model_copy(update={"text": tiny.inputs.text.model_copy(update={"max_tokens": 8})})
        }
    )
    assert features(dataset, encoder_of(cut, "text", name), cache)[1] != key
    _replace(folder, made("bert", seed=1))
    other, changed = features(dataset, encoder_of(tiny, "text", name), cache)
    assert changed != key and not np.allclose(other, first)


def _replace(folder: Path, other: Path) -> None:
    """Other weights in the same place, for a process that has read none yet."""
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    backbone.cache_clear()


def test_what_makes_no_difference_is_not_in_the_key(tiny: Settings, made) -> None:
    folder = made("bert")
    before = encoder_of(tiny, "text", f"transformers:{folder}").front
    (folder / "README.md").write_text("A model.")
    (folder / "onnx").mkdir()
    (folder / "onnx/config.json").write_text("{}")
    backbone.cache_clear()
    assert encoder_of(tiny, "text", f"transformers:{folder}").front == before


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_trains_over_it(tiny: Settings, made, toys, learner: str) -> None:
    chosen = named(tiny, "text", f"transformers:{made('bert')}", learner=learner)
    dataset = toys("text", classes=6, each=6)
    torch.manual_seed(0)
    model = MetaModel(chosen.inputs, chosen.model, {"text"})
    assert [name for name, _ in model.encoder("text").named_parameters()] == ["project.weight"]
    before = model.encoder("text").project.weight.clone()  # type: ignore[union-attr,operator]
    source = Source.of(dataset, np.ones(36, dtype=bool), model.encoder("text").prepare(dataset.raw()))
    meta_train(model, [source], [source], chosen)
    after = model.encoder("text").project.weight
    assert torch.isfinite(after).all() and not torch.equal(before, after)  # type: ignore[arg-type]


def test_it_is_judged_beside_its_own_vectors(tiny: Settings, made, toys, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, name = toys("text", classes=4, each=6), f"transformers:{made('bert')}"
    chosen = named(tiny, "text", name)
    model = MetaModel(chosen.inputs, chosen.model, {"text"}).eval()
    arrays = model.encoder("text").prepare(dataset.raw())
    suite = Suite("toys", "classes", pool_of(dataset, np.ones(24, dtype=bool)))
    frozen = freeze(suite, tiny.episodes.model_copy(update={"count": 4, "shots": (2,)}), 0)
    seen = []

    def score(features, episodes):
        seen.append(features)
        return {kind: [(0.5, 1.0)] * len(episodes) for kind in ("logreg", "centroid")}

    monkeypatch.setattr("quickstudy.kinds.classify.score.baselines", score)
    with joblib.parallel_config("threading"):
        rows = evaluate(model, {"toys": Subject(dataset, arrays)}, frozen, tiny.evaluate, seed=0)
    asked = np.unique(np.concatenate([e.flatten() for b in frozen for e in (b.episodes.support, b.episodes.query)]))
    assert any(np.array_equal(found, arrays[asked]) for found in seen)
    assert {"quickstudy", "centroid_encoder"} <= set(rows["method"])


def test_a_model_is_saved_without_the_pretrained_weights_and_knows_them_again(
    tiny: Settings, made, toys, tmp_path: Path
) -> None:
    folder = made("bert")
    chosen = named(tiny, "text", f"transformers:{folder}")
    model = MetaModel(chosen.inputs, chosen.model, {"text"}).eval()
    save_model(model, tmp_path / "model", {})
    loaded = load_model(tmp_path / "model", "classify")
    arrays = torch.from_numpy(loaded.encoder("text").prepare(toys("text").raw()))
    with torch.no_grad():
        assert torch.equal(model.encode("text", arrays), loaded.encode("text", arrays))
    _replace(folder, made("bert", seed=1))
    with pytest.raises(QuickstudyError, match="the model was trained with those of") as caught:
        load_model(tmp_path / "model", "classify")
    assert "\n" not in str(caught.value)


# What can go wrong.


def test_what_is_not_there(tiny: Settings, made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for library in ("transformers", "sentence-transformers"):
        line = refusal(tiny, "text", f"{library}:nobody/no-model")
        assert line.endswith("Download it: `hf download nobody/no-model`")
        line = refusal(tiny, "text", f"{library}:nobody/no-model@1a2b3c")
        assert line.endswith("Download it: `hf download nobody/no-model --revision 1a2b3c`")
    assert "there is no folder /no/where" in refusal(tiny, "image", "transformers:/no/where")
    assert "can be no name" in refusal(tiny, "text", "transformers:a--b/..c")
    assert "no model.safetensors in" in refusal(tiny, "image", f"transformers:{tmp_path}")


@pytest.mark.parametrize("library", ["transformers", "sentence-transformers"])
def test_no_pickle_is_loaded(tiny: Settings, made, library: str) -> None:
    folder = made("bert")
    torch.save({}, folder / "pytorch_model.bin")
    encoder_of(tiny, "text", f"{library}:{folder}")  # beside weights in safetensors it may lie
    (folder / "model.safetensors").unlink()
    backbone.cache_clear()
    line = refusal(tiny, "text", f"{library}:{folder}")
    assert "pytorch_model.bin is a pickle, and no pickle is loaded. Take a revision" in line


def test_no_pickle_is_loaded_in_a_part_of_a_sentence_encoder(tiny: Settings, made, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    parts = [Transformer(str(made("bert"))), Pooling(12), Dense(12, 5)]
    SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "own"))
    name = f"sentence-transformers:{tmp_path / 'own'}"
    encoder = encoder_of(tiny, "text", name)
    assert encoder.prepare(["red thing"]).shape == (1, 5)
    (weights,) = tmp_path.glob("own/2_Dense/model.safetensors")
    weights.unlink()
    torch.save({}, weights.with_name("pytorch_model.bin"))
    backbone.cache_clear()
    assert "2_Dense/pytorch_model.bin is a pickle" in refusal(tiny, "text", name)


def test_no_code_of_a_model_is_run(tiny: Settings, made, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\nfrom transformers import BertConfig as Config, BertModel as Model\n"
    folder = made("bert")
    (folder / "own.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    own = config | {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(own))
    for library in ("transformers", "sentence-transformers"):
        refusal(tiny, "text", f"{library}:{folder}")
    (folder / "config.json").write_text(json.dumps(config))
    modules = [{"idx": 0, "name": "0", "path": "", "type": "own.Model"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    refusal(tiny, "text", f"sentence-transformers:{folder}")
    assert not ran.exists()


def test_what_does_not_fit(tiny: Settings, made) -> None:
    assert "makes no vector of image" in refusal(tiny, "image", f"transformers:{made('bert')}")
    assert "makes no vector of audio" in refusal(tiny, "audio", f"transformers:{made('vit')}")
    folder = made("vit")
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    assert "makes no vector of image" in refusal(tiny, "image", f"transformers:{folder}")
    folder = made("bert")
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 3}
    (folder / "config.json").write_text(json.dumps(config))
    assert "its files lack" in refusal(tiny, "text", f"transformers:{folder}")


def test_a_library_that_is_not_installed_is_named(tiny: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for library, module, modality in (
        ("timm", "timm", "image"),
        ("sentence-transformers", "sentence_transformers", "text"),
    ):
        monkeypatch.setitem(sys.modules, module, None)  # as where it is not installed
        line = refusal(tiny, modality, f"{library}:resnet18")
        assert line.endswith(f"Install it: `pip install 'quickstudy[{library}]'`")


class Pooled(torch.nn.Module):
    """What timm makes, as far as we ask it."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> list:
    """A stand-in for timm, which brings torchvision along and so is not installed with the rest; what it was asked."""
    asked: list = []

    def create_model(name: str, **options) -> Pooled:
        asked.append((name, options))
        return Pooled()

    def create_transform(size: int, is_training: bool):
        assert not is_training
        return lambda image: torch.from_numpy(np.array(image.resize((size, size)))).permute(2, 0, 1) / 255

    module, data = ModuleType("timm"), ModuleType("timm.data")
    data.resolve_model_data_config = lambda model: {"size": 8}  # type: ignore[attr-defined]
    data.create_transform = create_transform  # type: ignore[attr-defined]
    weights = {"resnet18.a1_in1k": "timm/resnet18.a1_in1k", "resnet18": "timm/resnet18.a1_in1k", "own": None}
    module.data, module.create_model = data, create_model  # type: ignore[attr-defined]
    module.is_model = lambda name: name in weights  # type: ignore[attr-defined]
    module.list_models = lambda: ["resnet18", "own"]  # type: ignore[attr-defined]
    module.list_pretrained = lambda pattern: ["resnet18.a1_in1k"]  # type: ignore[attr-defined]
    module.get_pretrained_cfg = lambda name: SimpleNamespace(hf_hub_id=weights[name])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    return asked


def test_timm_sees_its_own_pixels_and_its_pooled_vector_is_taken(tiny: Settings, made, png, timm: list) -> None:
    folder = made("vit")  # for its files; the stand-in does not read them
    grey = Image.open(io.BytesIO(png(0, "L", (8, 8))))
    files = [png(0, "L", (8, 8)), png(1, "RGB", (40, 20))]
    vectors = encoder_of(tiny, "image", f"timm:{folder}").prepare(files)
    assert timm == [(f"local-dir:{folder}", {"pretrained": True, "num_classes": 0})]
    colour = np.array(Image.open(io.BytesIO(files[1])).resize((8, 8))).mean((0, 1))
    np.testing.assert_allclose(vectors[0], [3**-0.5] * 3, rtol=1e-5)  # grey as it is, and not turned to its negative
    np.testing.assert_allclose(vectors[1], colour / np.linalg.norm(colour), rtol=1e-5)
    assert np.array(grey).mean() > 0


def test_names_of_timm(tiny: Settings, made, timm: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert refusal(tiny, "image", "timm:resnet81").endswith("knows no model 'resnet81'. Did you mean resnet18?")
    assert "no weights 'resnet18.a9'. Known: resnet18.a1_in1k" in refusal(tiny, "image", "timm:resnet18.a9")
    assert "has no weights of 'own'" in refusal(tiny, "image", "timm:own")
    for name, get in (
        ("resnet18", "timm/resnet18.a1_in1k"),
        ("resnet18@v2", "timm/resnet18.a1_in1k --revision v2"),
        ("somebody/own", "somebody/own"),
    ):
        assert refusal(tiny, "image", f"timm:{name}").endswith(f"Download it: `hf download {get}`")
    folder = made("vit")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "no pickle is loaded" in refusal(tiny, "image", f"timm:{folder}")
    assert timm == []


def test_a_torchvision_of_another_build_is_told_from_a_model_that_does_not_fit(
    tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    line = refusal(tiny, "image", "timm:resnet18")
    assert "torchvision is installed, and is not the one that belongs to torch" in line and "pip install" in line


def test_names_that_may_stand_in_params() -> None:
    values = {"image": "conv4", "audio": "cnn", "text": "minilm"}
    for modality, name in (
        ("image", "timm:resnet18"),
        ("image", "timm:vit_base_patch16_224.augreg_in21k@v1"),
        ("image", "timm:./a b/c"),
        ("audio", "transformers:facebook/wav2vec2-base"),
        ("text", "transformers:../models/own"),
        ("text", "sentence-transformers:BAAI/bge-small-en-v1.5"),
        ("text", "sentence-transformers:~/own"),
    ):
        assert Encoders(**(values | {modality: name})).model_dump() == values | {modality: name}
    for modality, name in (
        ("image", "resnet18"),
        ("image", "timm:"),
        ("image", "sentence-transformers:a"),
        ("audio", "timm:resnet18"),
        ("text", "timm:resnet18"),
        ("text", "transformers:a/b/c"),
        ("text", "transformers:a b"),
        ("text", ":a"),
        ("text", "huggingface:a/b"),
        ("text", None),
        ("text", 3),
    ):
        with pytest.raises(ValueError, match=r"input should be 'c|input should be 'm"):
            Encoders(**(values | {modality: name}))
