"""`quickstudy gate`: two saved models, their answers to the same episodes, and the verdict."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from quickstudy import registry
from quickstudy.config import Settings
from quickstudy.data.dataset import make_table, write_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import contenders
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import load_model, save_model
from quickstudy.pipeline import evaluate, inputs, tasks
from quickstudy.versions import dvc, stale

Run = Callable[..., tuple[int, str, str]]
PINS = {"group 0": "train", "group 1": "test", "group 2": "validation"}


def save(
    folder: Path, settings: Settings, seed: int, modalities: set[str], groups: list[str], kind: str = "classify"
) -> None:
    torch.manual_seed(seed)
    model = MetaModel(settings.inputs, settings.model, modalities, kind)
    save_model(model, folder, {"trained_on": {"toys": groups}})


@pytest.fixture
def two(run: Run, workspace: Path, tiny_params: dict[str, Any], toys, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose registry has two versions: folders of untrained models that differ in their weights."""
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    tiny_params = copy.deepcopy(tiny_params)
    tiny_params["episodes"]["count"], tiny_params["evaluate"]["timed_episodes"] = 8, 2
    (workspace / "params.yaml").write_text(yaml.safe_dump(tiny_params))
    settings = Settings.model_validate(tiny_params)
    dataset = toys("image", classes=12, each=8, meta_split=PINS)
    write_dataset(workspace / "data", dataset.info, dataset.table)
    for number in (1, 2):
        save(workspace / f"versions/{number}", settings, number, {"image"}, ["group 0"])
    save(workspace / "build/model", settings, 2, {"image"}, ["group 0"])
    tasks.tasks("classify")
    evaluate.evaluate("classify")

    def version(root: Path, name: str) -> registry.Version:
        number = {"champion": 1, "challenger": 2}.get(name) or int(name)
        return registry.Version(number, (), "", "", {}, {}, {})

    monkeypatch.setattr(registry, "version", version)
    monkeypatch.setattr(registry, "resolve", lambda uri, root: root / "versions" / uri.rpartition("/")[2])
    monkeypatch.setattr(stale, "stale", lambda root: {})
    monkeypatch.setattr(dvc, "data_hash", lambda root: "d" * 32)
    return workspace


def test_both_answer_the_same_episodes_and_every_rule_is_told(run: Run, two: Path) -> None:
    code, out, _ = run("gate", "--json")
    verdict = json.loads(out)
    assert code == {"PROMOTE": 0, "HOLD": 3, "REJECT": 4}[verdict["answer"]]
    assert (verdict["challenger"], verdict["champion"], verdict["episodes"]) == ("version 2", "version 1", 8)
    names = [rule["name"].split()[0] for rule in verdict["rules"]]
    assert names == ["accuracy", "dataset", "calibration", "latency", "memory", "baseline"]
    assert all(rule["gain"] is not None for rule in verdict["rules"])
    folder = two / ".cache/gate/2-against-1"
    assert json.loads((folder / "verdict.json").read_text()) == verdict
    new, old = (pd.read_parquet(folder / f"{who}.parquet") for who in ("challenger", "champion"))
    evaluated = pd.read_parquet(two / "build/evaluate/classify/episodes.parquet")
    evaluated = evaluated[evaluated["method"] == "quickstudy"]  # by the model of version 2
    keys = ["suite", "shot", "episode"]
    for name in ("score", "nll"):
        ours, theirs = (f.set_index(keys).sort_index()[name] for f in (new, evaluated))
        np.testing.assert_allclose(ours, theirs)
    gain = (new.set_index(keys)["score"] - old.set_index(keys)["score"]).mean()
    assert verdict["rules"][0]["gain"] == pytest.approx(gain) and gain != 0
    timed = new.dropna(subset="adapt_ms")
    assert set(timed["episode"]) == {0, 1} and len(timed) == 4  # evaluate.timed_episodes of each cell
    assert old.dropna(subset="adapt_ms")[keys].to_numpy().tolist() == timed[keys].to_numpy().tolist()

    code, out, _ = run("gate")
    said = " ".join(out.split())
    assert verdict["sentence"] in said and f"accuracy {100 * gain:+.2f} points" in said


