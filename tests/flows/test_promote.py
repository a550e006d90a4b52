"""The flows of promotion, and their verbs as a person calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

from flows import promote as flow
from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.registry import store

pytestmark = pytest.mark.usefixtures("prefect", "served")

QUICKSTUDY = str(Path(sys.executable).parent / "quickstudy")


def answer(root: Path, *arguments: str) -> tuple[int, str, str]:
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value() or "", "COLUMNS": "160"}
    done = subprocess.run([QUICKSTUDY, *arguments], cwd=root, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def train_again(root: Path) -> None:
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("\nseed: 0", "\nseed: 1"))
    metrics = {"words@domain": {"5-shot": {"accuracy": 0.97, "ci95": 0.01}}}
    (root / "build/evaluate/metrics.json").write_text(json.dumps(metrics))
    subprocess.run([sys.executable, "stage.py", "meta_train"], cwd=root, check=True, capture_output=True)


def test_promote_roll_back_and_read_about_it(
    with_flows: Path, built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = built
    assert root == with_flows
    registry.register(root)
    for words, line in (
        (("promote",), "models:/quickstudy@challenger: no version has it"),
        (("rollback", "--reason", "slow"), "nothing to roll back to: no version was champion before"),
        (("promote", "7", "--approve", "--reason", "better"), "models:/quickstudy/7: there is no such version"),
        (("diff", "1", "2"), "models:/quickstudy/2: there is no such version"),
        (("history", "--accept", "--reason", "a test"), "the ledger is whole"),
    ):
        code, out, err = answer(root, *words)
        assert (code, out, err.count("\n")) == (2, "", 1) and line in err, (words, err)
    train_again(root)
    registry.register(root)
    code, _, err = answer(root, "promote", "2")
    assert code == 2 and "version 2 instead of version 1: nobody has approved it" in err
    code, _, err = answer(root, "promote", "2", "--approve")
    assert code == 2 and "a person's word needs a reason" in err
    assert registry.aliases(root) == {"champion": 1, "challenger": 2}

    code, out, err = answer(root, "promote", "--approve", "--reason", "it hears children")
    assert code == 0, err
    assert out.splitlines() == [
        "@champion  version 1 → version 2", "@challenger  version 2 → none", "@previous  none → version 1",
    ]  # fmt: skip
    assert registry.aliases(root) == {"champion": 2, "previous": 1}

    # In this process; the person had looked at another champion.
    monkeypatch.setenv("QUICKSTUDY_EVENTS", "1")
    monkeypatch.chdir(root)
    assert flow.main(["rollback", "--reason", "slow", "--against", "1"]) == 2
    events = [json.loads(text) for text in capsys.readouterr().out.splitlines() if text.startswith("{")]
    assert "the champion has changed meanwhile, from version 1 to version 2" in events[-1]["error"]
    with pytest.raises(QuickstudyError, match="needs a reason"):
        flow.rollback(project=str(root))
    assert registry.aliases(root) == {"champion": 2, "previous": 1}
    entry = flow.rollback("it is slow", project=str(root))
    assert (entry.verb, entry.evidence) == ("rollback", None)
    assert registry.aliases(root) == {"champion": 1, "previous": 2}

    code, out, _ = answer(root, "history")
    assert code == 0 and "Now: @champion 1, @previous 2" in out
    for words in (
        "@champion 1 → 2",
        "it hears children",
        "it is slow",
        "not asked: a person's word",
        "the first model",
    ):
        assert words in out
    code, out, _ = answer(root, "history", "--json")
    lines = json.loads(out)["lines"]
    assert [line["verb"] for line in lines if line["kind"] == "intent"] == ["register"] * 2 + ["promote", "rollback"]
    code, out, _ = answer(root, "diff", "previous", "1")
    rows = [" ".join(row.split()) for row in out.splitlines()]
    assert code == 0 and rows[0] == "version 2 @previous version 1 @champion difference"
    assert "seed 1 0" in rows and "words_domain.5-shot.accuracy 97.0 ± 1.0 % 0.95 -0.02" in rows

    run = registry.version(root, "2").run_id
    code, out, err = answer(root, "diff", "1", "2", "--json")
    assert code == 0 and {"name": "seed", "a": "0", "b": "1"} in json.loads(out)["parameters"]
    store.client(root).delete_run(run)
    code, out, err = answer(root, "rollback", "--reason", "slow again")
    assert (code, out) == (2, "") and f"models:/quickstudy/2: its run {run} was deleted" in err
