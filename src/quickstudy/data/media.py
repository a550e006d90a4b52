"""Files of images and recordings as arrays, and nothing that a hostile file can make of it.

Pixels, seconds and channels are bounded before memory is asked for; every error says why in one line.
"""

import io
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import soundfile
from PIL import Image, ImageOps
from scipy.signal import resample_poly

from quickstudy.errors import QuickstudyError

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
IMAGE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".avif"}
)
AUDIO_FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64")
AUDIO_SUFFIXES = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64"}
)
_KNOWN_AUDIO = "WAV, FLAC, OGG, MP3, AIFF"
MAX_PIXELS = 64_000_000  # the largest telephone cameras; 192 MB as RGB
MAX_SECONDS = 600.0
MAX_CHANNELS = 2
SAMPLE_RATES = (1_000, 192_000)
BLOCK = 1 << 16  # frames read at once: headers lie about the length
MAX_SCANS = 100  # of a JPEG, each of which passes over all pixels; cameras and programs write up to about ten


@dataclass(frozen=True)
class Extent:
    """How much a file says that it holds, by its header alone."""

    format: str
    pixels: int = 0
    passes: int = 1
    """over the pixels, to decode them"""
    samples: int = 0
    """of all channels"""
    seconds: float = 0.0


def extent(data: bytes, modality: str) -> Extent | None:
    """Return how much a file of images or recordings says that it holds; None where it is none that is read, or no
    header can be made out: the decoders tell why.

    Raises:
        QuickstudyError: beyond what is decoded at all.
    """
    if modality == "image":
        return _image_extent(data)
    try:
        file = _open_audio(data)
    except soundfile.LibsndfileError:
        return None
    with file:
        frames = min(file.frames, int(MAX_SECONDS * file.samplerate) + 1)  # of a stream it is not known
        return Extent(file.format, samples=frames * file.channels, seconds=file.frames / file.samplerate)


