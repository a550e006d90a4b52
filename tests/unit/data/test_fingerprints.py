"""What counts as the same, and as nearly the same."""

import io

import numpy as np
import pytest
import soundfile
from PIL import Image, ImageDraw

from quickstudy.data.dataset import Dataset, DatasetInfo, make_table
from quickstudy.data.fingerprints import RADIUS, audio_vector, fingerprints, image_vector, near_pairs, plain
from quickstudy.data.media import decode_audio


def drawing(number: int, size: int = 96) -> Image.Image:
    """A few strokes, dark on white."""
    random = np.random.default_rng(number)
    image = Image.new("L", (96, 96), 255)
    points = [tuple(point) for point in random.uniform(8, 88, (7, 2))]
    ImageDraw.Draw(image).line(points, fill=0, width=4)
    return image.resize((size, size), Image.Resampling.BOX)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other))


def test_a_picture_saved_anew_is_nearly_the_same():
    for number in range(20):
        vector = image_vector(encoded(drawing(number)))
        assert distance(vector, image_vector(encoded(drawing(number), "JPEG", quality=75))) < RADIUS["image"]
        assert distance(vector, image_vector(encoded(drawing(number, 192)))) < RADIUS["image"]
        dimmed = drawing(number).point(lambda value: int(value * 0.7 + 20))
        assert distance(vector, image_vector(encoded(dimmed.convert("RGB"), "BMP"))) < RADIUS["image"]


def test_other_pictures_are_not():
    vectors = np.stack([image_vector(encoded(drawing(number))) for number in range(60)])
    assert len(near_pairs(vectors, np.arange(60), RADIUS["image"])) == 0


def test_a_recording_saved_anew_is_nearly_the_same(wav):
    for number in range(10):
        data = wav(number, 0.5, 16000)
        vector = audio_vector(data)
        samples = decode_audio(data, 16000)
        for changed in (samples * 0.3, np.pad(samples, (900, 1700))):
            buffer = io.BytesIO()
            soundfile.write(buffer, changed, 16000, format="FLAC")
            assert distance(vector, audio_vector(buffer.getvalue())) < RADIUS["audio"]


def test_other_recordings_are_not(wav):
    vectors = np.stack([audio_vector(wav(number, 0.5)) for number in range(60)])
    assert len(near_pairs(vectors, np.arange(60), RADIUS["audio"])) == 0


def test_blank_pictures_and_silence_have_no_direction(wav):
    assert not image_vector(encoded(Image.new("L", (50, 50), 200))).any()
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(1000), 8000, format="WAV")
    assert not audio_vector(buffer.getvalue()).any()


@pytest.mark.parametrize(
    ("one", "other"),
    [("Book a  table!", "book a table"), ("to-do list", "to do list"), ("\uff21 b", "a b"), ("Straße", "STRASSE")],
)
def test_plain_texts(one, other):
    assert plain(one) == plain(other)


@pytest.mark.parametrize(("one", "other"), [("?!", "..."), ("version 1", "version 2"), ("ab", "a b")])
def test_texts_that_differ(one, other):
    assert plain(one) != plain(other)


def test_near_pairs_agree_with_comparing_all_with_all():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(300, 64)).astype(np.float32)
    vectors[100:150] = vectors[:50] + random.normal(scale=0.02, size=(50, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    among = np.arange(0, 300)
    full = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    expected = [(i, j) for i in range(300) for j in range(i + 1, 300) if full[i, j] <= 0.1]
    assert near_pairs(vectors, among, 0.1).tolist() == [list(pair) for pair in expected]
    assert len(expected) >= 45
    some = np.array([3, 7, 103, 200])
    assert near_pairs(vectors, some, 0.1).tolist() == [[3, 103]]


def test_a_thousand_copies_make_no_million_pairs():
    vectors = np.zeros((1000, 64), dtype=np.float32)
    vectors[:, 0] = 1
    pairs = near_pairs(vectors, np.arange(1000), 0.1)
    assert 500 <= len(pairs) <= 5000


def test_the_cache_says_the_same_and_a_damaged_one_is_ignored(tmp_path, png):
    contents = [png(1), b"no picture", png(2)]
    table = make_table("image", contents, ["a", "b", "b"], ["g"] * 3)
    dataset = Dataset(DatasetInfo(name="mine", modality="image"), table)
    told: list[tuple[int, int]] = []

    def prints():
        told.clear()
        return fingerprints(dataset, tmp_path / "cache", lambda done, total: told.append((done, total)))

    first = prints()
    assert told == [(3, 3)]
    assert first.bad == ((1, "not an image but text; known formats are PNG, JPEG, BMP, GIF, WEBP, TIFF, PPM, AVIF"),)
    second = prints()
    assert told == []
    assert second.bad == first.bad
    assert np.array_equal(second.vectors, first.vectors)
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    third = prints()
    assert told == [(3, 3)]
    assert np.array_equal(third.vectors, first.vectors)
