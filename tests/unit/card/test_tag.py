"""What the card says of tagging is what the evaluation's answers say, counted again from them."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score

from quickstudy.card import read_parts, write_card
from quickstudy.card.results import weakest
from quickstudy.config import Episodes
from quickstudy.data.dataset import Dataset, DatasetInfo, make_table, write_dataset
from quickstudy.kinds.episodes import pool_of
from quickstudy.kinds.tag.score import byte_of, given_of, judge, probability_of
from quickstudy.kinds.tag.shown.cells import all_tags, by_number, by_tag, cells
from quickstudy.kinds.tag.shown.episodes import ShownEpisode, episodes_to_look_at
from quickstudy.kinds.tag.shown.figures import weakest_tags
from quickstudy.report.evidence import KindEvidence, evidence_folders, read_evidence
from quickstudy.report.words import plain
from quickstudy.tasks.frozen import FrozenEpisodes, freeze, targets_of
from quickstudy.tasks.suites import Suite
from tests.unit.card.reading import Page, card, table_after
from tests.unit.card.stages import leave

TAGS = ["air", "fire", "sea", "<b>*wood*</b>"]
HARD = "sea"
"""The tag that the model is worst at."""


def dataset(name: str, modality: str, content: Callable[[int], object]) -> Dataset:
    """Examples with one tag, two or three."""
    random = np.random.default_rng(3)
    targets = [sorted(random.permutation(TAGS)[: 1 + i % 3].tolist()) for i in range(60)]
    info = DatasetInfo(name=name, modality=modality, kind="tag", source="quickstudy.starter.messages")  # type: ignore[arg-type]
    table = make_table(modality, [content(i) for i in range(60)], targets, ["g"] * 60, kind="tag")  # type: ignore[arg-type]
    return Dataset(info, table)


def draw(data: Dataset, count: int) -> list[FrozenEpisodes]:
    pool = pool_of(data, np.ones(len(data), dtype=bool))
    settings = Episodes(count=count, shots=(1, 3), query=4, way=3, ways={})
    return freeze(Suite(f"{data.name}/all", "classes", pool), settings, seed=0)


def logits_of(data: Dataset, block: FrozenEpisodes) -> tuple[torch.Tensor, torch.Tensor]:
    """What a model might say that is often right, less often of the hard tag; and the truth."""
    _, truth = targets_of(data, block)
    generator = torch.Generator().manual_seed(block.episodes.shot)
    noise = 2.0 * torch.randn(truth.shape, generator=generator)
    names = np.array(sorted(TAGS))
    assert block.episodes.asked is not None
    hard = torch.from_numpy(names[block.episodes.asked.numpy()] == HARD)[:, None]
    return 3.0 * (truth - 0.5) + torch.where(hard, 2.5 * noise, noise), truth


def answered(data: Dataset, blocks: list[FrozenEpisodes]) -> pd.DataFrame:
    """The evaluation of that model, beside a baseline."""
    parts = []
    for block in blocks:
        about = {"kind": "tag", "suite": block.suite, "dataset": block.dataset, "modality": block.modality}
        about |= {"novelty": "classes", "way": block.episodes.way, "shot": block.episodes.shot, "query": 4}
        ours = pd.DataFrame(judge(*logits_of(data, block))).assign(method="quickstudy", adapt_ms=9.0)
        theirs = pd.DataFrame({"score": 0.4 + 0.2 * (np.arange(block.count) % 2)})
        for frame in (ours, theirs.assign(method="logreg_raw", adapt_ms=0.4)):
            parts.append(frame.assign(episode=np.arange(block.count), **about))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def texts() -> Dataset:
    return dataset("talk", "text", lambda i: f"message <i>{i}</i>")


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Path]:
    """The folder that the stages fill, with data beside it."""

    def make(data: Dataset, count: int = 20, keep: bool = True) -> Path:
        write_dataset(tmp_path / "data", data.info, data.table)
        blocks = draw(data, count)
        frame = answered(data, blocks)
        frame = frame if keep else frame.drop(columns="answers")
        leave(tmp_path / "build", blocks, frame, [data.name], [data.modality])
        return tmp_path / "build"

    return make


def evidence_of(build: Path) -> KindEvidence:
    return read_evidence("tag", evidence_folders(build, "tag"), build.parent / "data")


def test_answers_take_a_byte_and_keep_who_was_given_what() -> None:
    logits = torch.tensor([-1e9, -30.0, -1e-30, 0.0, 1e-30, 1e-9, 0.3, 30.0, 1e9])
    byte = byte_of(logits).numpy()
    assert byte.dtype == np.uint8 and given_of(byte).tolist() == (logits > 0).tolist()
    assert probability_of(byte) == pytest.approx(logits.double().sigmoid().numpy(), abs=1 / 256)
    assert (np.diff(byte.astype(int)) >= 0).all()


def test_an_evaluation_keeps_what_was_answered(texts: Dataset) -> None:
    for block in draw(texts, 5):
        logits, truth = logits_of(texts, block)
        told = judge(logits, truth)
        for answers, score, one, there in zip(told["answers"], told["score"], logits, truth, strict=True):
            given = given_of(answers).reshape(one.shape)
            assert (given == (one > 0).numpy()).all()
            assert f1_score(there.numpy().ravel(), given.ravel()) == pytest.approx(score)


def test_what_was_asked_and_given_is_found_again_on_disk(build: Callable[..., Path], texts: Dataset) -> None:
    found = cells(evidence_of(build(texts)))
    assert [cell.shot for cell in found] == [1, 3]
    for cell, block in zip(found, draw(texts, 20), strict=True):
        logits, truth = logits_of(texts, block)
        assert (cell.there == (truth > 0).numpy()).all() and (cell.given == (logits > 0).numpy()).all()
        assert cell.probability == pytest.approx(logits.double().sigmoid().numpy(), abs=1 / 256)


def test_each_tag_is_counted_over_the_episodes_that_ask_about_it(build: Callable[..., Path], texts: Dataset) -> None:
    root = build(texts)
    found = cells(evidence_of(root))
    table = by_tag(found).set_index(["shot", "tag"])
    for cell in found:
        for tag in TAGS:
            chosen = cell.asked == cell.names.index(tag)  # [E, N]
            there, given = (np.swapaxes(which, 1, 2)[chosen].ravel() for which in (cell.there, cell.given))
            assert table.loc[(cell.shot, tag), "f1"] == pytest.approx(f1_score(there, given))
            assert table.loc[(cell.shot, tag), "there"] == there.sum()
    (tags,) = weakest_tags(found).values()
    assert tags.index[0] == HARD and tags.loc[HARD].tolist() == [table.loc[(shot, HARD), "f1"] for shot in (1, 3)]
    text, _ = card(root)
    line = next(line for line in text.splitlines() if line.startswith("- **talk/all**"))
    sums = table.groupby("tag")[["there", "given", "hits"]].sum().loc[HARD]
    missed, wrong = sums["there"] - sums["hits"], sums["given"] - sums["hits"]
    assert f"{HARD}: {missed:,} of {sums['there']:,} missed" in line
    assert f"{wrong:,} of {sums['given']:,} wrong" in line


def test_whole_sets_by_the_number_of_tags(build: Callable[..., Path], texts: Dataset) -> None:
    root = build(texts)
    evidence = evidence_of(root)
    found = cells(evidence)
    table = by_number(found)
    assert table["queries"].sum() == sum(cell.there.shape[0] * cell.there.shape[1] for cell in found)
    own = evidence.episodes[evidence.episodes["method"] == "quickstudy"]
    for shot, part in table.groupby("shot"):
        mean = np.average(part["exact"], weights=part["queries"])
        assert mean == pytest.approx(own.loc[own["shot"] == shot, "exact"].mean())
        hits = sum((cell.there & cell.given).sum() for cell in found if cell.shot == shot)
        assert (part["recall"] * part["tags"] * part["queries"]).sum() == pytest.approx(hits)
    text, _ = card(root)
    for line in table_after(text, "## Whole sets of tags"):
        part = own[own["shot"] == int(line["examples"])]
        for name, column in (("micro F1", "score"), ("macro F1", "macro_f1"), ("whole sets", "exact")):
            assert float(line[name].split()[0]) == pytest.approx(100 * part[column].mean(), abs=0.0501)
    shown = table_after(text, "By the number of a task's tags")
    assert [(line["tags"], line["examples"]) for line in shown] == [(str(n), k) for n in (1, 2, 3) for k in ("1", "3")]


def test_giving_all_tags_is_what_it_says(build: Callable[..., Path], texts: Dataset) -> None:
    root = build(texts)
    evidence = evidence_of(root)
    for block, (_, row) in zip(draw(texts, 20), evidence.own.iterrows(), strict=True):
        _, truth = targets_of(texts, block)
        everything = judge(torch.ones(truth.shape), truth)["score"]
        assert all_tags(evidence, row) == pytest.approx(np.mean(everything))
    (part,) = read_parts(root, root.parent / "data", None)
    text, _ = card(root)
    assert f"where giving every question all tags gives {weakest(part).chance} %" in text


def test_probabilities_are_compared_with_how_often_tags_are_there(build: Callable[..., Path], texts: Dataset) -> None:
    root = build(texts)
    honest, _ = card(root)
    path = root / "evaluate/tag/episodes.parquet"
    frame = pd.read_parquet(path)
    frame["answers"] = frame["answers"].map(lambda kept: None if kept is None else np.full_like(kept, 250))
    frame.to_parquet(path)
    sure, _ = card(root)
    first, second = (table_after(text, "## Calibration")[0] for text in (honest, sure))
    there = 100 * np.mean([cell.there.mean() for cell in cells(evidence_of(root))])
    assert float(first["there, %"]) == float(second["there, %"]) == pytest.approx(there, abs=0.051)
    assert float(first["ECE"]) < float(second["ECE"]) == pytest.approx(100 * 250.5 / 256 - there, abs=0.051)
    assert "too sure of tags with text" in sure


def test_an_episode_in_words_marks_what_is_missed_and_what_is_wrong(build: Callable[..., Path], texts: Dataset) -> None:
    root = build(texts)
    evidence = evidence_of(root)
    ((typical, worst),) = episodes_to_look_at(evidence)
    own = evidence.episodes.query("method == 'quickstudy' and shot == 1").set_index("episode")["score"]
    assert (typical.why, worst.why) == ("typical", "worst")
    assert worst.score == own.min() == own[worst.number] and typical.score == own[typical.number]
    text, html = card(root)
    for episode in (typical, worst):
        title = {"typical": "A typical one with mistakes", "worst": "The worst"}[episode.why]
        shown = text[text.index(f"{title}, {episode.answered}") :].split("- asked")[1]
        lines = shown.strip("\n").split("\n\n")[0].splitlines()
        assert len(lines) == len(episode.shown_asked) <= 10
        for line, place in zip(lines, episode.shown_asked, strict=True):
            assert line.startswith("  - ✓") == bool(episode.right[place])
            has, got = ({episode.tags[i] for i in np.flatnonzero(of[place])} for of in (episode.there, episode.given))
            told = {"missed": has - got, "wrong": got - has}
            for name in TAGS:
                before = line[: line.find(f"*{plain(name)}*")] if f"*{plain(name)}*" in line else None
                assert (before is not None) == (name in has | got)
                if before is not None:
                    (mark,) = [what for what, names in told.items() if name in names] or [None]
                    assert (re.findall("missed|wrong", before) or [None])[-1] == mark
    page = Page(html)
    assert page.text.count("<b>*wood*</b>") > 4 and "message <i>1" in page.text
    assert not {tag for tag, _ in page.elements} & {"b", "i"}


def test_of_many_questions_those_with_most_mistakes_are_shown_and_some_that_were_right() -> None:
    there = np.ones((25, 3), dtype=bool)
    given = there.copy()
    given[:12, 0] = False
    given[5:7] = False
    episode = ShownEpisode("worst", "s", "text", 0, 0.5, ["a", "b", "c"], [""] * 9, [""] * 25, there[:9], there, given)
    places = episode.shown_asked
    assert len(places) == 10 and {5, 6} <= set(places) and places == sorted(places)
    assert episode.right[places].sum() == 3 and episode.right.sum() == 13
    few = replace(episode, there=there[:4], given=given[:4], asked=[""] * 4)
    assert few.shown_asked == [0, 1, 2, 3]


def test_pictures_are_drawn_with_their_tags(build: Callable[..., Path], png: Callable[..., bytes]) -> None:
    root = build(dataset("photos", "image", lambda i: png(i)))
    write_card(root, root / "card")
    text = (root / "card/card.md").read_text(encoding="utf-8")
    links = set(re.findall(r"\]\((\w+\.png)\)", text))
    assert links == {path.name for path in (root / "card").glob("*.png")}
    assert {"tag_score.png", "tag_tags.png", "tag_calibration.png", "tag_episodes_image.png"} <= links
    alternative = next(line for line in text.splitlines() if "tag_episodes_image.png" in line)
    assert "Images of an episode with their tags" in alternative and "missed" in alternative


def test_an_evaluation_without_its_answers_still_has_its_metrics(build: Callable[..., Path], texts: Dataset) -> None:
    text, _ = card(build(texts, keep=False))
    assert "## Whole sets of tags" in text and "## Calibration" not in text and "## Where it fails" not in text
    assert "calibration was not measured" in text and "By the number" not in text
    assert "where giving every question all tags gives" in text


def test_the_words_are_those_of_tags(build: Callable[..., Path], texts: Dataset) -> None:
    text, _ = card(build(texts))
    assert "learns a tagging task it has never seen" in text and "tasks with 3 tags each" in text
    assert {"1 example", "3 examples", "tags"} <= set(table_after(text, "### New tags")[0])
    assert "tags" in table_after(text, "## What it learned from")[0]
    words = re.sub(r"`.*?`", "", text.split("## How to use it")[0]).lower()
    assert not re.search(r"accuracy|\bway|\bshot", words)
    assert "written by a small grammar" in text and "with one example a tag" in text
