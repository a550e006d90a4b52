"""Whatever people hold in their hands becomes the bytes that a model reads, or one line that says why not."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quickstudy.client.examples import is_one, read_examples, read_labels
from quickstudy.data.media import decode_audio, decode_image, read_audio
from quickstudy.errors import QuickstudyError


def pixels(picture) -> np.ndarray:
    read = read_examples(picture)
    assert read.modality == "image"
    return decode_image(read.contents[0])


def test_arrays_are_the_pixels_that_they_hold() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (7, 9), dtype=np.uint8)
    colour = np.random.default_rng(1).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    assert np.array_equal(pixels(grey), grey) and np.array_equal(pixels(colour), colour)
    assert np.array_equal(pixels(grey[:, :, None]), grey)
    assert np.array_equal(pixels(grey.astype(int)), grey)
    assert np.array_equal(pixels(grey / 255), grey)
    assert np.array_equal(pixels(grey > 127), np.where(grey > 127, 255, 0))
    assert np.array_equal(pixels(grey.astype(np.uint16) * 257), grey)  # 16 bits


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_a_picture_of_pillow_is_what_its_file_is(png, mode: str) -> None:
    image = Image.open(io.BytesIO(png(3, "L"))).convert(mode)
    seen = pixels(image)
    assert np.abs(seen.astype(int) - np.asarray(image.convert("RGB" if seen.ndim == 3 else "L"))).max() <= 1


def test_samples_are_the_sound_that_they_hold() -> None:
    wave = np.sin(np.arange(800) / 5).astype(np.float32) / 2
    read = read_examples((wave, 8000))
    assert read.modality == "audio" and read.names == ["audio 1"]
    assert np.array_equal(decode_audio(read.contents[0], 8000), wave)
    (whole,) = read_examples(((wave * 2**15).astype(np.int16), 8000)).contents
    samples, rate = read_audio(whole)
    assert rate == 8000 and np.abs(samples - wave).max() < 1e-4
    (stereo,) = read_examples((np.stack([wave, 0 * wave], 1), 8000)).contents
    assert np.allclose(read_audio(stereo)[0], wave / 2)


def test_bytes_and_paths_keep_their_bytes(png, wav, tmp_path: Path) -> None:
    (tmp_path / "a picture.png").write_bytes(png())
    (tmp_path / "sound.wav").write_bytes(wav())
    (tmp_path / "note.txt").write_text("a note")
    given = {"image": [png(), tmp_path / "a picture.png", str(tmp_path / "a picture.png")]}
    given["audio"] = [wav(), tmp_path / "sound.wav", wav(form="FLAC"), wav(form="OGG"), wav(form="MP3", rate=16000)]
    for modality, examples in given.items():
        read = read_examples(examples)
        assert read.modality == modality and read.contents[0] == read.contents[1]
        assert read.names[0] == f"{modality} 1" and read.names[1] == str(examples[1])
    assert read_examples(tmp_path / "note.txt").contents == ["a note"]


def test_a_text_may_speak_of_files(png, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cat.png").write_bytes(png())
    assert read_examples("How do I open cat.png").modality == "text"
    assert read_examples("cat.png").modality == "image"
    assert read_examples("cat.png", "text").contents == ["cat.png"]
    with pytest.raises(QuickstudyError, match=r"example 1: no file dog\.png\. If that is a text, name the modality"):
        read_examples("dog.png")


def test_one_or_many(png, wav) -> None:
    picture = Image.open(io.BytesIO(png()))
    sound = (np.zeros(9), 8000)
    for one in ("text", b"bytes", Path("a"), picture, sound, np.zeros((4, 5)), np.zeros((4, 5, 3)), 7, None):
        assert is_one(one)
    for many in (["text"], ("a", "b"), [picture], [sound], np.zeros((4, 5, 6, 3)), np.array(["a", "b"]), iter("ab")):
        assert not is_one(many)
    assert len(read_examples(np.zeros((4, 5, 6, 3))).contents) == 4
    assert read_examples(np.array(["a", "b"])).contents == ["a", "b"]


@pytest.mark.parametrize(
    ("example", "line"),
    [
        ("  ", "example 1: the text is empty"),
        (7, "example 1: is int '7'. Give a text"),
        (None, "example 1: is NoneType"),
        ({"text": 1}, "example 1: is dict"),
        ([], "no examples"),
        ([np.zeros(5)], r"example 1: is an array of shape \[5\]"),
        ([np.zeros((5, 0))], "example 1: is an array of shape"),
        (np.full((4, 4), 16.0), r"other values than pixels have. Of float64, pixels lie in 0 … 1; scale them"),
        (np.full((4, 4), np.nan), "other values than pixels have"),
        (np.full((4, 4), -1), r"pixels lie in 0 … 255"),
        (np.zeros((4, 4), dtype=complex), "other values than pixels have"),
        (Image.new("F", (3, 3)), "floating-point pixels"),
        ((np.zeros((2, 2, 2)), 8000), r"is a recording of shape \[2, 2, 2\] at 8000 Hz"),
        ((np.zeros(0), 8000), "is a recording of shape"),
        ((np.zeros(9), 0), "at 0 Hz"),
        (["a", np.zeros((4, 4))], "example 2: is an image, the first one is a text"),
        (Path("missing.wav"), "example 1: no file missing.wav"),
    ],
)
def test_what_cannot_be_read_is_one_line(example, line: str) -> None:
    with pytest.raises(QuickstudyError, match=line) as error:
        read_examples(example)
    assert "\n" not in str(error.value)


def test_a_modality_that_is_named_must_be_true(png) -> None:
    with pytest.raises(QuickstudyError, match="example 1: is an image, not a recording"):
        read_examples(np.zeros((4, 4)), "audio")
    with pytest.raises(QuickstudyError, match="no modality 'video'"):
        read_examples("a", "video")  # type: ignore[arg-type]
    with pytest.raises(QuickstudyError, match="is bytes, not a text"):
        read_examples(b"hello", "text")


def test_labels() -> None:
    assert read_labels("a", 2) == ("classify", ["a", "a"]) and read_labels([1, "x"], 2) == ("classify", ["1", "x"])
    assert read_labels(np.array([3, 4]), 2) == ("classify", ["3", "4"])
    for labels, line in (
        (["a"], "2 examples and 1 labels"),
        (["a", None], "example 2: has no label"),
        (["a", float("nan")], "example 2: has no label"),
        (["", "a"], "example 1: has no label"),
    ):
        with pytest.raises(QuickstudyError, match=line):
            read_labels(labels, 2)
