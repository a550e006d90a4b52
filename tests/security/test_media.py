"""A file is asked what it is before anything is made of it (finding 22), and what it costs before it is decoded."""

import io
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from quickstudy.data import media
from quickstudy.data.media import decode_audio, decode_image, extent, verify
from quickstudy.errors import QuickstudyError

ORIGINAL = soundfile.SoundFile
NOT_READ = ("PAF", "SVX", "NIST", "VOC", "IRCAM", "MAT4", "MAT5", "PVF", "XI", "HTK", "SDS")


def sound(form: str, subtype: str | None = None, channels: int = 1, seconds: float = 0.5, rate: int = 8000) -> bytes:
    tone = np.sin(np.arange(int(seconds * rate)) / 5)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.repeat(tone[:, None], channels, 1), rate, format=form, subtype=subtype)
    return buffer.getvalue()


def id3(data: bytes, size: int = 300) -> bytes:
    return (
        b"ID3\x04\x00\x00" + bytes((size >> 21, size >> 14 & 0x7F, size >> 7 & 0x7F, size & 0x7F)) + bytes(size) + data
    )


@pytest.fixture
def no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """libsndfile is not to be reached."""

    def reached(*arguments: object, **options: object) -> None:
        raise AssertionError("a header was parsed before the format was asked")

    monkeypatch.setattr(soundfile, "SoundFile", reached)


@pytest.fixture
def other(form: str) -> bytes:
    """A sound of another format."""
    return sound(form, "DPCM_16" if form == "XI" else "PCM_16")


@pytest.mark.parametrize("form", NOT_READ)
def test_a_format_that_is_not_read_is_not_begun(other: bytes, no_parser: None) -> None:
    for data in (other, id3(other), id3(id3(other))):
        for read in (lambda data: decode_audio(data, 8000), lambda data: verify(data, "audio")):
            with pytest.raises(QuickstudyError, match="known formats are WAV, FLAC, OGG, MP3"):
                read(data)
        with pytest.raises(QuickstudyError, match="known formats are WAV, FLAC, OGG, MP3"):
            extent(data, "audio")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"R",
        b"ID3",
        b"ID3\x04\x00\x00\xff\xff\xff\xff",
        b"RIFF\0\0\0\0AVI ",
        b"RIFF\0\0\0\0WEBP",
        b"\xff",
        b"\xff\xd8\xff\xe0",
    ],
)
def test_what_only_begins_alike_is_not_begun(data: bytes, no_parser: None) -> None:
    with pytest.raises(QuickstudyError):
        decode_audio(data, 8000)


@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        ("WAV", None),
        ("WAV", "FLOAT"),
        ("WAV", "ULAW"),
        ("WAVEX", None),
        ("RF64", None),
        ("FLAC", None),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", None),
    ],
)
def test_what_is_read_is_still_read(form: str, subtype: str | None) -> None:
    data = sound(form, subtype)
    assert len(decode_audio(data, 8000)) >= 3500
    said = extent(data, "audio")
    assert said is not None and said.samples >= 3500 and said.seconds == pytest.approx(0.5, rel=0.5)
    if form in ("MP3", "FLAC"):
        assert len(decode_audio(id3(data), 8000)) >= 3500


@pytest.mark.parametrize(
    ("options", "words"), [({"channels": 8}, "8 channels"), ({"rate": 400_000}, "sample rate 400,000 Hz")]
)
def test_a_header_beyond_what_is_read_is_refused_before_a_sample_is(
    options: dict[str, int], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sound("WAV", **options)  # type: ignore[arg-type]

    def read(*arguments: object, **more: object) -> None:
        raise AssertionError("samples were decoded")

    monkeypatch.setattr(ORIGINAL, "read", read)
    for look in (lambda: decode_audio(data, 8000), lambda: extent(data, "audio")):
        with pytest.raises(QuickstudyError, match=words):
            look()


@pytest.mark.parametrize("form", ["ICO", "PCX", "TGA", "DDS", "SGI"])
def test_an_image_of_another_format_is_not_begun(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, form)
    plugin = type(Image.open(io.BytesIO(buffer.getvalue())))

    def reached(*arguments: object) -> None:
        raise AssertionError("another format was begun")

    monkeypatch.setattr(plugin, "_open", reached)
    assert extent(buffer.getvalue(), "image") is None
    with pytest.raises(QuickstudyError, match="known formats are PNG"):
        decode_image(buffer.getvalue())


def scans(count: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "white").save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


def test_scans_of_a_jpeg_are_counted_before_it_is_decoded() -> None:
    few, many = scans(2), scans(media.MAX_SCANS)
    said = extent(few, "image")
    assert said is not None and said.pixels == 64 * 64 and 5 < said.passes < 20
    assert decode_image(few).shape == (64, 64, 3)
    for look in (lambda: extent(many, "image"), lambda: decode_image(many), lambda: verify(many, "image")):
        with pytest.raises(QuickstudyError, match="scans, more than the 100 allowed"):
            look()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
def test_pixels_are_told_by_the_header(form: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, form)
    said = extent(buffer.getvalue(), "image")
    assert said is not None and (said.format, said.pixels) == (form, 1200)


EXTENDED = {"quality": 50, "exif": b"Exif\0\0MM\0*\0\0\0\x08"}


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 50}, EXTENDED])
@pytest.mark.parametrize("size", [(17, 301), (1, 1), (2000, 3)])
def test_the_size_of_a_webp_is_known_without_opening_it(
    options: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "WEBP", **options)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    said = extent(buffer.getvalue(), "image")
    assert said is not None and said.pixels == size[0] * size[1] and said.format == "WEBP"
