"""The grid, what the table says of made-up answers, which cell is recommended, and a picture that can be read."""

import math
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import style
from scipy.stats import ttest_rel

import quickstudy.comparison.timing
from quickstudy.comparison.grid import Cell, Change, freeze_all, grid, learners, validation_suites
from quickstudy.comparison.page import headings, markdown, sentence, texts
from quickstudy.comparison.picture import png, tradeoff
from quickstudy.comparison.table import Cost, Recommendation, recommend, tabulate
from quickstudy.comparison.timing import time_adaptation
from quickstudy.config import Model, Settings
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.report.style import STYLE
from quickstudy.tasks.frozen import FrozenEpisodes
from quickstudy.tasks.splits import row_splits

# The grid


def test_the_grid_is_every_learner_as_it_is_and_with_each_change(tiny: Settings) -> None:
    names = get_args(Model.model_fields["learner"].annotation)
    assert learners() == names and {"protonet", "adapt"} <= set(names)
    assert [cell.name for cell in grid(tiny, [], [])] == list(names)
    cells = grid(tiny, ["adapt", "protonet", "adapt"], ["model.width=8", "train.shots=[1, 5]"])
    assert [cell.name for cell in cells] == [
        "adapt",
        "protonet",
        "adapt with model.width=8",
        "protonet with model.width=8",
        "adapt with train.shots=[1, 5]",
        "protonet with train.shots=[1, 5]",
    ]


def test_a_cell_is_trained_with_what_it_says(tiny: Settings) -> None:
    _, deep, wide, shots = grid(
        tiny, ["protonet"], ["model.encoders.image=resnet12", "model.width=8", "train.shots=[1, 5]"]
    )
    assert dict(deep.settings(tiny, 0).model.encoders) == dict(tiny.model.encoders) | {"image": "resnet12"}
    plain = tiny.model_dump()
    plain["model"] |= {"learner": "protonet", "width": 8}
    assert wide.settings(tiny, tiny.seed).model_dump() == plain
    assert shots.settings(tiny, 7).train.shots == (1, 5) and shots.settings(tiny, 7).seed == 7
    assert tiny.model.width == 4 and tiny.seed == 0


@pytest.mark.parametrize(
    ("names", "changes", "said"),
    [
        (["mam"], [], "--learner: unknown learner 'mam'. There are: "),
        ([], ["model.widht=8"], "--set model.widht=8: unknown parameter 'model.widht'. Known here: "),
        ([], ["model.nothing.there=8"], "unknown parameter 'model.nothing'. Known here: "),
        ([], ["model.width.of=8"], "unknown parameter 'model.width.of'"),
        ([], ["model.encoders.picture=x"], "unknown parameter 'model.encoders.picture'. Known here: "),
        ([], ["model.encoders.image=resnet"], "model.encoders.image = 'resnet': input should be 'conv4'"),
        ([], ["nothing=8"], "--set nothing=8: unknown parameter 'nothing'. Known here: seed, splits"),
        ([], ["=8"], "--set =8: is not KEY=VALUE"),
        ([], ["model.width=2"], "model.width = 2: input should be greater than or equal to 4"),
        ([], ["model.width="], "model.width = None: input should be a valid integer"),
        ([], ["model.width=[1"], "is not YAML"),
        ([], ["model.width"], "--set model.width: is not KEY=VALUE. For example --set model.width=32"),
        ([], ["model.learner=adapt"], "Say --learner adapt"),
        ([], ["splits.key=x"], "splits is the same for all cells, as they answer the same episodes"),
        ([], ["episodes.count=9"], "episodes is the same for all cells"),
        ([], ["seed=3"], "seed is the same for all cells"),
        ([], ["model.width=4"], "--set model.width=4: adds nothing: params.yaml has it so"),
        ([], ["model.width=8", "model.width= 8"], "adds nothing: it is the same as --set model.width=8"),
    ],
)
def test_a_mistake_is_one_line(tiny: Settings, names: list[str], changes: list[str], said: str) -> None:
    with pytest.raises(QuickstudyError) as caught:
        grid(tiny, names, changes)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def rows_of(frozen: list[FrozenEpisodes]) -> set[int]:
    return {int(row) for b in frozen for row in torch.cat([b.episodes.support.flatten(), b.episodes.query.flatten()])}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_episodes_are_of_the_side_that_is_asked_for(toys, tiny: Settings, split: str) -> None:
    pins = {"group 0": "test", "group 1": "train", "group 2": "validation"}
    dataset = toys("image", classes=9, each=6, meta_split=pins)
    frozen = freeze_all([dataset], tiny, split)  # type: ignore[arg-type]
    side, _ = row_splits(dataset, tiny.splits)
    assert {side[row] for row in rows_of(frozen)} == {split}
    assert [(b.suite, b.episodes.shot, b.count) for b in frozen] == [("toys", 1, 6), ("toys", 2, 6)]
    again = freeze_all([dataset], tiny, split)  # type: ignore[arg-type]
    for one, other in zip(frozen, again, strict=True):
        assert torch.equal(one.episodes.support, other.episodes.support)


