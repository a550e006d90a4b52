"""The card tells what the stages' files say, the same bytes each time, whatever the names in them."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import t as student

from quickstudy.card import read_parts, write_card
from quickstudy.card.figures import _apart, adaptation
from quickstudy.card.page import html_page
from quickstudy.card.separately import paired_with_scratch
from quickstudy.config import load_settings
from quickstudy.data.dataset import DatasetInfo, make_table, write_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.answers import nothing_to_judge, write_evaluation
from quickstudy.evaluation.contenders import NOT_ANSWERED
from quickstudy.evaluation.gate import Contender, Evidence, judge
from quickstudy.kinds.classify.shown.failures import confusions, episodes_to_look_at
from quickstudy.kinds.scores import SCORES
from quickstudy.kinds.shown import SHOWN
from quickstudy.kinds.targets import TARGETS
from quickstudy.kinds.task import Episodes
from quickstudy.report.evidence import KindEvidence, Method, evidence_folders, read_evidence
from quickstudy.report.words import Chapter
from quickstudy.tasks.frozen import FrozenEpisodes
from tests.unit.card.reading import Page, card, table_after
from tests.unit.card.stages import leave

EVERY = (("letters", "image", "classes"), ("words", "audio", "domain"), ("talk", "text", "dataset"))
HOSTILE = "<script>alert(1)</script> | a [link](javascript:alert(2)) ![x](http://x/y.png) $\\frac{1}{2}$ `_*b*_` &lt;"
FRACTIONS = {"quickstudy": 0.9, "logreg_encoder": 0.8, "centroid_raw": 0.5, "scratch": 0.6}
NAMES = {"letters": "image", "words": "audio", "talk": "text"}
EACH = 10  # examples a class
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
                frame = pd.DataFrame({"score": random.binomial(25, chance, n) / 25, "episode": np.arange(n)})
                frame["adapt_ms"] = {"quickstudy": 9.0, "scratch": 1300.0}.get(method, 0.4)
                if method == "quickstudy":
                    frame = frame.assign(nll=0.5, **told(frame["score"]))
                frame = frame.assign(suite=suite, dataset=suite.partition("/")[0], modality=modality, novelty=novelty)
                parts.append(frame.assign(kind="classify", way=5, shot=shot, query=5, method=method))
    return pd.concat(parts, ignore_index=True)


def told(accuracies: pd.Series) -> dict[str, pd.Series]:
    """Answers of 5 ways and 5 queries that are right so often; the last queries are answered by the next class."""
    truth = np.arange(25) // 5
    answers = [np.where(np.arange(25) < round(25 * a), truth, (truth + 1) % 5).astype(np.uint16) for a in accuracies]
    confidences = [np.linspace(0.5, 0.99, 25, dtype=np.float32).round(3)] * len(accuracies)
    return {"answers": pd.Series(answers, dtype=object), "confidences": pd.Series(confidences, dtype=object)}


def frozen(frame: pd.DataFrame) -> list[FrozenEpisodes]:
    """Of each suite and number of shots: every episode has the first five classes of the dataset."""
    blocks = []
    ours = frame[frame["method"] == "quickstudy"]
    for (suite, shot), part in ours.groupby(["suite", "shot"], sort=False):
        rows = torch.arange(5)[:, None] * EACH + torch.arange(EACH)  # class by class
        rows = rows.expand(len(part), -1, -1)
        about = part.iloc[0]
        episodes = Episodes(support=rows[..., :shot], query=rows[..., shot : shot + 5])
        blocks.append(
            FrozenEpisodes("classify", suite, about["dataset"], about["modality"], about["novelty"], episodes)
        )
    return blocks


@pytest.fixture
def build(tmp_path: Path, png: Callable[..., bytes], wav: Callable[..., bytes]) -> Callable[..., Path]:
    """The folder that the stages fill, with data beside it; the evaluation is given."""

    def make(
        frame: pd.DataFrame,
        modalities=("image", "text"),
        description: str = "Small.",
        text_encoder: str = "minilm",
        text: str = "hello",
        side: int = 12,
    ) -> Path:
        root = tmp_path / "build"
        examples = {
            "image": lambda i: png(i, size=(side, side)),
            "audio": lambda i: wav(i),
            "text": lambda i: f"{text} {i}",
        }
        named = [(name, modality) for name, modality in NAMES.items() if modality in modalities]
        names = [name for name, _ in named]
        for name, modality in named:
            info = DatasetInfo(name=name, modality=modality, description=description, licence="CC0 & others")
            labels = [f"{text} class {'abcde'[i // EACH]}" for i in range(5 * EACH)]
            table = make_table(modality, [examples[modality](i) for i in range(5 * EACH)], labels, ["g"] * 5 * EACH)
            write_dataset(tmp_path / "data", info, table)
        leave(root, frozen(frame), frame, names, modalities, text_encoder)
        return root

    return make


def classify(build: Path) -> KindEvidence:
    return read_evidence("classify", evidence_folders(build, "classify"), build.parent / "data")


def drawn(build: Path) -> tuple[str, str]:
    """The same as it is written, with its pictures."""
    write_card(build, build / "card")
    return (build / "card/card.md").read_text(encoding="utf-8"), (build / "card/card.html").read_text(encoding="utf-8")


def test_every_number_of_the_table_is_that_of_the_evaluation(build: Callable[..., Path]) -> None:
    root = build(answers())
    text, _ = card(root)
    shown = table_after(text, "### All methods")
    table = pd.read_csv(root / "evaluate/classify/table.csv")
    columns = {
        "quickstudy": "Quickstudy",
        "logreg_encoder": "LogReg, encoder",
        "centroid_raw": "centroid, raw",
        "scratch": "from scratch",
    }
    assert len(shown) == 6 and set(table["method"]) == set(columns)
    for row in table.itertuples():
        line = next(line for line in shown if (line["suite"], line["shots"]) == (row.suite, str(row.shot)))
        numbers = re.findall(r"[\d.]+", line[columns[row.method]])
        assert [float(number) for number in numbers[:2]] == pytest.approx([100 * row.score, 100 * row.ci95], abs=0.0501)
        assert numbers[2:] == (["4"] if row.method == "scratch" else []) and line["episodes"] == "40"
    means = table[table["method"] == "quickstudy"].groupby("shot")["score"].mean()
    tile = table_after(text, "# Quickstudy")[0]
    assert [float(tile[f"{n} a class"].rstrip(" %")) for n in ("1 example", "5 examples")] == pytest.approx(
        100 * means.to_numpy(), abs=0.0501
    )
    assert tile["to learn a task"] == "9.0 ms"


def test_the_highest_of_a_row_is_bold_among_those_over_all_its_episodes(build: Callable[..., Path]) -> None:
    text, _ = card(build(answers(fractions=FRACTIONS | {"scratch": 0.95, "centroid_raw": 0.99})))
    for line in table_after(text, "### All methods"):
        assert [name for name, cell in line.items() if cell.startswith("**")] == ["centroid, raw"]


@pytest.mark.parametrize("ours", [0.21, 0.5])
def test_says_where_it_is_no_better_than_guessing_and_only_there(build: Callable[..., Path], ours: float) -> None:
    frame = answers(fractions={"quickstudy": 0.9})
    at = (frame["suite"] == "talk") & (frame["shot"] == 5)
    frame.loc[at, "score"] = ours + 0.02 * np.where(np.arange(at.sum()) % 2, 1, -1)
    frame.loc[at & (frame["episode"] == 0), "score"] = 0.0  # the interval reaches below 20 %, the mean does not
    text, _ = card(build(frame))
    said = [line for line in text.splitlines() if "No better than guessing" in line]
    mean = 100 * frame.loc[at, "score"].mean()
    assert bool(said) == (ours == 0.21) and mean > 20
    if said:
        assert f"at: talk with 5 examples a class ({mean:.1f} ± " in said[0] and "that gives 20.0)" in said[0]


def test_of_each_suite_ours_stands_beside_the_best_baseline_on_the_same_episodes(build: Callable[..., Path]) -> None:
    frame = answers(fractions=FRACTIONS | {"scratch": 0.95})  # the best of all, but not on all episodes
    text, _ = card(build(frame))
    means = frame.groupby(["suite", "shot", "method"])["score"].mean() * 100
    for heading, suite in (("### New classes", "letters"), ("### New dataset", "talk")):
        line = next(line for line in table_after(text, heading) if line["suite"] == suite)
        ours, best = (means[suite, 5, method] for method in ("quickstudy", "logreg_encoder"))
        assert line["5 shots"].startswith(f"{ours:.1f} ({best:.1f})")
    assert "### New domain" not in text


@pytest.mark.parametrize("theirs", [0.5, 0.89, 1.0])
def test_says_where_it_is_below_a_baseline_and_only_there(build: Callable[..., Path], theirs: float) -> None:
    frame = answers(fractions={"quickstudy": 0.9, "logreg_raw": 0.5})
    worse = (frame["suite"] == "letters") & (frame["shot"] == 5) & (frame["method"] == "logreg_raw")
    frame.loc[worse, "score"] = np.where(np.arange(worse.sum()) % 2, theirs, theirs - 0.04)
    text, html = card(build(frame))
    table = frame.groupby(["suite", "shot", "method"])["score"].mean()
    below = theirs == 1.0
    assert below == (table["letters", 5, "quickstudy"] < table["letters", 5, "logreg_raw"] - 0.01)
    marked = [line for line in table_after(text, "### All methods") if "▼" in line["Quickstudy"]]
    assert [(line["suite"], line["shots"]) for line in marked] == ([("letters", "5")] if below else [])
    sentence = next(line for line in text.splitlines() if "Below a baseline's interval" in line)
    assert ("nowhere" in sentence) != below and ("letters with 5 examples" in sentence) == below
    assert sentence.strip("*") in Page(html).text


def test_the_same_files_give_the_same_bytes(build: Callable[..., Path]) -> None:
    root = build(answers(suites=EVERY), modalities=("image", "audio", "text"))
    write_card(root, root / "card")
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 30, "axes.facecolor": "red"}):
        write_card(root, root / "again")
    names = sorted(path.name for path in (root / "card").iterdir())
    assert names == [
        "card.html",
        "card.md",
        "classify_adapt.png",
        "classify_calibration.png",
        "classify_episodes_audio.png",
        "classify_episodes_image.png",
        "classify_score.png",
        "classify_training.png",
    ]
    for name in names:
        assert (root / "card" / name).read_bytes() == (root / "again" / name).read_bytes(), name
    assert set(Image.open(root / "card/classify_score.png").info) <= {"dpi"}


def test_the_page_holds_its_figures_and_needs_nothing_else(build: Callable[..., Path]) -> None:
    root = build(answers())
    _, html = drawn(root)
    page = Page(html)
    assert len(html.encode()) <= 1_000_000
    links = [value for _, attrs in page.elements for key, value in attrs.items() if key in ("src", "srcset", "href")]
    assert len(links) == 10 and all(link and link.startswith("data:image/webp;base64,") for link in links)

    def picture(link: str | None) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(str(link).partition(",")[2]))).convert("RGB"))

    assert all(picture(link).shape[1] > 300 for link in links)
    wide = [picture(attrs["src"]) for tag, attrs in page.elements if tag == "img"]
    names = ("score", "adapt", "calibration", "episodes_image", "training")
    for shown, name in zip(wide, names, strict=True):
        beside = np.asarray(Image.open(root / "card" / f"classify_{name}.png").convert("RGB"))
        assert np.array_equal(shown, beside), name
    assert all(attrs["alt"] for tag, attrs in page.elements if tag == "img")
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "form"}
    assert "url(" not in html and "@import" not in html


def test_names_and_descriptions_are_shown_and_never_obeyed(build: Callable[..., Path]) -> None:
    hostile = (("letters", "image", "classes"), (f"talk/{HOSTILE}", "text", "classes"))
    text, html = card(build(answers(suites=hostile), description=HOSTILE, text=HOSTILE))
    page = Page(html)
    assert page.text.count(HOSTILE) >= 2 + 2 + 2  # descriptions, rows of the table by novelty and of that of all
    shown = page.text[page.text.index("Where it fails") : page.text.index("Limits")]
    assert shown.count(HOSTILE) >= 2 + 5 + 10  # confusions, and the texts and classes of an episode
    alts = [str(attrs["alt"]) for tag, attrs in page.elements if tag == "img"]
    assert any(HOSTILE in alt for alt in alts)  # classes of images
    assert not {tag for tag, _ in page.elements} & {"script", "a"}
    assert len(alts) == 5
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
    (part,) = read_parts(root, root.parent / "data", None)
    assert adaptation(part, narrow=False) is None
    text, _ = card(root)
    assert "adapt.png" not in text and "training.png" in text and "was not run" in text


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
    frame.loc[first, "score"] = 0.25
    root = build(frame)
    both = paired_with_scratch(classify(root))
    assert (both["ours_score"] == 0.25).all() and (both["episodes"] == 4).all() and (both["shot"] == 5).all()
    text, _ = card(root)
    assert "and reaches 25.0 %" in text


def test_a_missing_file_is_named_and_nothing_is_written(build: Callable[..., Path]) -> None:
    root = build(answers())
    (root / "meta_train/classify/training.json").unlink()
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


def test_an_example_of_no_class_may_be_called_unknown(build: Callable[..., Path]) -> None:
    text, _ = card(build(answers()))
    assert "always answers" not in text and "call *unknown*" in text and "`serve.false_alarm`" in text
    assert "with one example a class nothing is" in text


# Several kinds


@pytest.fixture
def two(build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two kinds of task, the second with another score, and each with evidence of its own."""
    root = build(answers())
    for stage in ("tasks", "meta_train", "model"):
        shutil.copytree(root / stage / "classify", root / stage / "sorting")
    frame = answers(fractions={"quickstudy": 0.7, "majority": 0.2}).drop(columns=["answers", "confidences"])
    monkeypatch.setitem(SCORES, "sorting", SimpleNamespace(NAME="order"))
    monkeypatch.setitem(TARGETS, "sorting", SimpleNamespace(WORD="orders"))
    write_evaluation(root / "evaluate/sorting", frame.assign(kind="sorting"))
    (root / "model/sorting/model.safetensors").write_bytes(b"other weights")
    sorting = replace(
        SHOWN["classify"],
        title="Sorting",
        task="a sorting task",
        score="order",
        unit="example",
        per="",
        methods={"majority": Method("majority", "the order of most", "raw")},
        chance=lambda evidence, row: None,
        chapters=lambda evidence: [Chapter("Out of order", ["<b>*none*</b>"])],
        figures=lambda evidence, narrow: {},
    )
    monkeypatch.setitem(SHOWN, "sorting", sorting)
    monkeypatch.setitem(SHOWN, "untrained", replace(sorting, title="Untrained"))
    return root


