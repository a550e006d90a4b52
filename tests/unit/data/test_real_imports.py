"""Research sets in their publishers' own layouts, where copies of them lie beside the repository."""

import os
from collections import Counter
from pathlib import Path

import pytest

from quickstudy.config import load_settings
from quickstudy.data.dataset import Dataset
from quickstudy.data.media import decode_audio, decode_image
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.checks import check_datasets
from quickstudy.ingest.importers.options import ImportOptions
from quickstudy.ingest.importers.source import import_source
from quickstudy.tasks.splits import meta_split

REPOSITORY = Path(__file__).parents[3]
DATASETS = Path(os.environ.get("QUICKSTUDY_DATASETS", REPOSITORY.parent / "shared/datasets"))
SETTINGS = load_settings(REPOSITORY / "params.yaml")


def load(path: str, name: str, **options) -> Dataset:
    source = DATASETS / path
    if not source.exists():
        pytest.skip(f"no copy of {path} in {DATASETS} (QUICKSTUDY_DATASETS names another place)")
    return Dataset(*import_source(source, name, ImportOptions(**options)))


def split_of(info, group):
    return meta_split(info, group, SETTINGS.splits)


@pytest.fixture(scope="module")
def clinc150() -> Dataset:
    groups = str(DATASETS / "clinc150/domains.json")
    return load("clinc150/data_full.json", "clinc150", group=groups, exclude=["oos"])


@pytest.fixture(scope="module")
def hwu64() -> Dataset:
    return load("hwu64", "hwu64")


def test_omniglot():
    dataset = load("omniglot/images_background.zip", "omniglot")
    assert (dataset.modality, len(dataset), len(dataset.classes)) == ("image", 19280, 964)
    assert len(set(dataset.column("group"))) == 30
    assert set(Counter(dataset.column("label")).values()) == {20}
    assert all(
        label.startswith(f"{g}/") for label, g in zip(dataset.column("label"), dataset.column("group"), strict=True)
    )
    assert decode_image(dataset.raw([0])[0]).shape == (105, 105)


def test_clinc150(clinc150):
    assert (clinc150.modality, len(clinc150), len(clinc150.classes)) == ("text", 22500, 150)
    assert len(set(clinc150.column("group"))) == 10
    assert set(Counter(clinc150.column("label")).values()) == {150}
    with pytest.raises(QuickstudyError, match="1 classes are in no group: 'oos'"):
        load("clinc150/data_full.json", "clinc150", group=str(DATASETS / "clinc150/domains.json"))


def test_fsdd():
    dataset = load("fsdd/recordings.zip", "fsdd", pattern="{class}_{speaker}_{}", domain="speaker", split="test")
    assert (dataset.modality, len(dataset)) == ("audio", 3000)
    assert dataset.classes == list("0123456789")
    assert set(Counter(dataset.column("domain")).values()) == {500}
    assert dataset.info.domain == "speaker"
    assert 0.1 < len(decode_audio(dataset.raw([0])[0], 8000)) / 8000 < 3


def test_arabic_speech_commands():
    dataset = load("arabic_speech_commands/clips.zip", "arabic", pattern="{class}/{speaker:8}{}", domain="speaker")
    assert (dataset.modality, len(dataset), len(dataset.classes)) == ("audio", 1120, 28)
    assert all(len(speaker) == 8 and speaker.isdecimal() for speaker in dataset.column("domain"))


@pytest.mark.parametrize(("name", "rows", "classes"), [("hwu64", 11106, 64), ("snips", 14484, 7), ("sst2", 9613, 2)])
def test_folders_of_csv(name, rows, classes):
    dataset = load(name, name)
    assert (dataset.modality, len(dataset), len(dataset.classes)) == ("text", rows, classes)
    assert len(set(dataset.column("group"))) == (classes if classes >= 10 else 1)


def test_fewrel():
    dataset = load("fewrel/val_wiki.json", "fewrel")
    assert (len(dataset), len(dataset.classes)) == (16 * 700, 16)


def test_the_utterances_that_two_sets_share(clinc150, hwu64):
    """The two share some hundred utterances: harmless on one side, fatal on two."""

    def pinned(dataset: Dataset, split: str) -> Dataset:
        return Dataset(dataset.info.model_copy(update={"meta_split": split}), dataset.table)

    def leaks(one: Dataset, other: Dataset) -> list[tuple[str, int]]:
        findings = check_datasets([one, other], SETTINGS, split_of)
        return [(f.severity, f.count) for f in findings if f.kind == "leak" and "share" in f.what]

    apart = leaks(pinned(clinc150, "test"), pinned(hwu64, "train"))
    assert apart[0] == ("fatal", 108)
    assert all(severity == "warning" for severity, _ in apart[1:])
    assert leaks(pinned(clinc150, "test"), pinned(hwu64, "test")) == []
    assert leaks(clinc150, hwu64)[0][0] == "fatal"
