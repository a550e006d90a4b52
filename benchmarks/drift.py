"""Drift on people's data: is nothing found where nothing drifts, and what is found where something does?

    .venv/bin/python benchmarks/drift.py [--datasets ../shared/datasets] [--model models:/quickstudy@champion]

First, halves of a dataset against each other, twenty times, the second half as it is or changed a little: whole
alphabets, speakers and domains apart, or new examples of the same classes. The model embeds, and has learned from none
of it. Then the verb itself: each dataset against what the model remembers. Prints two tables and writes
benchmarks/results/drift.json.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image, ImageFilter

from quickstudy.config import Drift, load_settings
from quickstudy.data.dataset import Dataset, make_table
from quickstudy.drift.reference import embed, units_of
from quickstudy.encoders.features import features
from quickstudy.ingest.importers.options import ImportOptions
from quickstudy.ingest.importers.source import import_source
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import load_model
from quickstudy.registry import resolve
from quickstudy.stats.two_sample import Sample, measure
from quickstudy.system.environment import find_project

SPLITS = 20
POOL = 1200
"""examples of a dataset that are embedded"""

Change = Callable[[Any, np.random.Generator], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=Path, default=Path("../shared/datasets"))
    parser.add_argument("--model", default="models:/quickstudy@champion")
    arguments = parser.parse_args()
    policy = load_settings().drift
    model = load_model(resolve(arguments.model, find_project(Path.cwd())), "classify")
    rows = halves(model, arguments.datasets, policy)
    remembered = verbs(arguments.datasets, arguments.model)
    result = {"policy": policy.model_dump(mode="json"), "splits": SPLITS, "halves": rows, "remembered": remembered}
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "drift.json").write_text(json.dumps(result, indent=1) + "\n")


# Halves


def halves(model: MetaModel, folder: Path, policy: Drift) -> list[dict[str, Any]]:
    omniglot = pool(read(folder / "omniglot/images_background.zip"), classes=240)
    arabic = pool(with_speakers(read(folder / "arabic_speech_commands/clips.zip")))
    spoken = {"pattern": "{class}_{speaker}_{}", "domain": "speaker"}
    fsdd = pool(read(folder / "fsdd/recordings.zip", **spoken))
    clinc = pool(read(folder / "clinc150/data_full.json", group=str(folder / "clinc150/domains.json"), exclude=["oos"]))
    snips = pool(read(folder / "snips/train.csv"), 600)
    rows: list[dict[str, Any]] = []
    vectors: dict[tuple[str, str], np.ndarray] = {}
    say("| halves of | apart by | the new half | drift found | p ≤ 0.05 | median p | AUC | far | s |")
    say("|---|---|---|--:|--:|--:|--:|--:|--:|")
    pictures: dict[str, Change | Dataset] = {
        "blurred (1 pixel of 28)": blurred,
        "2% of the pixels flipped": speckled,
        "thinner strokes": thinner,
        "turned by 20°": turned,
        "white on black": negative,
    }
    sounds: dict[str, Change | Dataset] = {
        "noise, 20 dB below": noisy(20),
        "noise, 10 dB below": noisy(10),
        "by telephone (to 1.5 kHz)": muffled,
        "cut to 0.3 s": cut,
        "other language": arabic,
    }
    texts: dict[str, Change | Dataset] = {
        "5% of the letters mistyped": mistyped(0.05),
        "20% of the letters mistyped": mistyped(0.2),
        "in capitals": lambda text, _: text.upper(),
        "in Cyrillic letters": cyrillic,
        "SNIPS": snips,
    }
    for name, dataset, by, changes in (
        ("Omniglot", omniglot, "group", pictures),
        ("Omniglot", omniglot, None, pictures),
        ("Arabic commands", arabic, "domain", {}),
        ("Arabic commands", arabic, "class", {}),
        ("FSDD", fsdd, None, sounds),
        ("CLINC150", clinc, "group", {}),
        ("CLINC150", clinc, "class", texts),
        ("CLINC150", clinc, None, texts),
    ):
        for what, change in {"as it is": dataset, **changes}.items():
            row = {"dataset": name, "apart": by or "example", "change": what}
            if (name, what) not in vectors:
                vectors[name, what] = embedded(model, changed(dataset, change))
            other = change if isinstance(change, Dataset) else None
            pair = vectors[name, "as it is"], vectors[name, what]
            rows.append(row | repeated(dataset, other, *pair, by, policy))
            told = rows[-1]
            say(
                f"| {name} | {told['apart']} | {what} | {told['found']} of {SPLITS} | {told['significant']} "
                f"| {told['p']:.3f} | {told['auc']:.2f} | {told['far']:.0%} | {told['seconds']:.1f} |"
            )
    return rows


def repeated(
    dataset: Dataset, other: Dataset | None, before: np.ndarray, after: np.ndarray, by: str | None, policy: Drift
) -> dict[str, Any]:
    """Random halves, so many times: how often drift was found, and medians.

    Args:
        other: the new examples are of this dataset. before, after: embeddings of the examples, and of the new ones.
    """
    units, _ = units_of(dataset, np.arange(len(dataset)))
    new_units, _ = units_of(other or dataset, np.arange(len(after)))
    if other is not None and other is not dataset:  # a class of the same name is another class
        new_units = {kind: ["other " + unit for unit in names] for kind, names in new_units.items()}
    found = []
    for seed in range(SPLITS):
        second = half(units, by, len(dataset), seed)
        new = (
            np.flatnonzero(second)
            if other is None or other is dataset
            else np.random.default_rng(seed).permutation(len(other))[:600]
        )
        started = time.perf_counter()
        distance = measure(taken(before, units, np.flatnonzero(~second)), taken(after, new_units, new), policy, seed)
        found.append((distance.p, distance.auc, distance.far, time.perf_counter() - started))
    p, auc, far, seconds = np.array(found).T
    return {
        "found": int(((p <= policy.significance) & (auc >= policy.auc)).sum()),
        "significant": int((p <= policy.significance).sum()),
        "p": float(np.median(p)),
        "auc": float(np.median(auc)),
        "largest_auc": float(auc.max()),
        "far": float(np.median(far)),
        "seconds": float(np.median(seconds)),
    }


def half(units: dict[str, list[str]], by: str | None, n: int, seed: int) -> np.ndarray:
    """bool [n]: half of the units, or of the examples."""
    random = np.random.default_rng(seed)
    if by is None:
        return random.permutation(n) < n // 2
    names = np.array(units[by])
    every = np.unique(names)
    return np.isin(names, random.permutation(every)[: len(every) // 2])


def taken(vectors: np.ndarray, units: dict[str, list[str]], rows: np.ndarray) -> Sample:
    return Sample(vectors[rows], {kind: [names[row] for row in rows] for kind, names in units.items()})


def embedded(model: MetaModel, dataset: Dataset) -> np.ndarray:
    arrays, _ = features(dataset, model.encoder(dataset.modality), None)
    return embed(model, dataset.modality, arrays)


def read(source: Path, **options: Any) -> Dataset:
    return Dataset(*import_source(source, source.stem.lower().replace("_", "-"), ImportOptions(**options)))


def with_speakers(dataset: Dataset) -> Dataset:
    """The first eight digits of a file's name are who spoke."""
    paths = dataset.table.column("audio").combine_chunks().field("path").to_pylist()
    speakers = [Path(path).name[:8] for path in paths]
    table = make_table("audio", dataset.raw(), dataset.column("label"), dataset.column("group"), speakers, paths)
    return Dataset(dataset.info.model_copy(update={"domain": "speaker"}), table)