def test_each_kind_has_a_part_of_its_own(two: Path) -> None:
    text, html = card(two)
    headings = [line for line in text.splitlines() if re.match("##? ", line)]
    assert headings == ["# Quickstudy: model card", "## Classification", "## Sorting", "## How to build it again"]
    assert "learns a classification task or a sorting task it has" in text
    first, second = text[text.index("## Classification") :].split("## Sorting")
    assert "### Calibration" in first and "### Calibration" not in second and "### Out of order" in second
    assert r"\<b\>\*none\*\</b\>" in second  # what a kind says is escaped unless it is marked as Markdown
    table = table_after(second, "#### All methods")[0]
    assert set(table) == {"suite", "examples", "Quickstudy", "majority", "episodes"}
    assert "5 examples" in table_after(second, "#### New classes")[0] and "5 shots" in table_after(first, "#### New")[0]
    assert "orders" in table_after(second, "### What it learned from")[0]
    assert "Its order is" in second and "accuracy" not in second.split("### How to use it")[0].lower()
    assert "10 examples a class" not in second and "with 1 example:" in second and "guessing" not in second
    assert "weights of classify (SHA-256)" in text and sha256(b"other weights").hexdigest() in text
    assert "sha256sum build/model/classify/model.safetensors build/model/sorting/model.safetensors" in text
    page = Page(html)
    assert len([tag for tag, attrs in page.elements if attrs.get("class") == "tiles"]) == 2
    assert "Untrained" not in text


