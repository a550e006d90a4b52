"""The card tells what the stages' files say, the same bytes each time, whatever the names in them."""

import base64
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from quickstudy.card import write_card
from quickstudy.card.evidence import read_evidence
from quickstudy.card.figures import _apart, paired_with_scratch
from quickstudy.data.dataset import DatasetInfo, make_table, write_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import write_evaluation
from quickstudy.training import Look, write_curve

HOSTILE = "<script>alert(1)</script> | a [link](javascript:alert(2)) ![x](http://x/y.png) $\\frac{1}{2}$ `_*b*_` &lt;"
FRACTIONS = {"quickstudy": 0.9, "logreg_encoder": 0.8, "centroid_raw": 0.5, "scratch": 0.6}
SUITES = (("letters", "image", "classes"), ("talk/travel", "text", "classes"), ("talk", "text", "dataset"))


def answers(
    suites=SUITES, shots=(1, 5), fractions: dict[str, float] | None = None, count: int = 40, scratch: int = 4
) -> pd.DataFrame:
    """Rows of an evaluation: each method is right in about its fraction, more with more shots."""
    random = np.random.default_rng(0)
    parts = []
    for suite, modality, novelty in suites:
        for shot in shots:
            for method, fraction in (FRACTIONS if fractions is None else fractions).items():
                n = scratch if method == "scratch" else count
                chance = min(fraction + 0.01 * shot, 1.0)
                frame = pd.DataFrame({"accuracy": random.binomial(25, chance, n) / 25, "episode": np.arange(n)})
                frame["adapt_ms"] = {"quickstudy": 9.0, "scratch": 1300.0}.get(method, 0.4)
                frame = frame.assign(suite=suite, dataset=suite.partition("/")[0], modality=modality, novelty=novelty)
                parts.append(frame.assign(way=5, shot=shot, query=5, method=method))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def build(tmp_path: Path, png: Callable[..., bytes]) -> Callable[..., Path]:
    """The folder that the stages fill, with data beside it; the evaluation is given."""

    def make(
        frame: pd.DataFrame, modalities=("image", "text"), description: str = "Small.", text_encoder: str = "minilm"
    ) -> Path:
        root = tmp_path / "build"
        for name, modality, example in (("letters", "image", png()), ("talk", "text", "hello")):
            if modality in modalities:
                info = DatasetInfo(name=name, modality=modality, description=description, licence="CC0 & others")
                write_dataset(tmp_path / "data", info, make_table(modality, [example], ["a"], ["a"]))
        names = [name for name, modality in (("letters", "image"), ("talk", "text")) if modality in modalities]
        counts = {"examples": 1200, "classes": 60, "groups_train": 7, "groups_validation": 1, "groups_test": 2}
        (root / "tasks").mkdir(parents=True)
        (root / "tasks/tasks.json").write_text(json.dumps({name: counts for name in names}))
        (root / "tasks/splits.yaml").write_text(yaml.safe_dump({name: {"groups": {"a": "test"}} for name in names}))
        finding = {"severity": "warning", "dataset": names[0], "kind": "near", "count": 6, "fix": "Look at some"}
        (root / "tasks/checks.json").write_text(json.dumps([finding | {"what": "6 examples nearly repeat"}]))
        write_evaluation(root / "evaluate", frame)
        (root / "meta_train").mkdir()
        looks = [Look(step, 2.0 / step, dict.fromkeys(modalities, 0.5)) for step in (1, 2)]  # type: ignore[arg-type]
        write_curve(root / "meta_train/curve.csv", looks)
        (root / "meta_train/metrics.json").write_text('{"loss": 1.0, "alpha": 0.25}')
        (root / "meta_train/training.json").write_text('{"seconds": 61.0, "steps": 600, "parameters": 1234567}')
        (root / "model").mkdir()
        inputs = {
            "image": {"size": 28, "channels": 1},
            "audio": {"sample_rate": 8000, "seconds": 1.0},
            "text": {"encoder": "all-MiniLM-L6-v2", "max_tokens": 64, "max_bytes": 128},
        }
        encoders = {"image": "conv4", "audio": "gru", "text": text_encoder}
        config = {"modalities": sorted(modalities), "inputs": inputs, "model": {"dimension": 384, "encoders": encoders}}
        (root / "model/config.yaml").write_text(yaml.safe_dump(config))
        (root / "model/lineage.json").write_text('{"seed": 3}')
        (root / "model/model.safetensors").write_bytes(b"weights")
        return root

    return make


def card(build: Path) -> tuple[str, str]:
    write_card(build, build / "card")
    return (build / "card/card.md").read_text(encoding="utf-8"), (build / "card/card.html").read_text(encoding="utf-8")