def test_an_episode_that_stays_within_a_group_has_a_suite_a_group(toys, tiny: Settings) -> None:
    pins = {"group 0": "validation", "group 1": "train", "group 2": "validation"}
    dataset = toys("text", classes=9, each=6, meta_split=pins, episode_scope="group")
    suites = validation_suites(dataset, tiny)
    assert [suite.name for suite in suites] == ["toys/group 0", "toys/group 2"]
    groups = np.array(dataset.column("group"))
    assert [set(groups[suite.pool.rows.numpy()]) for suite in suites] == [{"group 0"}, {"group 2"}]


def test_without_episodes_it_says_what_to_do(toys, tiny: Settings) -> None:
    with pytest.raises(QuickstudyError, match="meta-validation side with enough examples"):
        freeze_all([toys("text", meta_split="train")], tiny, "validation")


# The table

STRATA = [("audio", "sounds", 1), ("image", "pictures", 1), ("image", "pictures", 5), ("image", "letters", 1)]
COUNT = 30


def made_up(means: dict[str, float], seeds: int = 1) -> pd.DataFrame:
    """Answers of cells by their mean score; all share the luck of an episode, as they do when they answer it."""
    random = np.random.default_rng(5)
    parts = []
    for modality, suite, shot in STRATA:
        luck = random.normal(0, 0.1, COUNT)
        for place, (cell, mean) in enumerate(means.items()):
            for seed in range(seeds):
                frame = pd.DataFrame({"episode": np.arange(COUNT)})
                frame["score"] = mean + 0.02 * shot + luck + random.normal(0, 0.01, COUNT)
                frame["adapt_ms"] = np.where(frame["episode"] < 3, 10.0 * (place + 1) + frame["episode"], np.nan)
                frame = frame.assign(cell=cell, seed=seed, modality=modality, suite=suite, shot=shot)
                parts.append(frame if modality == "image" else frame.assign(adapt_ms=2 * frame["adapt_ms"]))
    return pd.concat(parts, ignore_index=True)


CELLS = [Cell("protonet"), Cell("adapt"), Cell("adapt", Change("model.width", 8, "model.width=8"))]
COSTS = {cell.name: [Cost(30.0, 1000, 500.0), Cost(50.0, 1000, math.nan)] for cell in CELLS}