def test_a_kind_without_data_is_said_in_one_sentence(two: Path) -> None:
    shutil.rmtree(two / "model/sorting")
    (two / "model/sorting").mkdir()
    (two / "model/sorting/none.json").write_text(json.dumps({"why": "no dataset of kind *sorting*"}))
    nothing_to_judge(two / "evaluate/sorting")
    text, _ = card(two)
    said = [line for line in text.splitlines() if "sorting" in line]
    assert said == [r"It was not trained to learn a sorting task: there is no dataset of kind \*sorting\*."]
    assert "## Classification" not in text and "## Calibration" in text  # one kind needs no heading
    shutil.copytree(two / "model/sorting", two / "model/classify", dirs_exist_ok=True)
    with pytest.raises(QuickstudyError, match="there is no model"):
        write_card(two, two / "card")
    assert not (two / "card").exists()


def test_each_kind_has_figures_of_its_own(two: Path) -> None:
    text, html = drawn(two)
    links = set(re.findall(r"\]\((\w+\.png)\)", text))
    assert links == {path.name for path in (two / "card").glob("*.png")}
    assert {"classify_score.png", "classify_calibration.png", "sorting_score.png"} <= links
    assert "sorting_calibration.png" not in links and len(html.encode()) <= 1_000_000


def test_a_champion_is_compared_kind_by_kind(two: Path, tmp_path: Path) -> None:
    frame = answers(fractions={"quickstudy": 0.9, "logreg_raw": 0.5})
    folder = judged(tmp_path / "gate", frame, worse(frame))
    champion = pd.read_parquet(folder / "champion.parquet").assign(kind="classify")
    champion.to_parquet(folder / "champion.parquet")
    text, _ = card(two, folder)
    assert "### Beside the champion: Classification" in text and "### Beside the champion: Sorting" not in text
    first, second = text[text.index("## Classification") :].split("## Sorting")
    assert "champion, version 6" in first and "champion, version 6" not in second


