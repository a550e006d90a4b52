"""Encoders: what becomes of a file or a text before and in the network."""

import io

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from quickstudy.config import AudioInput, ImageInput, Settings
from quickstudy.encoders import make_encoder
from quickstudy.encoders.audio import SILENCE
from quickstudy.encoders.audio_cnn import SpectrogramCnn
from quickstudy.encoders.image_conv4 import Conv4
from quickstudy.errors import QuickstudyError


def picture(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def recording(wave: np.ndarray, rate: int = 4000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


@pytest.fixture
def image(tiny: Settings) -> Conv4:
    torch.manual_seed(0)
    return Conv4(tiny.inputs.image, 4, 16)


@pytest.fixture
def audio(tiny: Settings) -> SpectrogramCnn:
    torch.manual_seed(0)
    return SpectrogramCnn(tiny.inputs.audio, 4, 16)


# Image


def test_pictures_of_any_form_become_one_array(image: Conv4, png) -> None:
    files = [png(1), png(2, "RGB", (40, 90)), png(3, "RGBA", (16, 16)), png(4, "1"), png(5, "P", (300, 17))]
    arrays = image.prepare(files)
    assert arrays.shape == (5, 1, 16, 16) and arrays.dtype == np.uint8
    assert (arrays.min((1, 2, 3)) == 0).all() and (arrays.max((1, 2, 3)) == 255).all()  # at full contrast
    assert image(torch.from_numpy(arrays)).shape == (5, 16)


def test_ink_is_light_whatever_the_paper(image: Conv4) -> None:
    drawing = np.zeros((32, 32))
    drawing[8:24, 12:18] = 200
    light, dark = image.prepare([picture(drawing), picture(255 - drawing)])
    assert np.array_equal(light, dark)
    assert light[0, 8, 7] == 255 and light[0, 0, 0] == 0
    faint, strong = image.prepare([picture(drawing / 10), picture(drawing)])
    assert np.array_equal(faint, strong)


def test_a_blank_picture_is_no_division_by_zero(image: Conv4) -> None:
    arrays = image.prepare([picture(np.full((20, 20), 255)), picture(np.full((20, 20), 90))])
    assert (arrays == 0).all() and torch.isfinite(image(torch.from_numpy(arrays))).all()


def test_colours_stay_where_they_are_asked_for() -> None:
    encoder = Conv4(ImageInput(size=16, channels=3), 4, 16)
    red = np.zeros((20, 20, 3))
    red[..., 0] = 255
    arrays = encoder.prepare([picture(red), picture(np.full((20, 20), 7))])
    assert arrays.shape == (2, 3, 16, 16) and arrays[0].max((1, 2)).tolist() == [255, 0, 0]
    assert encoder(torch.from_numpy(arrays)).shape == (2, 16)


def test_bytes_and_fractions_are_the_same_image(image: Conv4, png) -> None:
    image.eval()
    arrays = torch.from_numpy(image.prepare([png(i) for i in range(3)]))
    assert torch.allclose(image(arrays), image(arrays.float() / 255))


def test_augmented_images_depend_on_the_generator_alone(image: Conv4, png) -> None:
    arrays = torch.from_numpy(image.prepare([png(i) for i in range(6)]))

    def augmented(seed: int, way: int | None = 3) -> torch.Tensor:
        torch.manual_seed(seed + 100)
        return image.augment(arrays, torch.Generator().manual_seed(seed), way)

    once = augmented(0)
    torch.rand(5)
    assert torch.equal(once, augmented(0)) and not torch.equal(once, augmented(1))
    assert once.shape == arrays.shape and once.min() >= 0 and once.max() <= 1


def test_the_classes_are_turned_and_each_as_a_whole(image: Conv4) -> None:
    drawing = np.zeros((32, 32))
    drawing[4:28, 4:14] = 255  # the left half: where its weight lies tells the turn
    arrays = torch.from_numpy(image.prepare([picture(drawing)] * 80))
    place = torch.linspace(-1, 1, 16)

    def directions(way: int | None) -> list[int]:
        x = image.augment(arrays, torch.Generator().manual_seed(0), way)[:, 0]
        weight = x.sum((1, 2))
        right, down = (x.sum(1) @ place) / weight, (x.sum(2) @ place) / weight
        sideways = right.abs() > down.abs()
        return torch.where(sideways, torch.where(right > 0, 1, 3), torch.where(down > 0, 2, 0)).tolist()

    classes = np.array(directions(20)).reshape(20, 4)
    assert (classes == classes[:, :1]).all() and set(classes[:, 0]) == {0, 1, 2, 3}
    assert set(directions(None)) == {3}


# Audio


def test_recordings_of_any_length_become_one_array(audio: SpectrogramCnn, wav) -> None:
    files = [wav(0, 0.05), wav(1, 0.4, 4000), wav(2, 3.0, 16000), wav(3, channels=2)]
    arrays = audio.prepare(files)
    assert arrays.dtype == np.float16 and arrays.shape == (4, 1, 16, 21)
    assert np.abs(arrays).max() <= SILENCE + 1e-3 and np.allclose(arrays.max((1, 2, 3)), SILENCE, atol=1e-3)
    assert audio(torch.from_numpy(arrays)).shape == (4, 16)


def test_loudness_makes_no_difference(audio: SpectrogramCnn) -> None:
    wave = np.random.default_rng(0).normal(0, 0.2, 1600)
    loud, soft = audio.prepare([recording(wave), recording(wave * 0.01)]).astype(float)
    assert np.abs(loud - soft).max() < 0.01


def test_silence_is_no_division_by_zero(audio: SpectrogramCnn) -> None:
    try:
        arrays = audio.prepare([recording(np.zeros(1600))])
    except QuickstudyError:
        return  # the reader may refuse it
    assert np.isfinite(arrays).all() and torch.isfinite(audio(torch.from_numpy(arrays))).all()


@pytest.mark.parametrize("where", [0, 3000, 9000, 17000])
def test_a_long_recording_is_cut_around_its_loudest_part(audio: SpectrogramCnn, where: int) -> None:
    wave = np.random.default_rng(0).normal(0, 1e-4, 18000)
    burst = np.random.default_rng(1).normal(0, 0.3, 1000)
    wave[where : where + 1000] = burst
    (clip,) = [audio._clip(wave.astype(np.float32))]
    assert len(clip) == 1600
    assert np.square(clip).sum() > 0.99 * np.square(wave).sum()


def test_a_short_recording_is_kept_whole(audio: SpectrogramCnn) -> None:
    for length in (1, 100, 1599, 1600):
        wave = np.random.default_rng(length).normal(0, 0.3, length).astype(np.float32)
        wave[: length // 3] *= 9  # its energy is not in the middle
        clip = audio._clip(wave)
        assert len(clip) == 1600 and np.square(clip).sum() == pytest.approx(np.square(wave).sum(), rel=1e-6)


def test_a_tone_shows_in_its_band() -> None:
    encoder = SpectrogramCnn(AudioInput(sample_rate=8000, seconds=0.5, mels=40), 4, 16)
    assert (encoder.mel_filters.sum(1) > 0).all() and (encoder.mel_filters >= 0).all()
    times = np.arange(4000) / 8000
    bands = []
    for hertz in (200, 800, 3200):
        (mels,) = encoder.prepare([recording(np.sin(2 * np.pi * hertz * times), 8000)]).astype(float)
        bands.append(int(mels[0, :, 5:-5].mean(1).argmax()))
    top, low = (2595 * np.log10(1 + f / 700) for f in (4000, 60))
    for hertz, band in zip((200, 800, 3200), bands, strict=True):
        expected = (2595 * np.log10(1 + hertz / 700) - low) / (top - low) * 41 - 1
        assert abs(band - expected) <= 1


def test_augmented_recordings_depend_on_the_generator_alone(audio: SpectrogramCnn, wav) -> None:
    arrays = torch.from_numpy(audio.prepare([wav(i) for i in range(6)]))

    def augmented(seed: int) -> torch.Tensor:
        torch.manual_seed(seed + 100)
        return audio.augment(arrays, torch.Generator().manual_seed(seed), 3)

    once = augmented(0)
    torch.rand(5)
    assert torch.equal(once, augmented(0)) and not torch.equal(once, augmented(1))
    assert once.shape == arrays.shape and torch.isfinite(once).all()


# Text and all of them


def test_sentences_are_the_same_alone_and_among_others(tiny: Settings) -> None:
    encoder = make_encoder("text", tiny.inputs, tiny.model)
    texts = ["A cat sat on the mat.", "The kitten rested on a rug.", "Inflation rose again in May.", "word " * 300, ""]
    together = encoder.prepare(texts)
    assert together.shape == (5, 384) and together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, row in zip(texts, together, strict=True):
        assert np.abs(encoder.prepare([text])[0] - row).max() < 1e-5
    cat, kitten, inflation = together[:3]
    assert cat @ kitten > 0.5 > cat @ inflation + 0.3  # they are the pretrained vectors, and in their places
    assert np.abs(encoder.prepare(["word " * 200])[0] - together[3]).max() < 1e-5  # both are cut at max_tokens
    # what is frozen is neither trained nor saved
    assert [name for name, _ in encoder.named_parameters()] == list(encoder.state_dict()) == ["project.weight"]


@pytest.mark.parametrize("dimension", [384, 16])
def test_the_projection_begins_with_what_the_sentence_encoder_says(tiny: Settings, dimension: int) -> None:
    encoder = make_encoder("text", tiny.inputs, tiny.model.model_copy(update={"dimension": dimension}))
    rows = torch.randn(5, 384)
    if dimension == 384:
        assert torch.equal(encoder(rows), rows)
    weight = encoder.project.weight
    assert torch.allclose(weight @ weight.T, torch.eye(dimension), atol=1e-5)


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_what_cannot_be_read_is_one_line(tiny: Settings, modality) -> None:
    with pytest.raises(QuickstudyError):
        make_encoder(modality, tiny.inputs, tiny.model).prepare([b"neither picture nor sound"])