def test_the_table_says_what_the_episodes_say() -> None:
    episodes = made_up({"protonet": 0.6, "adapt": 0.7}).sample(frac=1, random_state=0)  # in whatever order
    table = tabulate(CELLS, episodes, COSTS, {CELLS[2].name: "no such luck"})
    assert table["cell"].tolist() == ["adapt", "protonet", CELLS[2].name]
    best, other, failed = (row for _, row in table.iterrows())
    means = {}
    for name, row in (("adapt", best), ("protonet", other)):
        own = episodes[episodes["cell"] == name]
        strata = {
            key: own[(own["modality"] == key[0]) & (own["suite"] == key[1]) & (own["shot"] == key[2])] for key in STRATA
        }
        means[name] = {key: part["score"].mean() for key, part in strata.items()}
        images = [mean for key, mean in means[name].items() if key[0] == "image"]
        assert row["score_image"] == pytest.approx(sum(images) / 3)
        assert row["score_audio"] == pytest.approx(means[name]["audio", "sounds", 1])
        assert row["score"] == pytest.approx((row["score_image"] + row["score_audio"]) / 2)
        assert (row["trainings"], row["episodes"], row["train_seconds"], row["parameters"]) == (1, 120, 40, 1000)
        assert math.isnan(row["peak_mib"]) and row["failure"] == ""
    assert best["difference"] == 0 and other["difference"] == pytest.approx(other["score"] - best["score"])
    assert other["adapt_ms_image"] == 11 and other["adapt_ms_audio"] == 22 and other["adapt_ms"] == 16.5
    assert failed["failure"] == "no such luck" and math.isnan(failed["score"]) and failed["change"] == "model.width=8"


def test_differences_are_paired_by_the_episode() -> None:
    episodes = made_up({"protonet": 0.6, "adapt": 0.604})
    episodes = episodes[episodes["suite"] == "sounds"]
    row = tabulate(CELLS[:2], episodes.sample(frac=1, random_state=1), COSTS, {}).set_index("cell").loc["protonet"]
    wide = episodes.pivot(index="episode", columns="cell", values="score")
    low, high = ttest_rel(wide["protonet"], wide["adapt"]).confidence_interval(0.95)
    assert row["difference"] - row["difference_ci95"] == pytest.approx(low, abs=1e-12)
    assert row["difference"] + row["difference_ci95"] == pytest.approx(high, abs=1e-12)
    assert row["difference_ci95"] < row["ci95"] / 4  # the luck of the episodes is the same for both


def test_the_luck_of_trainings_widens_the_interval() -> None:
    episodes = made_up({"protonet": 0.6, "adapt": 0.62}, seeds=3)
    lucky = episodes.copy()
    lucky["score"] += 0.05 * (lucky["seed"] - 1) * np.where(lucky["cell"] == "adapt", 1, -1)
    calm, wild = (tabulate(CELLS[:2], frame, COSTS, {}).set_index("cell") for frame in (episodes, lucky))
    assert calm.loc["protonet", "trainings"] == 3
    assert wild.loc["protonet", "difference"] == pytest.approx(calm.loc["protonet", "difference"])
    assert recommend(calm.reset_index()).equals == () and recommend(wild.reset_index()).equals == ("protonet",)


def test_cells_that_answered_other_episodes_are_not_compared() -> None:
    episodes = made_up({"protonet": 0.6, "adapt": 0.7})
    lost = episodes[(episodes["cell"] == "adapt") | (episodes["suite"] != "sounds")]
    with pytest.raises(ValueError, match="answered other episodes"):
        tabulate(CELLS[:2], lost, COSTS, {})


# The recommendation