def test_the_model_in_build_gets_a_card_with_the_champion(run: Run, two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    monkeypatch.setattr("quickstudy.pipeline.gate.write_card", lambda *where, gate: written.append((*where, gate)))
    (two / "build/card").mkdir()
    (two / "versions/2/lineage.json").write_text('{"git_commit": "c0ffee"}')  # of the run, as the registry keeps it
    folder = Path(".cache/gate/2-against-1")
    run("gate")
    assert written == [(Path("build"), folder / "card", folder)]
    assert (folder / "lineage.json").read_bytes() == (two / "versions/2/lineage.json").read_bytes()
    run("gate", "1", "--against", "2")  # version 1 is not the one in build/
    assert len(written) == 1


def test_what_was_answered_is_not_answered_again(run: Run, two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    real = contenders.answers

    def answers(model: Any, subjects: Any, frozen: Any, start: int, stop: int, progress: Any) -> pd.DataFrame:
        asked.append((start, stop))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(model, subjects, frozen, start, stop, progress)

    monkeypatch.setattr(contenders, "answers", answers)
    assert run("gate")[0] == 130
    assert run("gate")[0] in (0, 3, 4) and asked == [(0, 8)] * 3  # one kept, one cut off, that one anew
    first = json.loads((two / ".cache/gate/2-against-1/verdict.json").read_text())
    assert run("gate")[0] in (0, 3, 4) and len(asked) == 3
    assert json.loads((two / ".cache/gate/2-against-1/verdict.json").read_text()) == first


def test_until_settled_is_the_same_evidence_step_by_step(run: Run, two: Path) -> None:
    run("gate")
    whole = pd.read_parquet(two / ".cache/gate/2-against-1/challenger.parquet")
    params = yaml.safe_load((two / "params.yaml").read_text())
    params["gate"] |= {"looks": 3, "over": "episodes", "score": "non-inferior", "margin": 0.0}
    (two / "params.yaml").write_text(yaml.safe_dump(params))
    for path in (two / ".cache/gate").glob("answers-*"):
        path.unlink()
    run("gate")
    steps = json.loads((two / ".cache/gate/2-against-1/verdict.json").read_text())
    assert steps["planned"] == 8 and steps["looks"] == sorted(steps["looks"]) and steps["looks"][0] == 3
    found = pd.read_parquet(two / ".cache/gate/2-against-1/challenger.parquet")
    keys = ["suite", "shot", "episode"]
    part = whole[whole["episode"] < steps["looks"][-1]].set_index(keys)["score"]
    pd.testing.assert_series_equal(found.set_index(keys)["score"].sort_index(), part.sort_index())


def test_the_models_take_turns_when_they_are_timed(
    two: Path, tiny_params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from quickstudy.evaluation.answers import Subject
    from quickstudy.tasks.frozen import read_episodes

    frozen = read_episodes(Path("build/tasks/classify/episodes.parquet"), "classify")
    models = [load_model(Path(f"versions/{number}"), "classify") for number in (1, 2)]
    order, real = [], contenders.adapt_ms

    def adapt_ms(model: Any, *rest: Any) -> float:
        order.append(models.index(model))
        return real(model, *rest)

    monkeypatch.setattr(contenders, "adapt_ms", adapt_ms)
    subjects = {name: Subject(dataset, np.zeros(0)) for name, dataset in inputs.read_datasets("classify").items()}
    times = contenders.time_together(models, subjects, frozen, 3)
    assert order == [0, 1, 1, 0, 0, 1] * 2 and len(times) == 6 and (times[[0, 1]] > 0).all(axis=None)


def test_what_cannot_be_compared_is_one_line(
    run: Run, two: Path, tiny_params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: str) -> str:
        code, out, err = run("gate", *arguments)
        line = err.splitlines()[-1]
        assert (code, out) == (2, "") and line.startswith("quickstudy: "), (code, out, err)
        assert not (two / ".cache/gate/2-against-1/verdict.json").exists()
        return line

    assert "models:/quickstudy/1: is the champion: it would be compared with itself" in refused("1")
    settings = Settings.model_validate(yaml.safe_load((two / "params.yaml").read_text()))
    save(two / "versions/1", settings, 1, {"image", "audio"}, ["group 0"])
    assert "version 1: not comparable: the champion is from before a change of modalities" in refused()
    save(two / "versions/1", settings, 1, {"image"}, ["group 0", "group 1"])
    assert "version 1: it was trained on meta-test groups of toys: group 1" in refused()
    config = two / "versions/1/classify/config.yaml"
    config.write_text(config.read_text().replace("format: 2", "format: 1"))
    assert "version 1: not comparable: the champion is from before a change of format" in refused()
    (two / "versions/1/classify/lineage.json").write_text("{}")
    assert "version 1: does not say what it is or was trained on" in refused()
    monkeypatch.setattr(stale, "stale", lambda root: {"data": ("data/ differs from data.dvc",)})
    assert "its evidence would be older than what is here now (data: data/ differs from data.dvc)" in refused()
    assert "quickstudy run" in refused()


def test_without_a_champion_the_baselines_are_asked_alone(run: Run, two: Path) -> None:
    code, out, _ = run("gate", "--against", "none", "--json")
    verdict = json.loads(out)
    assert verdict["champion"] is None and [rule["name"].split()[0] for rule in verdict["rules"]] == ["baseline"]
    assert code in (0, 3, 4)


def test_a_damaged_model_is_told(two: Path) -> None:
    (two / "versions/2/classify/config.yaml").unlink()
    with pytest.raises(QuickstudyError, match="version 2: does not say what it is"):
        contenders.contender("version 2", two / "versions/2", "classify", "", "")


# Several kinds of task


@pytest.fixture
def with_tags(run: Run, two: Path, toys, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same project with a dataset of kind tag; of version 1 both parts are others than those of version 2."""
    params = yaml.safe_load((two / "params.yaml").read_text())
    params["kinds"] = {"classify": {}, "tag": {}}
    (two / "params.yaml").write_text(yaml.safe_dump(params))
    plain = toys("image", classes=12, each=8, name="marks")
    classes, groups = plain.column("label"), plain.column("group")
    tags = [[name, "often"] if i % 2 else [name] for i, name in enumerate(classes)]
    info = plain.info.model_copy(update={"kind": "tag", "meta_split": PINS})
    table = make_table("image", plain.raw(np.arange(len(plain))), tags, groups, kind="tag")
    write_dataset(two / "data", info, table)
    settings = Settings.model_validate(params)
    for number in (1, 2):
        save(two / f"versions/{number}", settings, number, {"image"}, ["group 0"], "tag")
    save(two / "build/model", settings, 2, {"image"}, ["group 0"], "tag")
    monkeypatch.setattr(tasks, "check_datasets", lambda *about, **how: [])  # the gate reads no findings
    tasks.tasks("tag")
    evaluate.evaluate("tag")
    return two


def test_every_kind_is_judged_and_all_of_them_together(
    run: Run, with_tags: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run("gate", "--json")
    verdict = json.loads(out)
    assert code == {"PROMOTE": 0, "HOLD": 3, "REJECT": 4}[verdict["answer"]], err
    assert set(verdict["kinds"]) == {"classify", "tag"} and verdict["datasets"] == ["marks", "toys"]
    names = [rule["name"] for rule in verdict["rules"] if rule["kind"] == "tag" and "superior" not in rule["name"]]
    assert names[:2] == ["tag: micro F1", "tag: dataset marks"] and names[-1].startswith("tag: baseline ")
    assert all(rule["gain"] is not None for rule in verdict["rules"])
    folder = with_tags / ".cache/gate/2-against-1"
    for kind, rule in (("classify", "classify: accuracy"), ("tag", "tag: micro F1")):
        new, old = (pd.read_parquet(folder / f"{who}.parquet") for who in ("challenger", "champion"))
        new, old = (frame[frame["kind"] == kind].set_index(["suite", "shot", "episode"]) for frame in (new, old))
        (gain,) = (found["gain"] for found in verdict["rules"] if found["name"] == rule)
        assert gain == pytest.approx((new["score"] - old["score"]).mean()) and gain != 0
        evaluated = pd.read_parquet(with_tags / f"build/evaluate/{kind}/episodes.parquet")
        evaluated = evaluated[evaluated["method"] == "quickstudy"].set_index(["suite", "shot", "episode"])
        np.testing.assert_allclose(new["score"].sort_index(), evaluated["score"].sort_index())
    _, out, _ = run("gate")
    assert "tag: micro F1" in out and "classify: dataset toys" in out

    # A part that did not change answers nothing, whatever the layout of before there were kinds.
    def forbidden(model: Any, *rest: Any) -> pd.DataFrame:
        assert model.kind == "tag"
        return real(model, *rest)

    real = contenders.answers
    monkeypatch.setattr(contenders, "answers", forbidden)
    for path in (with_tags / ".cache/gate").glob("*.parquet"):
        path.unlink()
    old_layout(with_tags / "versions/1", like=with_tags / "versions/2/classify")
    code, out, err = run("gate", "--json")
    verdict = json.loads(out)
    (rule,) = (rule for rule in verdict["rules"] if rule["kind"] == "classify")
    assert (rule["gain"], rule["low"], rule["high"], rule["state"]) == (0, 0, 0, "passed"), err
    assert [rule["name"].split()[1] for rule in verdict["rules"] if rule["kind"] == "tag"] == ["baseline"]
    assert set(pd.read_parquet(folder / "challenger.parquet")["kind"]) == {"tag"}
    assert len(pd.read_parquet(folder / "champion.parquet")) == 0


def old_layout(folder: Path, like: Path) -> None:
    """Make a model of before there were kinds: its files lie in the folder itself, and its settings name no kind."""
    files = {path.name: path.read_bytes() for path in like.iterdir()}
    shutil.rmtree(folder)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["kind"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def test_an_older_champion_answers_beside_a_challenger_of_today(run: Run, two: Path) -> None:
    old_layout(two / "versions/1", like=two / "versions/1/classify")
    code, out, err = run("gate", "--json")
    verdict = json.loads(out)
    assert code in (0, 3, 4) and verdict["kinds"].keys() == {"classify"}, err
    assert [rule["name"].split()[0] for rule in verdict["rules"]][:2] == ["accuracy", "dataset"]
    assert verdict["rules"][0]["gain"] != 0


def test_a_kind_that_would_be_lost_is_told_and_not_asked(run: Run, with_tags: Path) -> None:
    shutil.rmtree(with_tags / "versions/2/tag")
    code, out, _ = run("gate")
    said = " ".join(out.split())
    assert code == 4 and said.startswith("REJECT Reject version 2: ") and "part tag lost kept failed" in said
    assert "it has no part for tag, which version 1 has" in said and "--approve" in said
    assert not any("tag" in set(pd.read_parquet(path)["kind"]) for path in Path(".cache/gate").glob("answers-*"))


def test_without_episodes_of_a_kind_it_is_one_line(run: Run, with_tags: Path) -> None:
    shutil.rmtree(with_tags / "data/marks")
    tasks.tasks("tag")
    code, out, err = run("gate")
    assert (code, out) == (2, "") and err.count("\n") >= 1
    assert "version 2, tag: there are no episodes of tag that it could be judged on" in err.splitlines()[-1]
