"""The flow of a rebuild, and its verbs as a person calls them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from quickstudy import registry
from quickstudy.versions import dvc

pytestmark = pytest.mark.usefixtures("prefect", "served")


def test_rebuild_a_version_and_look_at_its_lineage(
    with_flows: Path, answer: Callable[..., tuple[int, str, str]]
) -> None:
    root = with_flows
    dvc.add_data(root)
    for stage in ("tasks@classify", "meta_train@classify"):
        dvc.repro(root, stage, lambda line: None)
    registry.register(root)

    code, _, err = answer(root, "reproduce", "7")
    assert (code, err.count("\n")) == (2, 1) and "models:/quickstudy/7: there is no such version" in err
    code, out, err = answer(root, "reproduce", "1", "--check")
    assert (code, err) == (0, "") and "It can be rebuilt: quickstudy reproduce models:/quickstudy/1" in out
    assert not list((root / ".cache/reproduce").glob("*/worktree"))

    durations = root / ".cache/durations.json"
    durations.write_text('{"tasks": 1000.0}')
    code, out, err = answer(root, "reproduce", "champion")
    assert code == 0, err
    assert [line.split()[1] for line in err.splitlines() if line.startswith("✓")] == [
        "record",
        "worktree",
        "data",
        "tasks@classify",
        "meta_train@classify",
        "verdict",
    ]
    assert out.splitlines()[0].startswith("IDENTICAL  models:/quickstudy/1, built again from commit ")
    assert json.loads(durations.read_text()) == {"tasks": 1000.0}  # `plan` tells what runs took, not rebuilds

    # Other code than the model's: a new version, whose record does not lead to it.
    text = (root / "stage.py").read_text()
    (root / "stage.py").write_text(text.replace('str(params["seed"])', '"another"'))
    (root / "build/model/classify/config.yaml").write_text("dimension: 9\n")
    registry.register(root)
    code, out, err = answer(root, "reproduce", "2", "--json")
    found = json.loads(out)
    assert code == 1 and found["answer"] == "DIFFERENT", err
    assert found["where"][0].startswith("tasks@classify: reads stage.py: ")
    code, out, _ = answer(root, "reproduce", "2")
    assert code == 1 and out.startswith("DIFFERENT") and "What differs from the record" in out

    code, out, err = answer(root, "lineage", "1", "--picture", "chain.svg")
    assert code == 0, err
    order = [line.split()[1] for line in out.splitlines() if line.startswith(("├── ", "└── "))]
    assert order == ["data", "tasks", "parameters", "code", "environment", "run", "version", "promotions"]
    assert "version 1 @champion" in out and "@champion none → 1 (register by " in out and "message  start" in out
    assert (root / "chain.svg").read_text().startswith("<?xml")
    code, out, _ = answer(root, "lineage", "2", "--json")
    chain = json.loads(out)
    assert chain["code"]["git_dirty"] and "stage.py" in chain["code"]["git_changed"]
    assert chain["data"]["version"] == dvc.data_hash(root) and chain["version"]["aliases"] == ["challenger"]
    assert chain["promotions"]["moves"][0]["moves"] == [{"alias": "challenger", "origin": None, "target": 2}]
    shutil.rmtree(root / ".git")
    code, _, err = answer(root, "lineage", "runs:/0")
    assert code == 2 and "runs:/0: there is no such run" in err