def ranked(*rows: tuple[str, float, float, float, float], failed: str = "") -> pd.DataFrame:
    """Cells by name, score, difference to the best, its half interval and milliseconds."""
    columns = ["cell", "score", "difference", "difference_ci95", "adapt_ms"]
    table = pd.DataFrame(rows, columns=columns).assign(
        failure="", ci95=0.01, train_seconds=60.0, parameters=1000, peak_mib=500.0, trainings=1, episodes=120
    )
    table["learner"] = table["cell"].str.partition(" with ")[0]
    table["change"] = table["cell"].str.partition(" with ")[2]
    if failed:
        table = pd.concat([table, pd.DataFrame([{"cell": failed, "failure": "why not", "score": math.nan}])])
    return table


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        # the fastest of those whose interval holds 0, not the fastest of all
        ([("a", 0.90, 0.0, 0.0, 50), ("b", 0.89, -0.01, 0.012, 20), ("c", 0.80, -0.1, 0.01, 5)], ("a", ("b",), "b")),
        # the best itself where it is the fastest
        ([("a", 0.90, 0.0, 0.0, 10), ("b", 0.89, -0.01, 0.02, 20)], ("a", ("b",), "a")),
        # the best alone where all are worse
        ([("a", 0.90, 0.0, 0.0, 90), ("b", 0.89, -0.01, 0.002, 20)], ("a", (), "a")),
        # an interval that ends at 0 holds it; equally fast: the more accurate
        ([("a", 0.90, 0.0, 0.0, 20), ("b", 0.89, -0.01, 0.01, 20)], ("a", ("b",), "a")),
        # in whatever order; a time that is missing is no fast one; a width that is not known is no reason
        (
            [("c", 0.88, -0.02, 0.03, math.nan), ("d", 0.88, -0.02, math.nan, 1), ("a", 0.90, 0.0, 0.0, 20)],
            ("a", ("c",), "a"),
        ),
    ],
)
def test_the_fastest_that_is_not_worse_is_recommended(rows: list[Any], found: tuple[Any, ...]) -> None:
    assert recommend(ranked(*rows, failed="z")) == Recommendation(*found)


def test_the_sentence_says_how_to_set_it(tiny: Settings) -> None:
    wide = CELLS[2].name
    table = ranked(("protonet", 0.9, 0, 0, 50), (wide, 0.89, -0.01, 0.02, 20), ("adapt", 0.5, -0.4, 0.02, 1))
    base = tiny.model_copy(
        update={"model": tiny.model.model_copy(update={"learner": "protonet"}), "kinds": {"classify": {}}}
    )
    said = sentence(table, recommend(table), CELLS, base, "classify")
    assert said == (
        "protonet is best (90.0 ± 1.0%), adapt with model.width=8 is not significantly worse, and the fastest of these "
        "is adapt with model.width=8 (20 ms a task): set model.learner: adapt and model.width: 8 in params.yaml."
    )
    alone = ranked(("adapt", 0.9, 0, 0, 50), ("protonet", 0.5, -0.4, 0.02, 1))
    assert sentence(alone, recommend(alone), CELLS, base.model_copy(update={"model": tiny.model}), "classify") == (
        "adapt is best (90.0 ± 1.0%) and all the others are significantly worse: params.yaml has it so already."
    )
    single = ranked(("adapt", 0.9, 0, 0, 50), failed="protonet")
    assert sentence(single, recommend(single), CELLS, base, "classify") == (
        "adapt reaches 90.0 ± 1.0%; there is nothing to compare it with."
    )
    several = base.model_copy(update={"kinds": {"classify": {}, "tag": {}}})  # what is best for one may not be for all
    assert sentence(table, recommend(table), CELLS, several, "tag").endswith(
        ": set model.learner: adapt and model.width: 8 under kinds.tag in params.yaml."
    )


def test_the_page_has_a_row_a_cell_and_tells_what_failed() -> None:
    episodes = made_up({"protonet": 0.6, "adapt": 0.7})
    table = tabulate(CELLS, episodes, COSTS, {CELLS[2].name: "params.yaml: *no*"})
    page = markdown(table, episodes, "adapt is best.", "micro F1", "test", 6)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 4 and rows[2].startswith("| 1 | adapt |") and rows[3].startswith("| 2 | protonet |")
    assert {row.count("|") for row in rows} == {len(headings(table)) + 1}
    accuracy = table.set_index("cell").loc["protonet", "score"]
    assert f"| {100 * accuracy:.1f} ± " in rows[3] and "−" in rows[3] and "16 ms" in rows[3] and "40.0 s" in rows[3]
    assert "adapt with model.width=8 failed: params.yaml: \\*no\\*" in page and "can no longer be judged" in page
    assert "meta-test with 1, 5 shots: sounds, pictures, letters" in page
    assert "![Micro F1 against the time to adapt](compare.png)" in page and "\n\nMicro F1 in percent ± half" in page
    assert "can no longer" not in markdown(table, episodes, "", "accuracy", "validation", 6)
    assert all(len(texts(row)) == len(headings(table)) for _, row in table[table["failure"] == ""].iterrows())