def test_a_phone_is_shown_the_wide_figure_where_there_is_no_narrow_one() -> None:
    page = Page(
        html_page("# Title\n\n![a](a.png)\n\n![b](b.png)\n", {"a.png": b"wide", "b.png": b"b"}, {"a.png": b"n"})
    )
    assert [tag for tag, _ in page.elements if tag in ("source", "img")] == ["source", "img", "img"]


# The gate and the champion


def judged(folder: Path, frame: pd.DataFrame, champion: pd.DataFrame | None) -> Path:
    """The folder that the gate leaves."""

    def contender(name: str, episodes: pd.DataFrame) -> Contender:
        return Contender(name, episodes, {}, ("image", "text"), 2, 6.0, "data", "episodes")

    old = None if champion is None else contender("version 6", champion)
    evidence = Evidence(contender("version 7", frame), old, frame, {}, "data", "episodes")
    folder.mkdir()
    policy = load_settings(Path(__file__).parents[2] / "params.yaml").gate
    verdict = judge(evidence, policy.model_copy(update={"over": "episodes"}))
    (folder / "verdict.json").write_text(json.dumps(verdict.record()))
    if champion is not None:
        champion.to_parquet(folder / "champion.parquet")
    return folder


def worse(frame: pd.DataFrame) -> pd.DataFrame:
    """A champion that is 4 points worse with letters, 0 or 8 by turns, and as good elsewhere."""
    champion = frame[frame["method"] == "quickstudy"].copy()
    letters = champion["suite"] == "letters"
    champion.loc[letters, "score"] -= 0.08 * (np.arange(letters.sum()) % 2)
    return champion