def pool(dataset: Dataset, most: int = POOL, classes: int | None = None) -> Dataset:
    """Some examples, of some classes."""
    random = np.random.default_rng(0)
    chosen = random.permutation(len(dataset.classes))[:classes]
    rows = np.flatnonzero(np.isin(dataset.class_index, chosen))
    return Dataset(dataset.info, dataset.table.take(np.sort(random.permutation(rows)[:most])))


# Changes


def changed(dataset: Dataset, change: Change | Dataset) -> Dataset:
    if isinstance(change, Dataset):
        return change
    random = np.random.default_rng(1)
    examples = [change(example, random) for example in dataset.raw()]
    domains = dataset.column("domain") if dataset.info.domain else None
    table = make_table(dataset.modality, examples, dataset.column("label"), dataset.column("group"), domains)
    return Dataset(dataset.info, table)


def picture(change: Callable[[Image.Image, np.random.Generator], Image.Image]) -> Change:
    def on_bytes(data: bytes, random: np.random.Generator) -> bytes:
        buffer = io.BytesIO()
        change(Image.open(io.BytesIO(data)).convert("L"), random).save(buffer, "PNG")
        return buffer.getvalue()

    return on_bytes


blurred = picture(lambda image, _: image.filter(ImageFilter.GaussianBlur(image.width / 28)))
thinner = picture(lambda image, _: image.filter(ImageFilter.MaxFilter(3)))  # dark strokes on light
turned = picture(lambda image, _: image.rotate(20, fillcolor=255))
negative = picture(lambda image, _: image.point(lambda value: 255 - value))


