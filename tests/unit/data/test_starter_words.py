from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest

from quickstudy.config import Splits
from quickstudy.data.dataset import DatasetInfo
from quickstudy.data.media import decode_audio
from quickstudy.starter import words
from quickstudy.tasks.splits import domain_is_held_out

NUMBERS = (
    "zero oh nought one two three four five six seven eight nine ten eleven twelve twenty thirty hundred "
    "won to too for ate"
)


@pytest.fixture(scope="module")
def part() -> tuple[DatasetInfo, pa.Table]:
    return words.build(limit=4)


def test_enough_words_and_none_for_a_number() -> None:
    assert len(set(words.WORDS)) == len(words.WORDS) >= 300
    assert not set(NUMBERS.split()) & set(words.WORDS)


def test_voices_differ_by_more_than_their_accent() -> None:
    assert len(set(words.VOICES)) == len(words.VOICES) >= 24
    assert len({voice.split("+")[1] for voice in words.VOICES}) == len(words.VOICES)


def test_enough_voices_on_both_sides_of_the_split_that_ships() -> None:
    info = DatasetInfo(name="words", modality="audio", domain="voice")
    splits = Splits(key="quickstudy", validation=0.10, test=0.25)
    held_out = sum(domain_is_held_out(info, voice, splits) for voice in words.VOICES)
    assert held_out >= 16
    assert len(words.VOICES) - held_out >= 20


def test_every_word_once_by_every_voice(part: tuple[DatasetInfo, pa.Table]) -> None:
    info, table = part
    spoken = defaultdict(list)
    for row in table.select(["label", "group", "domain"]).to_pylist():
        assert row["group"] == row["label"]
        spoken[row["label"]].append(row["domain"])
    assert info.domain == "voice"
    assert list(spoken) == words.WORDS[:4]
    assert all(sorted(voices) == sorted(words.VOICES) for voices in spoken.values())


def test_recordings_are_short_loud_enough_and_all_differ(part: tuple[DatasetInfo, pa.Table]) -> None:
    files = [cell["bytes"] for cell in part[1].column("audio").to_pylist()]
    assert len(set(files)) == len(files)
    assert {file[:4] for file in files} == {b"fLaC"}
    for file in files:
        samples = decode_audio(file, words.SAMPLE_RATE)
        assert 0.12 <= len(samples) / words.SAMPLE_RATE <= words.LONGEST
        assert np.abs(samples).max() >= 0.05
        assert (samples**2).mean() > 1e-6


def test_a_word_sounds_more_like_itself_than_like_another(part: tuple[DatasetInfo, pa.Table]) -> None:
    """By the nearest mean spectrum over eight stretches of time: far from recognition, and far above chance (0.25)."""
    table = part[1]
    sounds = np.array([_print(cell["bytes"]) for cell in table.column("audio").to_pylist()])
    labels = np.array(table.column("label").to_pylist())
    learn = np.arange(len(labels)) % 2 == 0
    names = sorted(set(labels))
    means = np.array([sounds[learn & (labels == name)].mean(0) for name in names])
    nearest = ((sounds[~learn, None] - means) ** 2).sum(2).argmin(1)
    assert (np.array(names)[nearest] == labels[~learn]).mean() > 0.6


def _print(file: bytes) -> np.ndarray:
    pieces = np.array_split(decode_audio(file, 8000), 8)
    power = np.array([[band.mean() for band in np.array_split(np.abs(np.fft.rfft(p, 512)) ** 2, 20)] for p in pieces])
    decibels = 10 * np.log10(power + 1e-9)
    return (decibels - decibels.mean()).ravel()