def test_the_gates_word_and_the_champion(build: Callable[..., Path], tmp_path: Path) -> None:
    frame = answers(fractions={"quickstudy": 0.9, "logreg_raw": 0.5})
    root = build(frame)
    folder = judged(tmp_path / "gate", frame, worse(frame))
    verdict = json.loads((folder / "verdict.json").read_text())
    text, html = card(root, folder)
    assert verdict["sentence"] in Page(html).text and f"{verdict['answer']}." in Page(html).text
    lines = table_after(text, "## The gate's word")
    assert [line["rule"] for line in lines] == [rule["name"].replace("_", r"_") for rule in verdict["rules"]]
    assert [line["it"].strip("*") for line in lines] == [rule["state"] for rule in verdict["rules"]]
    gain = next(rule for rule in verdict["rules"] if rule["name"] == "accuracy")
    assert lines[0]["gain"] == f"{100 * gain['gain']:+.2f} points"
    beside = {line["suite"]: line for line in table_after(text, "### Beside the champion")}
    assert beside["letters"]["1 shot"] == "+4.0 ± 1.3 ▲" and beside["talk"]["5 shots"] == "+0.0 ± 0.0"
    champion = worse(frame).groupby(["suite", "shot"])["score"].mean()
    for line in table_after(text, "### All methods"):
        shown = float(line["champion, version 6"].split()[0])
        assert shown == pytest.approx(100 * champion[line["suite"], int(line["shots"])], abs=0.0501)
    assert "quickstudy reproduce models:/quickstudy/7" in text


