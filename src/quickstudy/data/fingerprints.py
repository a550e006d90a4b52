"""What makes two examples the same, or nearly so: a hash of the content, and a vector that survives re-encoding."""

import contextlib
import re
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from quickstudy.data.contents import digest, remember
from quickstudy.data.dataset import Dataset
from quickstudy.data.media import decode_image, read_audio
from quickstudy.errors import QuickstudyError
from quickstudy.system.atomic import draft
from quickstudy.system.workers import in_order, workers

VERSION = 2  # of what is kept below; older cached ones are not read
# How far apart two unit vectors may lie for the examples to count as nearly the same. Measured: JPEG at quality 75
# moves an Omniglot drawing by 0.02 (at most 0.07), doubling its size by 0.08; of 19,280 distinct drawings some 130 lie
# closer than this to another. OGG moves a recording by 0.06, gain or silence around it by 0; of 3,000 of FSDD none lie
# closer.
RADIUS = {"image": 0.12, "audio": 0.15}
_NEIGHBOURS = 5  # a bounded number, so that a thousand copies of a picture do not make a million pairs
_AXES = 10  # of the search tree; more make it slow, fewer make it compare more
_EDGES = np.geomspace(100, 3800, 17)  # Hz, of the bands of a recording's vector
_SEGMENTS = 16
_WORTH_WORKERS = 4000  # examples; starting the processes takes a second or two

Bad = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Fingerprints:
    """One for each row of a dataset."""

    digests: np.ndarray
    """uint64 [n]: a hash of the text or of the file's bytes."""
    plain: np.ndarray
    """uint64 [n]: hashes that agree where texts are nearly the same. Pictures and recordings: [0]."""
    vectors: np.ndarray
    """float32 [n, d]: unit vectors, zero where there is nothing to see or hear. Text: [n, 0]."""
    bad: Bad
    """Rows that are empty or cannot be decoded, and why."""