@picture
def speckled(image: Image.Image, random: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image)
    return Image.fromarray(np.where(random.random(pixels.shape) < 0.02, 255 - pixels, pixels).astype(np.uint8))


def sound(change: Callable[[np.ndarray, int, np.random.Generator], np.ndarray]) -> Change:
    def on_bytes(data: bytes, random: np.random.Generator) -> bytes:
        wave, rate = soundfile.read(io.BytesIO(data), always_2d=True)
        buffer = io.BytesIO()
        soundfile.write(buffer, change(wave.mean(1), rate, random), rate, format="WAV")
        return buffer.getvalue()

    return on_bytes


def noisy(decibels: float) -> Change:
    def add(wave: np.ndarray, rate: int, random: np.random.Generator) -> np.ndarray:
        return wave + random.normal(0, wave.std() * 10 ** (-decibels / 20), len(wave))

    return sound(add)


@sound
def muffled(wave: np.ndarray, rate: int, random: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(wave)
    spectrum[np.fft.rfftfreq(len(wave), 1 / rate) > 1500] = 0
    return np.fft.irfft(spectrum, len(wave))


@sound
def cut(wave: np.ndarray, rate: int, random: np.random.Generator) -> np.ndarray:
    return wave[: int(0.3 * rate)]


def mistyped(share: float) -> Change:
    letters = list("abcdefghijklmnopqrstuvwxyz")

    def change(text: str, random: np.random.Generator) -> str:
        wrong = random.random(len(text)) < share
        return "".join(str(random.choice(letters)) if miss else c for c, miss in zip(text, wrong, strict=True))

    return change


def cyrillic(text: str, random: np.random.Generator) -> str:
    return text.translate(str.maketrans("abcdefghijklmnoprstuvwyz", "абцдефгхийклмнопрстувwыз".replace("w", "в")))


# The verb


def verbs(folder: Path, model: str) -> list[dict[str, Any]]:
    """`quickstudy drift` on each dataset, with the model's own memory."""
    spoken = ["--pattern", "{class}_{speaker}_{}", "--domain", "speaker"]
    asked: list[tuple[str, list[str]]] = [
        (f"{name}: what it did not learn from", [name, "--all"])
        for name in ("apidocs", "glyphs", "phrasebook", "words", "digits")
    ]
    asked += [
        ("Omniglot background", [str(folder / "omniglot/images_background.zip")]),
        ("FSDD", [str(folder / "fsdd/recordings.zip"), *spoken]),
        ("Arabic commands", [str(folder / "arabic_speech_commands/clips.zip")]),
        ("SNIPS", [str(folder / "snips/train.csv")]),
        ("HWU64", [str(folder / "hwu64/train.csv")]),
        ("CLINC150", [str(folder / "clinc150/data_full.json")]),
        ("SST-2", [str(folder / "sst2/dev.csv")]),
    ]
    say("\n| new examples | nearest of what it learned from | AUC | far | p | over | verdict | s |")
    say("|---|---|--:|--:|--:|---|---|--:|")
    rows = []
    for name, words in asked:
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            command = [sys.executable, "-m", "quickstudy", "drift", *words, "--model", model, "--json", out.name]
            started = time.perf_counter()
            done = subprocess.run(command, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - started
            if done.returncode not in (0, 3):
                raise SystemExit(done.returncode)
            (one,) = json.loads(Path(out.name).read_text())["datasets"]
        near = next(against for against in one["against"] if against["dataset"] == one["nearest"])
        test = next(test for test in near["tests"] if test["kind"] == near["decided_by"])
        over = f"{test['units']} against {test['reference_units']} ({near['decided_by']})"
        del one["unusual"]  # examples of others
        rows.append({"new": name, "seconds": seconds, **one})
        say(
            f"| {name} | {one['nearest']} | {one['auc']:.2f} | {one['far']:.0%} | {one['p']:.3f} | {over} "
            f"| {'drift' if one['drift'] else 'no drift'} | {seconds:.0f} |"
        )
    return rows


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
