"""The stages of several kinds, as DVC has them and as `quickstudy.versions.stale` tells them, in a real repository."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from quickstudy.data.dataset import DatasetInfo, make_table, write_dataset
from quickstudy.versions import dvc, stale
from tests.toy.project import REPOSITORY, run_git

PIPELINE = """
stages:
  tasks:
    foreach: ${kinds}
    do:
      cmd: mkdir -p build/tasks/${key} && python manifest.py ${key}
      deps: [data, manifest.py]
      params: ["kinds.${key}"]
      outs: ["build/tasks/${key}/data.json"]
  meta_train:
    foreach: ${kinds}
    do:
      cmd: mkdir -p build/model && cat build/tasks/${key}/data.json > build/model/${key} && echo ${key} >> trained
      deps: ["build/tasks/${key}/data.json"]
      params: [seed]
      outs:
        - build/model/${key}:
            desc: of ${key}
  evaluate:
    foreach: [classify, tag]
    do:
      cmd: mkdir -p build/evaluate && cat build/model/${item} > build/evaluate/${item}
      deps: ["build/model/${item}"]
      metrics:
        - build/evaluate/${item}:
            cache: false
  card:
    cmd: cat build/evaluate/* > build/card
    deps: [build/evaluate]
    outs: [build/card]
"""
MANIFEST = """
import sys
from pathlib import Path
from quickstudy.data.manifest import write_manifest

write_manifest(Path("build/tasks", sys.argv[1], "data.json"), Path("data"), sys.argv[1])
"""


def run_dvc(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def add(root: Path, name: str, kind: str, examples: int = 4) -> None:
    labels = [f"class {i % 2}" for i in range(examples)]
    targets = labels if kind == "classify" else [[label] for label in labels]
    table = make_table("text", [f"text {i}" for i in range(examples)], targets, labels, kind=kind)
    write_dataset(root / "data", DatasetInfo(name=name, modality="text", kind=kind), table)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two kinds with a dataset each, nothing built."""
    root = tmp_path / "a project"
    (root / ".dvc").mkdir(parents=True)
    for name in (".dvc/config", ".dvcignore", ".gitignore"):
        (root / name).write_text((REPOSITORY / name).read_text())
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "manifest.py").write_text(MANIFEST)
    (root / "params.yaml").write_text(yaml.safe_dump({"seed": 0, "kinds": {"classify": {}, "tag": {"seed": 3}}}))
    add(root, "letters", "classify")
    add(root, "topics", "tag")
    run_git(root, "init", "--quiet", "--initial-branch=main")
    return root


def bring_up_to_date(root: Path) -> dict[str, str]:
    return {stage.name: dvc.repro(root, stage.name, lambda line: None) for stage in stale.stages(root)}


def trained(root: Path) -> list[str]:
    return (root / "trained").read_text().split()


def test_the_stages_are_those_that_dvc_has_by_the_same_names_in_an_order_that_it_takes(project: Path) -> None:
    dvc.add_data(project)
    names = [stage.name for stage in stale.stages(project)]
    assert sorted(names) == sorted(run_dvc(project, "stage", "list", "--name-only").split())
    assert names[-1] == "card" and len(names) == 7
    assert sorted(json.loads(run_dvc(project, "status", "--json"))) == sorted(names) == sorted(stale.stale(project))
    by_name = {stage.name: stage for stage in stale.stages(project)}
    assert by_name["meta_train@tag"].after == ("tasks@tag",) and by_name["evaluate@tag"].after == ("meta_train@tag",)
    assert by_name["tasks@tag"].params == ("kinds.tag",) and by_name["meta_train@tag"].outs == ("build/model/tag",)
    assert set(by_name["card"].after) == {"evaluate@classify", "evaluate@tag"}
    assert bring_up_to_date(project) == dict.fromkeys(names, "ran") and stale.stale(project) == {}
    assert json.loads(run_dvc(project, "status", "--json")) == {}
    planned = re.findall(r"Running stage '(\S+)'", run_dvc(project, "repro", "--dry", "--force"))
    assert sorted(planned) == sorted(names)
    assert all(planned.index(before) < planned.index(name) for name in names for before in by_name[name].after)
    recorded = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert sorted(recorded) == sorted(names)
    for name, stage in by_name.items():  # each reads and writes what we say it does
        assert [dep["path"] for dep in recorded[name]["deps"]] == sorted(stage.deps)
        assert [out["path"] for out in recorded[name]["outs"]] == sorted(stage.outs)


def test_the_repositorys_stages_are_those_that_dvc_has(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    for name in (".dvc/config", "dvc.yaml", "params.yaml"):
        (tmp_path / name).write_text((REPOSITORY / name).read_text())
    run_git(tmp_path, "init", "--quiet")
    listed = run_dvc(tmp_path, "stage", "list", "--name-only").split()
    assert sorted(stage.name for stage in stale.stages(tmp_path)) == sorted(listed)


def test_data_of_one_kind_leaves_what_the_others_made_of_theirs_up_to_date(project: Path) -> None:
    dvc.add_data(project)
    bring_up_to_date(project)
    assert trained(project) == ["classify", "tag"]

    add(project, "more-topics", "tag")
    for version in (False, True):  # whether the data has a version already or not
        if version:
            dvc.add_data(project)
        found = stale.stale(project)
        told = set(json.loads(run_dvc(project, "status", "--json"))) - {"data.dvc"}
        assert told == {name for name, reasons in found.items() if reasons == ("data changed",)}
        assert found.pop("data", None) == (None if version else ("data/ differs from data.dvc",))
        assert found == {
            "tasks@classify": ("data changed",),
            "tasks@tag": ("data changed",),
            "meta_train@tag": ("after tasks@tag",),
            "evaluate@tag": ("after meta_train@tag",),
            "card": ("after evaluate@tag",),
        }
    before = {path: path.read_bytes() for path in (project / "build").rglob("classify") if path.is_file()}
    done = bring_up_to_date(project)
    assert (done["tasks@classify"], done["meta_train@classify"], done["evaluate@classify"]) == (
        "ran",
        "up to date",
        "up to date",
    )
    assert {done[f"{stage}@tag"] for stage in ("tasks", "meta_train", "evaluate")} == {"ran"} and done["card"] == "ran"
    assert trained(project) == ["classify", "tag", "tag"] and stale.stale(project) == {}
    assert len(before) == 2 and all(path.read_bytes() == content for path, content in before.items())
    assert json.loads(run_dvc(project, "status", "--json")) == {}

    # The same dataset with one example more is another one to its own kind.
    add(project, "letters", "classify", examples=5)
    dvc.add_data(project)
    found = stale.stale(project)
    assert "meta_train@classify" in found and "meta_train@tag" not in found
    bring_up_to_date(project)
    assert trained(project) == ["classify", "tag", "tag", "classify"]


def test_what_a_kind_sets_makes_its_own_stages_stale_alone(project: Path) -> None:
    dvc.add_data(project)
    bring_up_to_date(project)
    (project / "params.yaml").write_text(yaml.safe_dump({"seed": 0, "kinds": {"classify": {}, "tag": {"seed": 4}}}))
    found = stale.stale(project)
    assert found["tasks@tag"] == ("kinds.tag.seed: 3 → 4",) and not any(name.endswith("@classify") for name in found)


def test_a_kind_that_is_new_in_the_settings_has_stages_that_never_ran(project: Path) -> None:
    dvc.add_data(project)
    bring_up_to_date(project)
    kinds = {"classify": {}, "tag": {"seed": 3}, "regress": {}}
    (project / "params.yaml").write_text(yaml.safe_dump({"seed": 0, "kinds": kinds}))
    assert stale.stale(project) == {
        "tasks@regress": ("never ran",),
        "meta_train@regress": ("never ran", "after tasks@regress"),
    }
    assert bring_up_to_date(project)["meta_train@regress"] == "ran" and trained(project)[-1] == "regress"