def test_a_champion_of_before_there_were_kinds(two: Path, tmp_path: Path) -> None:
    frame = answers(fractions={"quickstudy": 0.9, "logreg_raw": 0.5})
    folder = judged(tmp_path / "gate", frame, worse(frame))
    today, _ = card(two, folder)
    old = worse(frame).drop(columns="kind").rename(columns={"score": "accuracy"})
    old.to_parquet(folder / "champion.parquet")
    text, _ = card(two, folder)
    assert text == today and "### Beside the champion: Classification" in text


def test_where_nobody_had_to_answer_the_gates_word_stands_alone(build: Callable[..., Path], tmp_path: Path) -> None:
    frame = answers(fractions={"quickstudy": 0.9, "logreg_raw": 0.5})
    folder = judged(tmp_path / "gate", frame, worse(frame))
    NOT_ANSWERED.to_parquet(folder / "champion.parquet")
    verdict = json.loads((folder / "verdict.json").read_text())
    lost = verdict["rules"][0] | dict.fromkeys(("gain", "low", "high")) | {"name": "part sorting", "kind": "sorting"}
    (folder / "verdict.json").write_text(json.dumps(verdict | {"rules": [lost]}))
    text, _ = card(build(frame), folder)
    assert "Beside the champion" not in text and "champion, version 6" not in text
    (line,) = table_after(text, "## The gate's word")
    assert (line["rule"], line["gain"], line["asked"]) == ("part sorting", "lost", "kept")


def test_a_champion_that_answered_fewer_episodes_is_paired_on_those(build: Callable[..., Path], tmp_path: Path) -> None:
    frame = answers(fractions={"quickstudy": 0.9, "logreg_raw": 0.5})
    folder = judged(tmp_path / "gate", frame, worse(frame))
    part = worse(frame).query("episode < 10")
    part.to_parquet(folder / "champion.parquet")
    root = build(frame)
    text, _ = card(root, folder)
    assert table_after(text, "### All methods")[0]["champion, version 6"].endswith("(of 10)")
    assert table_after(text, "### Beside the champion")[0]["1 shot"].startswith("+4.0 ± 3.0")  # t of 10 episodes
    part.assign(suite="others").to_parquet(folder / "champion.parquet")
    with pytest.raises(QuickstudyError, match="version 6 answered no episode"):
        card(root, folder)


def test_without_a_champion_there_is_the_gates_word_alone(build: Callable[..., Path], tmp_path: Path) -> None:
    frame = answers(fractions={"quickstudy": 0.9, "logreg_raw": 0.5})
    root = build(frame)
    text, _ = card(root, judged(tmp_path / "gate", frame, None))
    assert "## The gate's word" in text and "Promote version 7" in text and "champion," not in text
    assert "Beside the champion" not in text
    without, _ = card(root)
    assert "gate" not in without and "champion," not in without and "models:/quickstudy/VERSION" in without