# The times


def test_the_cells_adapt_in_turn_to_the_first_tasks_of_each_block(toys, tiny: Settings, monkeypatch) -> None:
    pictures = toys("image", classes=6, each=6, name="pictures", meta_split="validation")
    sounds = toys("audio", classes=4, each=6, name="sounds", meta_split="validation")
    models = {name: MetaModel(tiny.inputs, tiny.model, ["image", "audio"]).eval() for name in ("one", "two")}
    asked = []
    real = quickstudy.comparison.timing.learn

    def spy(model, modality, examples, labels, digest):
        asked.append((next(name for name in models if models[name] is model), modality, examples, labels))
        return real(model, modality, examples, labels, digest)

    monkeypatch.setattr(quickstudy.comparison.timing, "learn", spy)
    frozen = freeze_all([pictures, sounds], tiny, "validation")
    told: list[tuple[int, int]] = []
    times = time_adaptation(models, {"pictures": pictures, "sounds": sounds}, frozen, 2, lambda *at: told.append(at))
    assert [name for name, *_ in asked] == ["one", "two"] * (4 * 2 + 2)  # two tasks a block; one a modality to warm up
    for (_, *first), (_, *second) in zip(asked[::2], asked[1::2], strict=True):
        assert first == second
    block = frozen[1]  # of two shots
    assert asked[8][2] == pictures.raw(block.episodes.support[1].flatten().numpy())
    assert asked[8][3] == ["0", "0", "1", "1", "2", "2"]
    assert times.groupby(["cell", "suite", "shot"])["episode"].apply(list).to_dict() == {
        (cell, suite, shot): [0, 1] for cell in models for suite in ("pictures", "sounds") for shot in (1, 2)
    }
    assert (times["adapt_ms"] > 0).all() and told == [(i + 1, 16) for i in range(16)]


# The picture


@pytest.mark.parametrize("crowd", [1, 3, 14, 40])
def test_labels_cover_neither_one_another_nor_a_marker(crowd: int) -> None:
    random = np.random.default_rng(crowd)
    cells = [f"learner {i}" + " with model.encoders.image=resnet12" * (i % 2) for i in range(crowd)]
    times = 12 + random.gamma(1, 8, crowd)
    rows = [(cell, 0.9 - 0.002 * i, -0.002 * i, 0.01, times[i]) for i, cell in enumerate(cells)]
    table = ranked(*rows, failed="z")
    table["train_seconds"], table["ci95"] = random.uniform(20, 900, len(table)), 0.004
    with style.context(["default", STYLE]):
        figure, labels = tradeoff(table, recommend(table), "micro F1", "meta-validation")
    assert "Micro F1 on meta-validation tasks against the time to adapt" in [text.get_text() for text in figure.texts]
    names = [f"learner {i}" + ", image=resnet12" * (i % 2) for i in range(crowd)]
    said = [label.get_text() for label in labels]
    if crowd <= 14:
        assert said == names
    else:  # where there is no room for a name, the number of its row
        assert all(text in (name, str(i + 1)) for i, (text, name) in enumerate(zip(said, names, strict=True)))
    (panel, *_) = figure.axes
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [label.get_window_extent(renderer) for label in labels]
    frame = panel.get_window_extent(renderer)
    for i, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[:i])
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    for _, ms, accuracy in table[["cell", "adapt_ms", "score"]].dropna().itertuples(index=False):
        x, y = panel.transData.transform((ms, accuracy))
        assert not any(box.contains(x, y) for box in boxes)


def test_the_same_table_gives_the_same_picture() -> None:
    table = ranked(("a", 0.90, 0.0, 0.0, 50), ("b", 0.89, -0.01, 0.012, 20))
    first, second = (png(table, recommend(table), "accuracy", "meta-validation") for _ in range(2))
    assert first == second and first.startswith(b"\x89PNG")