def table_after(text: str, heading: str) -> list[dict[str, str]]:
    """The first Markdown table after a heading."""
    lines = text[text.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    found = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return [dict(zip(found[0], cells, strict=True)) for cells in found[2:]]


class Page(HTMLParser):
    """Elements with their attributes, and the text that a reader sees."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_number_of_the_table_is_that_of_the_evaluation(build: Callable[..., Path]) -> None:
    root = build(answers())
    text, _ = card(root)
    shown = table_after(text, "### All methods")
    table = pd.read_csv(root / "evaluate/table.csv")
    columns = {
        "quickstudy": "Quickstudy", "logreg_encoder": "LogReg, encoder", "centroid_raw": "centroid, raw",
        "scratch": "from scratch",
    }  # fmt: skip
    assert len(shown) == 6 and set(table["method"]) == set(columns)
    for row in table.itertuples():
        line = next(line for line in shown if (line["suite"], line["shots"]) == (row.suite, str(row.shot)))
        numbers = re.findall(r"[\d.]+", line[columns[row.method]])
        assert [float(number) for number in numbers[:2]] == pytest.approx(
            [100 * row.accuracy, 100 * row.ci95], abs=0.0501
        )
        assert numbers[2:] == (["4"] if row.method == "scratch" else []) and line["episodes"] == "40"
    means = table[table["method"] == "quickstudy"].groupby("shot")["accuracy"].mean()
    tile = table_after(text, "# Quickstudy")[0]
    assert [float(tile[f"{n} a class"].rstrip(" %")) for n in ("1 example", "5 examples")] == pytest.approx(
        100 * means.to_numpy(), abs=0.0501
    )
    assert tile["to learn a task"] == "9.0 ms"


def test_of_each_suite_ours_stands_beside_the_best_baseline_on_the_same_episodes(build: Callable[..., Path]) -> None:
    frame = answers(fractions=FRACTIONS | {"scratch": 0.95})  # the best of all, but not on all episodes
    text, _ = card(build(frame))
    means = frame.groupby(["suite", "shot", "method"])["accuracy"].mean() * 100
    for heading, suite in (("### New classes", "letters"), ("### New dataset", "talk")):
        line = next(line for line in table_after(text, heading) if line["suite"] == suite)
        ours, best = (means[suite, 5, method] for method in ("quickstudy", "logreg_encoder"))
        assert line["5 shots"].startswith(f"{ours:.1f} ({best:.1f})")
    assert "### New domain" not in text


@pytest.mark.parametrize("theirs", [0.5, 0.89, 1.0])
def test_says_where_it_is_below_a_baseline_and_only_there(build: Callable[..., Path], theirs: float) -> None:
    frame = answers(fractions={"quickstudy": 0.9, "logreg_raw": 0.5})
    worse = (frame["suite"] == "letters") & (frame["shot"] == 5) & (frame["method"] == "logreg_raw")
    frame.loc[worse, "accuracy"] = np.where(np.arange(worse.sum()) % 2, theirs, theirs - 0.04)
    text, html = card(build(frame))
    table = frame.groupby(["suite", "shot", "method"])["accuracy"].mean()
    below = theirs == 1.0
    assert below == (table["letters", 5, "quickstudy"] < table["letters", 5, "logreg_raw"] - 0.01)
    marked = [line for line in table_after(text, "### All methods") if "▼" in line["Quickstudy"]]
    assert [(line["suite"], line["shots"]) for line in marked] == ([("letters", "5")] if below else [])
    sentence = next(line for line in text.splitlines() if "Below a baseline's interval" in line)
    assert ("nowhere" in sentence) != below and ("letters with 5 examples" in sentence) == below
    assert sentence.strip("*") in Page(html).text


def test_the_same_files_give_the_same_bytes(build: Callable[..., Path]) -> None:
    root = build(answers())
    write_card(root, root / "card")
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 30, "axes.facecolor": "red"}):
        write_card(root, root / "again")
    names = sorted(path.name for path in (root / "card").iterdir())
    assert names == ["accuracy.png", "adapt.png", "card.html", "card.md", "training.png"]
    for name in names:
        assert (root / "card" / name).read_bytes() == (root / "again" / name).read_bytes(), name
    assert set(Image.open(root / "card/accuracy.png").info) <= {"dpi"}


def test_the_page_holds_its_figures_and_needs_nothing_else(build: Callable[..., Path]) -> None:
    root = build(answers())
    _, html = card(root)
    page = Page(html)
    assert len(html.encode()) <= 1_000_000
    links = [value for _, attrs in page.elements for key, value in attrs.items() if key in ("src", "srcset", "href")]
    assert len(links) == 6 and all(link and link.startswith("data:image/png;base64,") for link in links)
    for link in links:
        assert Image.open(io.BytesIO(base64.b64decode(str(link).partition(",")[2]))).width > 300
    wide = [base64.b64decode(str(attrs["src"]).partition(",")[2]) for tag, attrs in page.elements if tag == "img"]
    assert wide == [(root / "card" / name).read_bytes() for name in ("accuracy.png", "adapt.png", "training.png")]
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "form"}
    assert "url(" not in html and "@import" not in html


def test_names_and_descriptions_are_shown_and_never_obeyed(build: Callable[..., Path]) -> None:
    hostile = (("letters", "image", "classes"), (f"talk/{HOSTILE}", "text", "classes"))
    text, html = card(build(answers(suites=hostile), description=HOSTILE))
    page = Page(html)
    assert page.text.count(HOSTILE) >= 2 + 2 + 2  # descriptions, rows of the table by novelty and of that of all
    assert not {tag for tag, _ in page.elements} & {"script", "a"}
    assert sum(tag == "img" for tag, _ in page.elements) == 3
    assert not [key for _, attrs in page.elements for key in attrs if key.startswith("on")]
    assert all(len(line) == len(table_after(text, "### All methods")[0]) for line in table_after(text, "### All"))


def test_a_suite_without_one_of_the_shots(build: Callable[..., Path]) -> None:
    frame = answers()
    frame = frame[(frame["suite"] != "letters") | (frame["shot"] == 5)]
    text, _ = card(build(frame))
    lines = {line["suite"]: line for line in table_after(text, "### New classes")}
    assert lines["letters"]["1 shot"] == "–" and lines["letters"]["5 shots"] != "–"
    assert "–" not in lines["talk/travel"].values()
    assert len(table_after(text, "### All methods")) == 5


def test_without_training_from_scratch(build: Callable[..., Path]) -> None:
    root = build(answers(fractions={"quickstudy": 0.9, "logreg_raw": 0.5}))
    text, html = card(root)
    assert not (root / "card/adapt.png").exists() and "adapt.png" not in text
    assert "was not run" in text and sum(tag == "img" for tag, _ in Page(html).elements) == 2


def test_without_any_baseline(build: Callable[..., Path]) -> None:
    text, _ = card(build(answers(fractions={"quickstudy": 0.9})))
    assert "No baseline was run" in text and "interval at" not in text and "▲" not in text
    line = table_after(text, "### New dataset")[0]
    assert re.fullmatch(r"[\d.]+", line["5 shots"])


def test_of_one_modality(build: Callable[..., Path]) -> None:
    suites = [suite for suite in SUITES if suite[1] == "image"]
    text, _ = card(build(answers(suites=suites), modalities=("image",)))
    assert "It reads images." in text and "28 × 28" in text
    assert "MiniLM" not in text and "Recordings" not in text
    assert "audio or text: it was not trained on any" in text


def test_a_single_episode_has_no_interval(build: Callable[..., Path]) -> None:
    text, _ = card(build(answers(count=1, scratch=1)))
    assert "nan" not in text.lower()
    assert all("±" not in line["Quickstudy"] for line in table_after(text, "### All methods"))


def test_scratch_is_compared_on_the_episodes_that_it_answered(build: Callable[..., Path]) -> None:
    frame = answers()
    first = (frame["method"] == "quickstudy") & (frame["episode"] < 4)
    frame.loc[first, "accuracy"] = 0.25
    root = build(frame)
    both = paired_with_scratch(read_evidence(root, root.parent / "data"))
    assert (both["ours_accuracy"] == 0.25).all() and (both["episodes"] == 4).all() and (both["shot"] == 5).all()
    text, _ = card(root)
    assert "reached 25.0 %" in text and "144 times as fast" in text


def test_a_missing_file_is_named_and_nothing_is_written(build: Callable[..., Path]) -> None:
    root = build(answers())
    (root / "meta_train/training.json").unlink()
    with pytest.raises(QuickstudyError, match=r"training\.json"):
        write_card(root, root / "card")
    assert not (root / "card").exists()


@pytest.mark.parametrize("values", [[0.99, 0.98, 0.97, 0.2], [0.0, 0.01], [1.0, 1.0, 1.0], [0.5], []])
def test_labels_keep_their_order_and_a_distance(values: list[float]) -> None:
    placed = _apart(values, gap=0.1, low=0.05, high=1.05)
    assert sorted(range(len(values)), key=lambda i: (values[i], i)) == sorted(
        range(len(placed)), key=placed.__getitem__
    )
    assert all(b - a >= 0.1 - 1e-9 for a, b in zip(sorted(placed), sorted(placed)[1:], strict=False))
    assert all(0.05 - 1e-9 <= height <= 1.05 + 1e-9 for height in placed)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ("minilm", "up to 64 tokens by all-MiniLM-L6-v2"),
        ("minilm-tuned", "up to 64 tokens by all-MiniLM-L6-v2"),
        ("bytes-gru", "up to 128 bytes by a network that knows the texts below alone"),
        ("words-cnn", "up to 64 words by a network that knows the texts below alone"),
    ],
)
def test_the_encoders_are_named(build: Callable[..., Path], encoder: str, said: str) -> None:
    text, _ = card(build(answers(), text_encoder=encoder))
    assert said in text and f"The encoders are conv4 for image and {encoder} for text." in text
    assert ("pretrained sentence encoder" in text) == ("MiniLM" in text) == encoder.startswith("minilm")


def test_a_pretrained_encoder_is_named(build: Callable[..., Path]) -> None:
    text, _ = card(build(answers(), text_encoder="transformers:a/b"))
    assert "up to 64 tokens by transformers:a/b, frozen" in text and "pretrained sentence encoder" in text