def test_commit_and_data_are_told_where_they_are_known(build: Callable[..., Path], tmp_path: Path) -> None:
    frame = answers(fractions={"quickstudy": 0.9, "logreg_raw": 0.5})
    folder = judged(tmp_path / "gate", frame, None)
    (folder / "lineage.json").write_text(json.dumps({"git_commit": "c0ffee" * 6, "data_hash": "da7a.dir"}))
    text, _ = card(build(frame), folder)
    built = text[text.index("## How to build it again") :]
    assert "c0ffee" * 6 in built and "da7a.dir" in built and "seed: `3`" in built
    assert sha256(b"weights").hexdigest() in built


# Where it fails


def test_confusions_are_counted_over_the_tasks_that_held_both(build: Callable[..., Path]) -> None:
    frame = answers(suites=[SUITES[0]])
    root = build(frame)
    evidence = classify(root)
    ours = frame[frame["method"] == "quickstudy"]
    taken: dict[tuple[int, int], int] = {}
    for given in ours["answers"]:
        for true, said in zip(np.arange(25) // 5, given, strict=True):
            if true != said:
                taken[true, said] = taken.get((true, said), 0) + 1
    found = confusions(evidence, "letters", most=99)
    names = [f"hello class {c}" for c in "abcde"]
    assert {(one.true, one.given): one.times for one in found} == {
        (names[a], names[b]): n for (a, b), n in taken.items()
    }
    assert [one.times for one in found] == sorted(taken.values(), reverse=True)
    assert {one.asked for one in found} == {5 * len(ours)}  # each episode has all five classes, and asks five times
    text, _ = card(root)
    first = found[0]
    assert f"{first.true} → {first.given}: {first.times} of {first.asked}" in text


def test_a_confusion_is_a_share_of_the_tasks_where_it_could_be(build: Callable[..., Path]) -> None:
    root = build(answers(suites=[SUITES[0]], shots=(1,), count=2, fractions={"quickstudy": 0.9}))
    path = root / "tasks/classify/episodes.parquet"
    episodes = pd.read_parquet(path)
    # the second episode has class a alone of the first one's: the others are of one class, asked under five numbers
    episodes.at[1, "support"] = np.array([0, EACH, EACH, EACH, EACH])
    episodes.to_parquet(path)
    answered = pd.read_parquet(root / "evaluate/classify/episodes.parquet")
    wrong = (np.arange(25) // 5).astype(np.uint16)
    wrong[-1] = 0  # one query of the last class is taken for the first
    answered["answers"] = pd.Series([wrong, wrong], dtype=object)
    answered.to_parquet(root / "evaluate/classify/episodes.parquet")
    (first, second) = confusions(classify(root), "letters")
    assert (first.true, first.given, first.times, first.asked) == ("hello class b", "hello class a", 1, 5 + 20)
    assert (second.true, second.given, second.times, second.asked) == ("hello class e", "hello class a", 1, 5)


def test_the_episodes_shown_are_the_typical_and_the_worst_of_the_weakest_suite(build: Callable[..., Path]) -> None:
    frame = answers(suites=EVERY, shots=(1, 5), count=6, fractions={"quickstudy": 0.9})
    for suite, shot, accuracies in (("letters", 1, [1, 0.4, 0.8, 0.72, 0.4, 1]), ("words", 1, [1] * 6)):
        chosen = (frame["suite"] == suite) & (frame["shot"] == shot)
        frame.loc[chosen, "score"] = accuracies
        for name, values in told(pd.Series(accuracies)).items():
            frame[name] = frame[name].where(~chosen, pd.Series(values.to_list(), index=frame.index[chosen]))
    root = build(frame, modalities=("image", "audio", "text"))
    images, texts = episodes_to_look_at(classify(root))  # of audio there was no mistake
    assert [(one.suite, one.number, one.why) for one in images] == [("letters", 3, "typical"), ("letters", 1, "worst")]
    assert images[1].answered == "10 of 25 right" and images[1].wrong.sum() == 15
    assert images[1].taught[2][0] != images[1].asked[2][0] and len(images[1].asked[4]) == 5
    assert texts[0].taught[1] == ["hello 10"] and texts[0].asked[1][0] == "hello 11"
    text, _ = card(root)
    shown = text[text.index("## Where it fails") :]
    assert "episodes 3 (typical, 18 of 25 right) and 1 (worst, 10 of 25 right)" in shown
    first = next(line for line in shown.splitlines() if line.startswith("- **hello class e**: hello 40"))
    assert first and "  - ✗ *hello class a*: hello 4" in shown


def test_an_evaluation_without_its_answers_has_no_such_sections(build: Callable[..., Path]) -> None:
    text, _ = card(build(answers().drop(columns=["answers", "confidences"])))
    assert "## Calibration" not in text and "## Where it fails" not in text and "calibration was not measured" in text


def test_pictures_that_do_not_compress_stay_below_a_megabyte(build: Callable[..., Path]) -> None:
    suites = [(f"letters/{i}", "image", "classes") for i in range(6)]
    root = build(answers(suites=suites, count=5), modalities=("image",), side=64)
    _, html = drawn(root)
    assert 300_000 < len(html.encode()) <= 1_000_000
    assert (root / "card/classify_episodes_image.png").exists()


# What it cost


def test_what_training_each_task_separately_would_have_cost(build: Callable[..., Path]) -> None:
    root = build(answers(count=4))
    (root / "meta_train/classify/training.json").write_text('{"seconds": 129.1, "steps": 6, "parameters": 7}')
    text, _ = card(root)
    part = text[text.index("### Training each task separately") :]
    assert ("would have cost 2.2 min" in part and "all of them in 0.9 s" in part) or "900 ms" in part
    assert "Meta-training itself took 2.2 min: after 100 tasks it has paid for itself" in part  # 1,291 ms saved by each
    frame = pd.read_parquet(root / "evaluate/classify/episodes.parquet").query("shot == 5")
    for line in table_after(text, "### Training each task separately"):
        pair = frame[frame["suite"] == line["suite"]].pivot(index="episode", columns="method", values="score")
        gained = 100 * (pair["quickstudy"] - pair["scratch"])
        mean, half = re.findall(r"[\d.]+", line["points"])
        assert float(mean) == pytest.approx(abs(gained.mean()), abs=0.051)
        low, high = student.interval(0.95, 3, loc=gained.mean(), scale=gained.std() / 2)
        assert float(half) == pytest.approx((high - low) / 2, abs=0.051)
        assert ("▲" in line["points"]) == (low > 0) and line["paid for after"] == "100 tasks"


def test_where_adapting_saves_no_time_it_is_said(build: Callable[..., Path]) -> None:
    frame = answers()
    frame.loc[frame["method"] == "quickstudy", "adapt_ms"] = 2000.0
    text, _ = card(build(frame))
    assert "which adapting does not save" in text
    assert {line["paid for after"] for line in table_after(text, "### Training each task separately")} == {"–"}


@pytest.mark.parametrize(
    ("told", "said", "unsaid"),
    [
        ({"cpu_wh": 0.5, "memory_wh": 0.25, "cpu_energy": "estimated"}, "0.75 Wh (processor 0.5 Wh", "counters"),
        (
            {"cpu_wh": 20, "gpu_wh": 1980, "memory_wh": 0, "cpu_energy": "measured"},
            "2 kWh",
            "an estimate from its load",
        ),
        ({}, "Energy was not measured", "| energy |"),
    ],
)
def test_time_and_energy(build: Callable[..., Path], told: dict, said: str, unsaid: str) -> None:
    root = build(answers())
    (root / "meta_train/classify/training.json").write_text(
        json.dumps({"seconds": 61.0, "cpu_seconds": 90.0, "steps": 6} | told)
    )
    text, _ = card(root)
    lines = {line["what"]: line["meta-training"] for line in table_after(text, "### What it cost")}
    assert lines["wall clock time"] == "1.0 min" and lines["processor time"] == "1.5 min"
    part = text[text.index("### What it cost") : text.index("## How to use it")]
    assert said in part and unsaid not in part
