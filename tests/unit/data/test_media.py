"""Decoding: what every sort of file becomes, and why what is refused is refused."""

import io
import signal

import numpy as np
import pytest
import soundfile
from PIL import Image

from quickstudy.data import media
from quickstudy.data.media import decode_audio, decode_image, verify
from quickstudy.errors import QuickstudyError


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_has_two_axes(mode):
    array = decode_image(encoded(Image.new(mode, (7, 5), 1 if mode == "1" else (255 if mode == "L" else (255, 255)))))
    assert array.dtype == np.uint8
    assert array.shape == (5, 7)
    assert (array == 255).all()


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("RGB", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGB", "WEBP"),
        ("RGB", "BMP"),
        ("RGB", "TIFF"),
    ],
)
def test_colour_has_three_axes(mode, form):
    assert decode_image(encoded(Image.new(mode, (7, 5)), form)).shape == (5, 7, 3)


def test_sixteen_bits_become_eight():
    deep = np.array([[0, 257, 65535]], dtype=np.uint16)
    assert decode_image(encoded(Image.fromarray(deep))).tolist() == [[0, 1, 255]]
    assert decode_image(encoded(Image.fromarray(deep.astype(np.int32)), "TIFF")).tolist() == [[0, 1, 255]]


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    assert decode_image(encoded(image)).tolist() == [[[255, 255, 255], [10, 20, 30]]]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([200, 0, 0] * 256)
    assert decode_image(encoded(palette, transparency=0)).tolist() == [[[255, 255, 255]]]


def test_a_picture_stands_upright():
    image = Image.new("L", (3, 2))
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    array = decode_image(encoded(image, exif=exif))
    assert array.shape == (3, 2)
    assert array[0, 1] == 255


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    array = decode_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert array[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        (
            b"This is no picture.\n",
            "not an image but text; known formats are PNG, JPEG, BMP,",
        ),
        ("naïve café ".encode() * 60, "not an image but text;"),
        (b"PK\x03\x04rest", "not an image but a zip archive;"),
        (bytes(range(256)), "not an image but data of an unknown kind;"),
        (encoded(Image.new("1", (9000, 9000))), "9000 × 9000 pixels, more than the 64,000,000 allowed"),
        (encoded(Image.new("1", (20000, 20000))), "more than 64,000,000 pixels"),
        (encoded(Image.fromarray(np.array([[1e6]], dtype=np.int32)), "TIFF"), "32-bit pixels"),
        (encoded(Image.fromarray(np.array([[0.5]], dtype=np.float32)), "TIFF"), "floating-point pixels"),
        (encoded(Image.new("L", (4, 4)), "TGA"), "not an image but"),
    ],
)
def test_no_picture(data, reason):
    for read in (decode_image, lambda data: verify(data, "image")):
        with pytest.raises(QuickstudyError) as caught:
            read(data)
        assert str(caught.value).startswith(reason)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_half_a_picture_is_damaged(png, form):
    data = png(1, "RGB", (60, 60), form)
    for read in (decode_image, lambda data: verify(data, "image")):
        read(data)
        with pytest.raises(QuickstudyError, match="damaged"):
            read(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("form", "options"), [("WAV", {}), ("FLAC", {}), ("OGG", {}), ("MP3", {}), ("WAV", {"subtype": "FLOAT"})]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_recordings(wav, form, options, channels):
    samples = decode_audio(wav(1, 0.5, 16000, channels, form, **options), 8000)
    assert samples.dtype == np.float32
    assert abs(len(samples) - 4000) <= 2
    assert 0.1 < np.abs(samples).max() < 1.1


def test_both_channels_are_averaged():
    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([[0.5, 0.25]] * 10), 8000, format="WAV", subtype="FLOAT")
    assert decode_audio(buffer.getvalue(), 8000).tolist() == [0.375] * 10


@pytest.mark.parametrize("rate", [4000, 11025, 44100, 44101, 48000])
def test_resampling_keeps_the_pitch(rate):
    buffer = io.BytesIO()
    soundfile.write(buffer, np.sin(2 * np.pi * 500 * np.arange(rate) / rate), rate, format="WAV")
    samples = decode_audio(buffer.getvalue(), 8000)
    assert abs(len(samples) - 8000) <= 1
    assert np.abs(np.fft.rfft(samples)).argmax() == 500


def test_a_recording_of_one_sample():
    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([0.5]), 48000, format="WAV")
    assert len(decode_audio(buffer.getvalue(), 8000)) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"channels": 8}, "8 channels; at most 2 (mono or stereo) are read"),
        ({"seconds": 0}, "a recording of zero length"),
        ({"form": "VOC"}, "not a recording but data of an unknown kind; known formats are WAV, FLAC, OGG, MP3, AIFF"),
        ({"rate": 500}, "sample rate 500 Hz, outside 1,000 to 192,000"),
        ({"rate": 2_000_000, "seconds": 0.001}, "sample rate 2,000,000 Hz, outside 1,000 to 192,000"),
    ],
)
def test_no_recording_that_can_be_used(wav, options, reason):
    data = wav(**options)
    for read in (lambda data: decode_audio(data, 8000), lambda data: verify(data, "audio")):
        with pytest.raises(QuickstudyError) as caught:
            read(data)
        assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        (b"no sound\n", "not a recording but text; known formats are WAV, FLAC, OGG, MP3"),
        (b"fLaC" + b"\0" * 50, "not a recording but a damaged FLAC;"),
    ],
)
def test_no_recording_at_all(data, reason):
    with pytest.raises(QuickstudyError) as caught:
        decode_audio(data, 8000)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_are_finite_numbers(value):
    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([0, value, 0]), 8000, format="WAV", subtype="FLOAT")
    with pytest.raises(QuickstudyError, match="not finite numbers"):
        decode_audio(buffer.getvalue(), 8000)


def test_a_long_recording_is_not_read_to_its_end(wav, monkeypatch):
    monkeypatch.setattr(media, "MAX_SECONDS", 1.0)
    monkeypatch.setattr(media, "BLOCK", 1000)
    read = []
    original = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, *a, **k: read.append(1) or original(self, *a, **k))
    decode_audio(wav(seconds=1.0), 8000)
    read.clear()
    with pytest.raises(QuickstudyError, match="longer than the 1 seconds allowed"):
        decode_audio(wav(seconds=30.0), 8000)
    assert len(read) == 9


def test_ctrl_c_while_libsndfile_reads_is_not_lost(wav, monkeypatch):
    """Raised inside the callback that hands libsndfile its bytes, it would be printed and forgotten."""

    class Pressed(io.BytesIO):
        def readinto(self, buffer):
            signal.raise_signal(signal.SIGINT)
            return super().readinto(buffer)

        def read(self, *arguments):
            signal.raise_signal(signal.SIGINT)
            return super().read(*arguments)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(media.io, "BytesIO", Pressed)
    with pytest.raises(KeyboardInterrupt):
        decode_audio(wav(), 8000)
    assert signal.getsignal(signal.SIGINT) is before
