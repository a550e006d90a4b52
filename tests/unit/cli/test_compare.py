"""`quickstudy compare` by its command line, over two datasets so small that a training takes a second."""

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from rich.console import Console

import quickstudy.model.metamodel
import quickstudy.pipeline.compare
from quickstudy.cli.compare import _shown
from quickstudy.data.dataset import Dataset, DatasetInfo, make_table, write_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.model.store import load_model, part_digest, weights_digest
from quickstudy.pipeline.judging import judging_files
from quickstudy.tasks.frozen import FrozenEpisodes
from quickstudy.training import loop

Run = Callable[..., tuple[int, str, str]]

PINS = {"group 0": "test", "group 1": "train", "group 2": "validation"}
BOTH = ("compare", "--learner", "protonet", "--learner", "adapt")
WRITTEN = ("compare.md", "compare.png", "episodes.parquet", "table.csv")


@pytest.fixture
def datasets(toys) -> dict[str, Dataset]:
    made = (
        toys("image", classes=12, each=6, name="pictures", meta_split=PINS),
        toys("audio", classes=9, each=5, name="sounds", meta_split=PINS),
    )
    return {dataset.name: dataset for dataset in made}


@pytest.fixture
def run(run: Run, workspace: Path, tiny_params: dict[str, Any], datasets: dict[str, Dataset]) -> Run:
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    (workspace / "params.yaml").write_text(yaml.safe_dump(tiny_params))
    for dataset in datasets.values():
        write_dataset(Path("data"), dataset.info, dataset.table)
    return run


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every meta-batch that is drawn."""
    drawn: list[int] = []
    real = loop.draw_tasks

    def draw(*arguments):
        drawn.append(1)
        return real(*arguments)

    monkeypatch.setattr(loop, "draw_tasks", draw)
    return drawn


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[FrozenEpisodes]]]:
    """What `evaluate` was asked: the learner and the episodes."""
    calls: list[tuple[str, list[FrozenEpisodes]]] = []
    real = quickstudy.pipeline.compare.evaluate

    def spy(model, subjects, frozen, *rest):
        calls.append((model.shape.learner, list(frozen)))
        return real(model, subjects, frozen, *rest)

    monkeypatch.setattr(quickstudy.pipeline.compare, "evaluate", spy)
    return calls


def written(folder: str = "build/compare") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def sides(datasets: dict[str, Dataset], frozen: list[FrozenEpisodes]) -> set[str]:
    found = set()
    for block in frozen:
        groups = datasets[block.dataset].column("group")
        for rows in (block.episodes.support, block.episodes.query):
            found |= {PINS[groups[row]] for row in rows.flatten().tolist()}
    return found


def test_all_cells_answer_the_same_meta_validation_episodes(run: Run, datasets, judged) -> None:
    code, out, err = run(*BOTH, "--set", "model.width=8")
    assert (code, err) == (0, ""), err
    cells = ["protonet", "adapt", "protonet with model.width=8", "adapt with model.width=8"]
    assert sorted(written()) == sorted(WRITTEN) and all(cell in out for cell in cells)
    assert [learner for learner, _ in judged] == ["protonet", "protonet", "adapt", "adapt"] * 2
    first, others = judged[0][1] + judged[1][1], [judged[i][1] + judged[i + 1][1] for i in (2, 4, 6)]
    assert sides(datasets, first) == {"validation"}
    assert [(b.suite, b.episodes.shot) for b in first] == [
        ("pictures", 1),
        ("pictures", 2),
        ("sounds", 1),
        ("sounds", 2),
    ]
    for frozen in others:
        for one, other in zip(first, frozen, strict=True):
            assert torch.equal(one.episodes.support, other.episodes.support)
            assert torch.equal(one.episodes.query, other.episodes.query)
    episodes = pd.read_parquet("build/compare/episodes.parquet")
    assert episodes.groupby("cell").size().to_dict() == dict.fromkeys(cells, 2 * 2 * 6)
    table = pd.read_csv("build/compare/table.csv").set_index("cell")
    by_suite = episodes.groupby(["cell", "modality", "shot"])["score"].mean()
    assert set(table.index) == set(cells)
    assert episodes.groupby("cell")["adapt_ms"].count().to_dict() == dict.fromkeys(cells, 2 * 2 * 1)
    for cell in cells:
        assert table.loc[cell, "score"] == pytest.approx(by_suite[cell].mean(), abs=1e-5)
        assert table.loc[cell, "train_seconds"] > 0 and table.loc[cell, "adapt_ms"] > 0
    wide, narrow = table.loc["adapt with model.width=8", "parameters"], table.loc["adapt", "parameters"]
    assert wide > narrow > table.loc["protonet", "parameters"]
    assert (table["difference"] < 1e-12).all() and table["score"].is_monotonic_decreasing
    assert " is best (" in out.splitlines()[-2] and "params.yaml" in out.splitlines()[-2]


def test_what_is_finished_is_neither_trained_nor_judged_again(run: Run, steps: list[int], judged) -> None:
    assert run(*BOTH)[0] == 0
    assert (len(steps), len(judged)) == (2 * 6, 2 * 2)
    before = written()
    assert run(*BOTH)[0] == 0 and written() == before
    assert (len(steps), len(judged)) == (2 * 6, 2 * 2)
    # One more cell is one more training; other episodes are no more training.
    times = list(Path(".cache/compare").glob("times-*"))
    assert run(*BOTH, "--set", "model.width=8", "--learner", "adapt")[0] == 0 and len(steps) == 4 * 6
    assert len(times) == 1 and len(list(Path(".cache/compare").glob("times-*"))) == 2  # all were timed anew
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["episodes"]["count"] = 4
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert run(*BOTH, "--out", "elsewhere")[0] == 0 and len(steps) == 4 * 6
    assert len(judged) == 12 and len(pd.read_parquet("elsewhere/episodes.parquet")) == 2 * 4 * 4
    assert written() != before and not list(Path(".cache/compare").rglob("checkpoint*"))


def models() -> dict[str, str]:
    """The learner of every trained cell and what its weights are."""
    folders = [path.parents[1] for path in Path(".cache/compare").rglob("model.safetensors")]
    return {load_model(folder, "classify").shape.learner: weights_digest(folder, "classify") for folder in folders}


def test_a_training_that_was_stopped_goes_on(run: Run, steps: list[int], judged, monkeypatch, tmp_path) -> None:
    def stop(*arguments):
        if len(steps) == 6 + 5:  # in the second cell, two steps after its checkpoint
            raise KeyboardInterrupt
        return counted(*arguments)

    counted = loop.draw_tasks
    monkeypatch.setattr(loop, "draw_tasks", stop)
    code, out, err = run(*BOTH)
    assert (code, out) == (130, "") and "stopped; the next run goes on" in err and not Path("build").exists()
    monkeypatch.setattr(loop, "draw_tasks", counted)
    assert run(*BOTH)[0] == 0
    assert len(steps) == 6 + 5 + 3 and len(judged) == 4  # the three steps after the checkpoint of step 3
    stopped = models()
    Path(".cache/compare").rename(tmp_path / "stopped")
    assert run(*BOTH)[0] == 0 and models() == stopped and set(stopped) == {"protonet", "adapt"}


def test_judging_that_was_stopped_goes_on(run: Run, steps: list[int], judged, monkeypatch) -> None:
    spy = quickstudy.pipeline.compare.evaluate

    def stop(model, subjects, *rest):
        if "sounds" in subjects:
            raise KeyboardInterrupt
        return spy(model, subjects, *rest)

    monkeypatch.setattr(quickstudy.pipeline.compare, "evaluate", stop)
    assert run(*BOTH)[0] == 130 and len(judged) == 1
    monkeypatch.setattr(quickstudy.pipeline.compare, "evaluate", spy)
    assert run(*BOTH)[0] == 0 and len(steps) == 2 * 6
    assert [frozen[0].suite for _, frozen in judged] == ["pictures", "sounds", "pictures", "sounds"]


def test_a_cell_is_trained_as_the_stage_trains(run: Run) -> None:
    assert run("compare", "--learner", "adapt")[0] == 0
    assert run("tasks")[0] == run("meta_train")[0] == 0
    assert models() == {"adapt": weights_digest(Path("build/model"), "classify")}


def test_a_cell_that_fails_is_told_and_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = quickstudy.model.metamodel.make_learner

    def refuse(shape, *rest):
        if shape.learner == "protonet":
            raise QuickstudyError("cannot be served by | this encoder", where="model.learner")
        return real(shape, *rest)

    monkeypatch.setattr(quickstudy.model.metamodel, "make_learner", refuse)
    code, out, err = run(*BOTH)
    told = "model.learner: cannot be served by | this encoder"
    assert code == 0 and f"protonet is left out: {told}" in err and f"protonet failed: {told}" in out
    table = pd.read_csv("build/compare/table.csv").set_index("cell")
    assert table.loc["protonet", "failure"] == told and pd.isna(table.loc["protonet", "score"])
    assert pd.isna(table.loc["adapt", "failure"]) and "adapt reaches " in out
    assert "protonet failed: model.learner: cannot be served by \\| this encoder" in Path(
        "build/compare/compare.md"
    ).read_text(encoding="utf-8")
    before = written()
    code, out, err = run("compare", "--learner", "protonet")
    assert (code, out) == (2, "") and f"none of the cells has a result; protonet: {told}" in err.splitlines()[-1]
    assert written() == before


def test_a_learner_and_a_change_that_do_not_go_together_are_a_failed_cell(run: Run, monkeypatch) -> None:
    import quickstudy.comparison.grid as grid

    real = grid.changed

    def strict(settings, parameter, value, where=None):
        if parameter == "model.width" and settings.model.learner == "protonet":
            raise QuickstudyError("not with this learner")
        return real(settings, parameter, value, where)

    monkeypatch.setattr(grid, "changed", strict)
    code, _, err = run(*BOTH, "--set", "model.width=8")
    assert code == 0 and "protonet with model.width=8 is left out: not with this learner" in err
    assert len(pd.read_csv("build/compare/table.csv")) == 4


def test_each_seed_is_a_training_of_its_own_on_the_same_tasks(run: Run, judged, datasets) -> None:
    code, out, _ = run("compare", "--learner", "protonet", "--seeds", 2, "--steps", 3, "--split", "test")
    assert code == 0 and "meta-test" in out
    (_, first), _, (_, second), _ = judged
    assert sides(datasets, first) == {"test"}
    assert all(torch.equal(a.episodes.query, b.episodes.query) for a, b in zip(first, second, strict=True))
    folders = [path.parent for path in Path(".cache/compare").rglob("model.safetensors")]
    assert len({part_digest(folder) for folder in folders}) == len(folders) == 2
    episodes = pd.read_parquet("build/compare/episodes.parquet")
    assert episodes.groupby("seed").size().to_dict() == {0: 24, 1: 24}
    row = pd.read_csv("build/compare/table.csv").iloc[0]
    assert row["trainings"] == 2 and row["episodes"] == 24
    page = Path("build/compare/compare.md").read_text(encoding="utf-8")
    assert "trained for 3 steps" in page and "2 trainings of each cell" in page and "can no longer be judged" in page


def refused(run: Run, *arguments: object) -> str:
    before = sorted(str(path) for path in Path().rglob("*"))
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("quickstudy: "), (code, out, err)
    assert sorted(str(path) for path in Path().rglob("*")) == before
    return err


def test_mistakes_are_one_line_before_anything_is_trained(run: Run, tiny_params: dict[str, Any]) -> None:
    assert "--learner: unknown learner 'mamle'. There are: " in refused(run, "compare", "--learner", "mamle")
    assert "unknown parameter 'model.widht'. Known here: " in refused(run, "compare", "--set", "model.widht=8")
    assert "model.width = 'many'" in refused(run, "compare", "--set", "model.width=many")
    Path("file").touch()
    assert "file: is no folder. Name another --out" in refused(run, *BOTH, "--out", "file")
    params = copy.deepcopy(tiny_params)
    params["episodes"]["shots"] = [50]
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert "no dataset has a group on the meta-validation side with enough examples" in refused(run, *BOTH)


def test_a_damaged_cell_says_what_to_delete(run: Run, steps: list[int]) -> None:
    assert run(*BOTH)[0] == 0
    damaged = next(path for path in Path(".cache/compare").rglob("model.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-8])
    code, out, err = run(*BOTH)
    assert code == 0 and "is damaged" in err and f"{damaged.parents[2]}: " in err and "Delete the folder" in err
    assert len(steps) == 12 and "failed: " in out
    for judgement in Path(".cache/compare").rglob("judged-*"):  # of these a damaged one is only made anew
        judgement.write_bytes(b"PAR1")
    for path in damaged.parents[2].rglob("*.*"):
        path.unlink()
    code, out, err = run(*BOTH)
    assert code == 0 and err == "" and "failed" not in out and len(steps) == 18


def test_learners_are_compared_on_the_datasets_of_a_kind(run: Run, judged, toys) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["kinds"] = {"classify": {}, "tag": {"train": {"steps": 3}}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert "data: there is no dataset of kind tag. Import one: quickstudy data import" in refused(
        run, "compare", "--kind", "tag"
    )
    assert "Did you mean tag?" in refused(run, "compare", "--kind", "tags")
    plain = toys("image", classes=12, each=6)
    tags = [[name, "often"] if i % 2 else [name] for i, name in enumerate(plain.column("label"))]
    table = make_table("image", plain.raw(np.arange(len(plain))), tags, plain.column("group"), kind="tag")
    write_dataset(Path("data"), DatasetInfo(name="marks", modality="image", kind="tag", meta_split=PINS), table)
    code, out, err = run(*BOTH, "--kind", "tag")
    assert (code, err) == (0, "") and "Micro F1 on meta-validation tasks" in out
    assert {block.dataset for _, frozen in judged for block in frozen} == {"marks"}
    page = Path("build/compare/compare.md").read_text(encoding="utf-8")
    assert "trained for 3 steps" in page and "Micro F1 in percent" in page
    if "set " in out.splitlines()[-2]:
        assert "under kinds.tag in params.yaml" in out.splitlines()[-2]
    episodes = pd.read_parquet("build/compare/episodes.parquet")
    table = pd.read_csv("build/compare/table.csv").set_index("cell")
    by_shot = episodes.groupby(["cell", "shot"])["score"].mean()
    assert {"macro_f1", "nll"} <= set(episodes.columns)
    assert all(table.loc[cell, "score"] == pytest.approx(by_shot[cell].mean(), abs=1e-5) for cell in table.index)


def test_what_was_judged_by_other_code_is_judged_anew(run: Run, steps: list[int], judged, monkeypatch) -> None:
    assert run("compare", "--learner", "protonet")[0] == 0 and len(judged) == 2
    monkeypatch.setattr(quickstudy.pipeline.compare, "judging_code", lambda kind: f"edited {kind}")
    assert run("compare", "--learner", "protonet")[0] == 0 and len(judged) == 4 and len(steps) == 6


def test_the_code_that_judges_is_what_the_stage_depends_on() -> None:
    source = Path(quickstudy.pipeline.compare.__file__).parents[2]
    stage = yaml.safe_load((source.parent / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["evaluate"]["do"]
    others = ("data", "pipeline", "stats")  # arrays are known by their digest; the rest comes after the answers
    for kind in ("classify", "tag"):
        covered = set(judging_files(kind))
        for place in [source.parent / dep.replace("${key}", kind) for dep in stage["deps"] if dep.startswith("src")]:
            if place.relative_to(source).parts[1] not in others:
                assert covered.issuperset(place.glob("*.py") if place.is_dir() else [place]), place
        other = {"classify": "tag", "tag": "classify"}[kind]
        assert not any(path.parent.name == other for path in covered)


@pytest.mark.parametrize(("width", "last"), [(60, "adapts in"), (80, "image"), (200, "memory")])
def test_a_narrow_terminal_shows_what_matters_most(width: int, last: str) -> None:
    row = {"cell": "incontext with model.encoders.image=resnet12", "difference": -0.01, "difference_ci95": 0.02}
    row |= {f"{what}{m}": 0.5 for what in ("score", "ci95") for m in ("", "_audio", "_image", "_text")}
    row |= {"adapt_ms": 20.0, "train_seconds": 100.0, "parameters": 10**6, "peak_mib": 900.0, "failure": ""}
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(_shown(pd.DataFrame([row]), row["cell"], "title", console))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[1].rstrip().endswith(last) and max(map(len, lines)) <= width
    assert "".join(line[2:26].split()[0] for line in lines[2:] if line[2:26].strip()).startswith("incontext")
    assert "…" not in "".join(lines)
