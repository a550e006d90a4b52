"""What was recorded before there were kinds of task, and what is today, side by side: `quickstudy diff`, verdicts."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quickstudy import registry
from quickstudy.cli.gate import show_verdict

Run = Callable[..., tuple[int, str, str]]

OLD = {
    "evaluate/digits.5-shot.accuracy": 0.90,
    "evaluate/digits.5-shot.ci95": 0.01,
    "evaluate/digits.5-shot.episodes": 600.0,
    "evaluate/phrasebook/cooking.1-shot.accuracy": 0.5,
    "evaluate/mean_accuracy": 0.7,
    "evaluate/below_a_baseline": 2.0,
    "meta_train/loss": 0.25,
    "train/loss": 0.26,
    "live/loss": 0.3,
}
NEW = {
    "evaluate/classify/digits.5-shot.score": 0.93,
    "evaluate/classify/digits.5-shot.ci95": 0.02,
    "evaluate/classify/digits.5-shot.episodes": 600.0,
    "evaluate/classify/phrasebook/cooking.1-shot.score": 0.55,
    "evaluate/classify/mean_score": 0.74,
    "evaluate/classify/below_a_baseline": 0.0,
    "evaluate/tag/messages.1-shot.score": 0.625,
    "evaluate/tag/mean_score": 0.65,
    "meta_train/classify/loss": 0.2,
    "train/classify/loss": 0.21,
}


@pytest.fixture
def two(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, registry.Version]:
    """Version 1 is from before there were kinds, version 2 of today."""
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    parameters: list[dict[str, str]] = [{"gate.accuracy": "superior", "seed": "0"}]
    parameters.append({"gate.score": "superior", "seed": "1"})
    versions = {
        str(number): registry.Version(number, (), "2026-03-03", "", {}, parameters[number - 1], metrics)
        for number, metrics in ((1, OLD), (2, NEW))
    }
    monkeypatch.setattr(registry, "version", lambda root, name: versions[name])
    return versions


def rows(out: str) -> list[str]:
    return [" ".join(row.split()) for row in out.splitlines()]


def test_an_old_version_and_a_new_one_stand_in_one_row(run: Run, two: dict[str, registry.Version]) -> None:
    code, out, _ = run("diff", "1", "2")
    assert code == 0
    for row in (
        "classify/digits.5-shot 90.0 ± 1.0 % 93.0 ± 2.0 % +3.0 points",
        "classify/phrasebook/cooking.1-shot 50.0 % 55.0 % +5.0 points",
        "classify/mean_score 70.0 % 74.0 % +4.0 points",
        "classify/below_a_baseline 2 0 -2",
        "tag/messages.1-shot – 62.5 %",
        "meta_train/classify/loss 0.25 0.2 -0.05",
    ):
        assert row in rows(out), out
    assert "accuracy" not in out and "live" not in out
    code, out, _ = run("diff", "2", "1", "--json")
    told = json.loads(out)
    assert {"name": "evaluate/classify/digits.5-shot.score", "a": 0.93, "b": 0.9} in told["metrics"]
    assert {"name": "gate.score", "a": "superior", "b": "superior"} in told["parameters"]
    assert len(told["metrics"]) == len(NEW)


def test_what_an_old_version_answered_since_is_what_counts(run: Run, two: dict[str, registry.Version]) -> None:
    two["1"].metrics["evaluate/classify/digits.5-shot.score"] = 0.91  # type: ignore[index]
    code, out, _ = run("diff", "1", "2")
    assert code == 0 and "classify/digits.5-shot 91.0 ± 1.0 % 93.0 ± 2.0 % +2.0 points" in rows(out)


def test_a_verdict_of_before_there_were_kinds_is_shown_as_it_was() -> None:
    rule = {"name": "accuracy", "unit": "points", "gain": 0.012, "low": 0.004, "high": 0.02, "limit": 0.0}
    record: dict[str, Any] = {
        "answer": "PROMOTE",
        "sentence": "Promote version 7.",
        "rules": [rule | {"state": "passed", "more_episodes": None, "more_datasets": None}],
        "confidence": 0.95,
        "datasets": ["words"],
        "episodes": 600,
    }
    console = Console(file=io.StringIO(), width=120)
    show_verdict(console, record)
    show_verdict(console, record | {"kinds": {"classify": "HOLD", "tag": "PROMOTE"}, "episodes": 0})
    said = console.file.getvalue()  # type: ignore[attr-defined]
    before, today = said.split("Promote version 7.")[1:]
    assert "accuracy +1.20 points +0.40 to +2.00 above 0 passed" in " ".join(before.split())
    assert "600 episodes" in before and "classify" not in before
    assert "classify: HOLD, tag: PROMOTE" in today and "no part of the model changed" in today