def fingerprints(
    dataset: Dataset, cache: Path | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Fingerprints:
    """Hash and decode every example.

    Args:
        dataset: at least one example.
        cache: a folder that keeps what was decoded, by content.
        progress: told (done, total).
    """
    digests = dataset.digests
    kept = None if cache is None else _kept(cache, dataset.modality, digests)
    if kept is not None and (known := _read_cache(kept)) is not None:
        return Fingerprints(digests, *known)
    plain, vectors, bad = (_read_all if dataset.modality == "text" else _decode_all)(dataset, progress)
    if kept is not None:
        _write_cache(kept, plain, vectors, bad)
    return Fingerprints(digests, plain, vectors, bad)


def joined(one: Fingerprints, other: Fingerprints) -> Fingerprints:
    """Those of the rows of one dataset and then those of another."""
    n = len(one.digests)
    return Fingerprints(
        np.concatenate([one.digests, other.digests]),
        np.concatenate([one.plain, other.plain]),
        np.concatenate([one.vectors, other.vectors]),
        (*one.bad, *((row + n, why) for row, why in other.bad)),
    )


def keep(prints: Fingerprints, dataset: Dataset, before: Fingerprints, cache: Path) -> None:
    """Remember the fingerprints of a dataset that grew, in the place of those that it had before."""
    assert dataset.stored is not None
    remember(prints.digests, dataset.stored)
    _write_cache(_kept(cache, dataset.modality, prints.digests), prints.plain, prints.vectors, prints.bad)
    if len(before.digests) < len(prints.digests):
        _kept(cache, dataset.modality, before.digests).unlink(missing_ok=True)


def _kept(cache: Path, modality: str, digests: np.ndarray) -> Path:
    """Where what was found in these examples is kept: by content, as the same one may lie in many a file."""
    key = blake2b(f"{VERSION} {modality} ".encode() + digests.tobytes(), digest_size=16).hexdigest()
    return cache / f"{key}.npz"


def _read_cache(path: Path) -> tuple[np.ndarray, np.ndarray, Bad] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["plain"], file["vectors"], tuple(zip(file["bad"].tolist(), file["why"].tolist(), strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or damaged: computed anew


def _write_cache(path: Path, plain: np.ndarray, vectors: np.ndarray, bad: Bad) -> None:
    rows, reasons = np.array([row for row, _ in bad], int), np.array([why for _, why in bad], str)
    with draft(path) as part, part.open("wb") as file:
        np.savez(file, plain=plain, vectors=vectors, bad=rows, why=reasons)


def plain(text: str) -> str:
    """A text without case, punctuation and spacing: texts that agree in this are nearly the same.

    A text of nothing but punctuation stays as it is.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"[^\W_]+", folded)) or text


def near_pairs(vectors: np.ndarray, among: np.ndarray, radius: float) -> np.ndarray:
    """Pairs of rows closer than ``radius``, each row with its few nearest.

    The tree works on the leading principal axes: distances there are never larger than in full, so that no pair is
    missed, and the pairs found are then measured in full. About n log n.

    Args:
        vectors: float32 [n, d].
        among: int64 [m], the rows to look among.
        radius: in the units of the vectors.

    Returns:
        int64 [pairs, 2], the smaller row first, each pair once.
    """
    if len(among) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    points = vectors[among]
    centred = points - points.mean(axis=0)
    sample = centred[:: max(1, len(centred) // 2000)]
    axes = np.linalg.svd(sample, full_matrices=False)[2][:_AXES]
    low = centred @ axes.T
    _, near = cKDTree(low).query(low, k=min(_NEIGHBOURS, len(among)), distance_upper_bound=radius)
    one, place = np.nonzero(near < len(among))
    other = near[one, place]
    close = (one != other) & (np.linalg.norm(points[one] - points[other], axis=1) <= radius)
    pairs = np.sort(np.stack([among[one[close]], among[other[close]]], axis=1), axis=1)
    return np.unique(pairs, axis=0)


def _read_all(dataset: Dataset, progress: Callable[[int, int], None]) -> tuple[np.ndarray, np.ndarray, Bad]:
    """Texts need no decoding: they are empty or not."""
    digests, bad, done = np.zeros(len(dataset), dtype=np.uint64), [], 0
    for texts in dataset.batches():
        for row, text in enumerate(texts, done):
            digests[row] = digest(plain(text or ""))
            if text is None or not text.strip():
                bad.append((row, "empty"))
        done += len(texts)
        progress(done, len(dataset))
    return digests, np.zeros((len(dataset), 0), np.float32), tuple(bad)


def _decode_all(dataset: Dataset, progress: Callable[[int, int], None]) -> tuple[np.ndarray, np.ndarray, Bad]:
    vector_of = image_vector if dataset.modality == "image" else audio_vector
    width = 64 if dataset.modality == "image" else _SEGMENTS * (len(_EDGES) - 1)
    vectors = np.zeros((len(dataset), width), dtype=np.float32)
    bad = []
    decode, chunks = partial(_vectors, vector_of), dataset.batches()
    with workers() if len(dataset) > _WORTH_WORKERS else contextlib.nullcontext() as pool:
        done = 0
        for found in map(decode, chunks) if pool is None else in_order(pool, decode, chunks):
            for i, vector in enumerate(found, done):
                if isinstance(vector, str):
                    bad.append((i, vector))
                else:
                    vectors[i] = vector
            done += len(found)
            progress(done, len(dataset))
    return np.zeros(0, np.uint64), vectors, tuple(bad)


def _vectors(vector_of: Callable[[bytes], np.ndarray], contents: Sequence[bytes | None]) -> list[np.ndarray | str]:
    """Of each example its vector, or what is wrong with it."""
    found: list[np.ndarray | str] = []
    for content in contents:
        try:
            found.append(vector_of(content or b""))
        except QuickstudyError as error:
            found.append(str(error))
    return found


def image_vector(data: bytes) -> np.ndarray:
    """float32 [64]: what dHash takes the signs of (https://www.hackerfactor.com/blog/?/archives/529-Kind-of-Like-That.html).

    The picture in 9 × 8 grey cells, each less its left neighbour. Kept as numbers: in a drawing on white most
    neighbours are equal, and a sign would hang on the noise of the encoding.
    """
    grey = Image.fromarray(decode_image(data)).convert("L").resize((9, 8), Image.Resampling.BOX)
    return _unit(np.diff(np.asarray(grey, dtype=np.float32), axis=1), least=1.0)


def audio_vector(data: bytes) -> np.ndarray:
    """float32 [256]: log power in 16 bands at 16 moments between the first and the last loud sample, less its mean."""
    samples, rate = read_audio(data)
    loud = np.flatnonzero(np.abs(samples) > 0.05 * np.abs(samples).max())
    if not len(loud):
        return np.zeros(_SEGMENTS * (len(_EDGES) - 1), dtype=np.float32)
    samples = samples[loud[0] : loud[-1] + 1]
    # A moment is a sixteenth of the recording, but no more than a quarter of a second: long ones are sampled.
    length = min(max(len(samples) // _SEGMENTS, rate // 60), rate // 4)
    samples = np.pad(samples, (0, max(0, length - len(samples))))
    starts = np.linspace(0, len(samples) - length, _SEGMENTS).astype(int)
    frames = samples[starts[:, None] + np.arange(length)] * np.hanning(length).astype(np.float32)
    size = max(512, 1 << (length - 1).bit_length())
    power = np.abs(np.fft.rfft(frames, size)) ** 2  # [16, size / 2 + 1]
    total = np.pad(power.cumsum(axis=1), ((0, 0), (1, 0)))
    edges = np.searchsorted(np.fft.rfftfreq(size, 1 / rate), _EDGES)
    bands = total[:, edges[1:]] - total[:, edges[:-1]]
    level = np.log(bands + 1e-4 * bands.max() + 1e-12)
    return _unit(level - level.mean(), least=1e-3)


def _unit(values: np.ndarray, least: float) -> np.ndarray:
    norm = float(np.linalg.norm(values))
    return (values / norm if norm > least else np.zeros_like(values)).ravel().astype(np.float32)