def _image_extent(data: bytes) -> Extent | None:
    if (size := _webp_size(data)) is not None:
        return Extent("WEBP", size[0] * size[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
        except Image.DecompressionBombError:
            return Extent("", pixels=2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS))
        except Exception:
            return None
    passes = _scans(data) if image.format in ("JPEG", "MPO") else 1
    return Extent(image.format or "", image.width * image.height, passes)


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP, from its first chunk (RFC 9649); None where it is none. To open one makes its canvas,
    64 MB for a file of 676 bytes, while nothing else can run: 64 of them in a request held up others for a second."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind, said = data[12:16], data[20:30]
    if kind == b"VP8X":
        return 1 + int.from_bytes(said[4:7], "little"), 1 + int.from_bytes(said[7:10], "little")
    if kind == b"VP8L" and said[0] == 0x2F:
        both = int.from_bytes(said[1:5], "little")
        return 1 + (both & 0x3FFF), 1 + (both >> 14 & 0x3FFF)
    if kind == b"VP8 " and said[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(said[6:8], "little") & 0x3FFF, int.from_bytes(said[8:10], "little") & 0x3FFF
    return None


def _scans(data: bytes) -> int:
    """Return the scans of a JPEG.

    Raises:
        QuickstudyError: so many that each is there for its cost alone.
    """
    scans = data.count(b"\xff\xda")  # within a scan 0xFF is written as 0xFF 0x00
    if scans > MAX_SCANS:
        raise QuickstudyError(f"a JPEG of {scans} scans, more than the {MAX_SCANS} allowed")
    return max(1, scans)


def decode_image(data: bytes) -> np.ndarray:
    """The pixels of an image file, upright, transparency laid on white.

    Animated files give their first frame. 16-bit grey is scaled to 8 bits.

    Returns:
        uint8 [H, W] for grey and black-and-white files, uint8 [H, W, 3] for all others.

    Raises:
        QuickstudyError: no image, of another format than ``IMAGE_FORMATS``, damaged, or beyond ``MAX_PIXELS``.
    """
    with _reading(data, "image"):
        return np.array(_upright(_to_8_bit(_open_image(data))))


def decode_audio(data: bytes, sample_rate: int) -> np.ndarray:
    """The samples of a recording, both channels averaged, resampled to ``sample_rate`` Hz.

    Returns:
        float32 [samples], at least one.

    Raises:
        QuickstudyError: no recording, of another format than ``AUDIO_FORMATS``, damaged, of zero length, with more
            than ``MAX_CHANNELS`` channels or ``MAX_SECONDS`` seconds, or holding values that are no numbers.
    """
    samples, own_rate = read_audio(data)
    if own_rate == sample_rate:
        return samples
    # Odd rates are approximated (to better than 1 in 10^6): the filter grows with the larger of the two numbers.
    ratio = Fraction(sample_rate, own_rate).limit_denominator(1000)
    return resample_poly(samples, ratio.numerator, ratio.denominator).astype(np.float32)


def verify(data: bytes, modality: str) -> None:
    """Read a file to its end, at the least cost that still finds damage; raises what the decoders raise."""
    if modality == "audio":
        read_audio(data)
        return
    with _reading(data, "image"):
        image = _open_image(data)
        image.draft("L", (1, 1))  # JPEG: read all the data, compute an eighth of the pixels a side
        _to_8_bit(image)


@contextmanager
def _reading(data: bytes, what: str) -> Iterator[None]:
    """Turn whatever a decoder raises on bad bytes into one line."""
    if not data:
        raise QuickstudyError("is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on damaged metadata, where the content itself is fine
            yield
    except (QuickstudyError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise QuickstudyError(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        raise QuickstudyError(f"damaged {what} ({_reason(error)})") from None


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Hold Ctrl-C back for the moment.

    libsndfile calls Python for its bytes. An exception there is printed and forgotten, and the recording cut short.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:120] or type(error).__name__


def _open_image(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
    except Image.UnidentifiedImageError:
        known = ", ".join(IMAGE_FORMATS)
        raise QuickstudyError(f"not an image but {_nature(data)}; known formats are {known}") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise QuickstudyError(f"{width} × {height} pixels, more than the {MAX_PIXELS:,} allowed")
    if image.format in ("JPEG", "MPO"):
        _scans(data)
    return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Load the pixels, as mode L or RGB."""
    image.load()
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise QuickstudyError("32-bit pixels; save the image with 8 or 16 bits a channel")
        grey = Image.fromarray((values // 257).astype(np.uint8))
        if exif := image.info.get("exif"):
            grey.info["exif"] = exif
        return grey
    if image.mode == "F":
        raise QuickstudyError("floating-point pixels; save the image with 8 or 16 bits a channel")
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if not image.has_transparency_data:
        return image if image.mode == mode else image.convert(mode)
    layered = image.convert("RGBA")
    flat = Image.new("RGB", image.size, "white")
    flat.paste(layered, mask=layered.getchannel("A"))
    flat.info = layered.info
    return flat.convert(mode)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata beside sound pixels
        return image


def read_audio(data: bytes) -> tuple[np.ndarray, int]:
    """float32 [samples], both channels averaged, and the file's own sample rate; raises as `decode_audio`."""
    with _reading(data, "recording"), _ctrl_c_later():
        try:
            file = _open_audio(data)
        except soundfile.LibsndfileError:
            raise _no_recording(data) from None
        with file:
            rate = file.samplerate
            blocks: list[np.ndarray] = []
            left = int(MAX_SECONDS * rate)
            while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                left -= len(block)
                if left < 0:
                    raise QuickstudyError(f"longer than the {MAX_SECONDS:.0f} seconds allowed")
                blocks.append(block.mean(axis=1) if block.shape[1] > 1 else block[:, 0])
    if not blocks:
        raise QuickstudyError("a recording of zero length")
    samples = np.concatenate(blocks)
    if not np.isfinite(samples).all():
        raise QuickstudyError("holds samples that are not finite numbers (NaN or infinite)")
    return samples, rate


def _open_audio(data: bytes) -> soundfile.SoundFile:
    """Open a recording, whose format and header allow it to be read.

    libsndfile tries two dozen formats on whatever it is given. Those that are not read here are never begun: the first
    bytes are asked before.

    Raises:
        QuickstudyError: another format, or more channels or another sample rate than are read.
        LibsndfileError: damaged.
    """
    if not _sounds_like_audio(data):
        if (name := _OTHER_SOUNDS.get(data[:4])) is not None:
            raise QuickstudyError(f"of format {name}; known formats are {_KNOWN_AUDIO}")
        raise _no_recording(data)
    file = soundfile.SoundFile(io.BytesIO(data))
    try:
        if file.format not in AUDIO_FORMATS:
            raise QuickstudyError(f"of format {file.format}; known formats are {_KNOWN_AUDIO}")
        if file.channels > MAX_CHANNELS:
            raise QuickstudyError(f"{file.channels} channels; at most {MAX_CHANNELS} (mono or stereo) are read")
        if not SAMPLE_RATES[0] <= file.samplerate <= SAMPLE_RATES[1]:
            low, high = SAMPLE_RATES
            raise QuickstudyError(f"sample rate {file.samplerate:,} Hz, outside {low:,} to {high:,}")
    except QuickstudyError:
        file.close()
        raise
    return file


_OTHER_SOUNDS = {b"FORM": "AIFF", b".snd": "AU", b"caff": "CAF", b"riff": "W64"}


def _no_recording(data: bytes) -> QuickstudyError:
    return QuickstudyError(f"not a recording but {_nature(data)}; known formats are {_KNOWN_AUDIO}")


def _sounds_like_audio(data: bytes) -> bool:
    """Whether a file begins as one of `AUDIO_FORMATS` does, behind ID3 tags where there are such."""
    begin = 0
    while data[begin : begin + 3] == b"ID3":  # libsndfile skips them too, and then tries all formats
        size = data[begin + 6 : begin + 10]
        if len(size) < 4 or any(byte > 0x7F for byte in size):
            return False
        begin += 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])
    head = data[begin : begin + 12]
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return head[8:12] == b"WAVE"
    if head[:4] == b"FORM":
        return head[8:12] in (b"AIFF", b"AIFC")
    if head[:4] in (b"fLaC", b"OggS", b".snd", b"caff") or head[:8] == b"riff\x2e\x91\xcf\x11":  # the last is W64
        return True
    # MPEG audio: 11 bits of 1, a version and a layer that there are
    return len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 != 0 and head[1] & 0x18 != 8


def _nature(data: bytes) -> str:
    """What a file that cannot be read seems to be, for the message."""
    head = data[:512]
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A cut through the last character of the head is no reason against text.
        text = head[: error.start].decode("utf-8") if error.start >= len(head) - 3 and len(data) > len(head) else "\0"
    printable = sum(character.isprintable() or character in "\r\n\t" for character in text)
    return "text" if text and printable == len(text) else "data of an unknown kind"


_MAGIC = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a damaged PNG"),
    (b"\xff\xd8\xff", "a damaged JPEG"),
    (b"GIF8", "a damaged GIF"),
    (b"RIFF", "a RIFF file (WAV, WebP or AVI)"),
    (b"fLaC", "a damaged FLAC"),
    (b"OggS", "a damaged or unknown OGG"),
    (b"ID3", "a damaged MP3"),
)
