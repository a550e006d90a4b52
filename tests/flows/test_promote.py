"""The flows of promotion, and their verbs as a person calls them."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType

from flows import promote as flow
from flows import promotion_steps
from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.registry import store

pytestmark = pytest.mark.usefixtures("prefect", "served")


def train_again(root: Path) -> None:
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("\nseed: 0", "\nseed: 1"))
    metrics = {"words@domain": {"5-shot": {"score": 0.97, "ci95": 0.01}}}
    (root / "build/evaluate/classify/metrics.json").write_text(json.dumps(metrics))
    subprocess.run([sys.executable, "stage.py", "meta_train"], cwd=root, check=True, capture_output=True)


def test_promote_roll_back_and_read_about_it(
    with_flows: Path,
    built: Path,
    answer: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
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
    for words, line in (
        (("--approve",), "a person's word needs a reason"),
        (("--approve", "--ask", "--reason", "x"), "either you decide or another does"),
        ((), "version 1: not comparable"),
    ):
        code, _, err = answer(root, "promote", "2", *words)
        assert code == 2 and line in err.splitlines()[-1], err
    (root / "answer").write_text("REJECT")
    code, out, err = answer(root, "promote")
    assert code == 4 and out.startswith("REJECT\nThe toy says reject.") and "Nothing was moved" in out, (out, err)
    assert registry.aliases(root) == {"champion": 1, "challenger": 2}
    assert registry.version(root, "2").tags["gate"] == "REJECT"

    code, out, err = answer(root, "promote", "--approve", "--reason", "it hears children")
    assert code == 0, err
    assert out.splitlines()[-3:] == [
        "@champion  version 1 → version 2",
        "@challenger  version 2 → none",
        "@previous  none → version 1",
    ]
    assert registry.aliases(root) == {"champion": 2, "previous": 1}

    # In this process; the person had looked at another champion.
    monkeypatch.setenv("QUICKSTUDY_EVENTS", "1")
    monkeypatch.chdir(root)
    assert flow.main(["rollback", "--reason", "slow", "--against", "1"]) == 2
    events = [json.loads(text) for text in capsys.readouterr().out.splitlines() if text.startswith("{")]
    assert "the champion has changed meanwhile, from version 1 to version 2" in events[-1]["text"]
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
        "not asked: a person's word",  # the rollback
        "REJECT",
        "the first model",
    ):
        assert words in out
    code, out, _ = answer(root, "history", "--on", "2026-03-03")
    assert (code, out) == (0, "On 2026-03-03 23:59 UTC no version was champion.\n")
    code, out, _ = answer(root, "history", "--on", "2999-01-01")
    assert code == 0 and "version 1 was champion, since" in out and "it is slow" in out
    code, _, err = answer(root, "history", "--on", "yesterday")
    assert code == 2 and "'yesterday' is no date" in err
    code, out, _ = answer(root, "history", "--json")
    lines = json.loads(out)["lines"]
    assert [line["verb"] for line in lines if line["kind"] == "intent"] == ["register"] * 2 + ["promote", "rollback"]
    code, out, _ = answer(root, "diff", "previous", "1")
    rows = [" ".join(row.split()) for row in out.splitlines()]
    assert code == 0 and rows[0] == "version 2 @previous version 1 @champion difference"
    assert "seed 1 0" in rows and "classify/words_domain.5-shot 97.0 ± 1.0 % 95.0 % -2.0 points" in rows

    run = registry.version(root, "2").run_id
    code, out, err = answer(root, "diff", "1", "2", "--json")
    assert code == 0 and {"name": "seed", "a": "0", "b": "1"} in json.loads(out)["parameters"]
    store.client(root).delete_run(run)
    code, out, err = answer(root, "rollback", "--reason", "slow again")
    assert (code, out) == (2, "") and f"models:/quickstudy/2: its run {run} was deleted" in err


def two_versions(root: Path) -> None:
    registry.register(root)
    train_again(root)
    registry.register(root)


def test_the_gate_promotes_and_says_why(
    built: Path, toy_gate: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    two_versions(built)
    (built / "answer").write_text("HOLD")
    assert flow.promote(project=str(built)) is None
    (built / "answer").write_text("PROMOTE")
    params = (built / "params.yaml").read_text()
    assert "  notify: []" in params
    (built / "params.yaml").write_text(params.replace("notify: []", "notify: [told/of-moves, told/nobody]"))
    told = []

    class Told(Block):
        _block_type_slug = "told"

        def notify(self, body: str, subject: str) -> None:
            told.append((subject, body))

    Told().save("of-moves")
    entry = flow.promote(project=str(built))
    assert entry is not None and entry.why == "The toy says promote." and entry.evidence["rules"][0]["gain"] == 0.012
    assert registry.aliases(built) == {"champion": 2, "previous": 1}
    (message,) = told
    assert message[0] == "quickstudy promote" and "@champion 1 → 2" in message[1] and entry.why in message[1]
    assert "told/nobody was not notified" in caplog.text
    run = registry.version(built, "2").run_id
    assert {file.path for file in store.client(built).list_artifacts(run, "gate")} == {"gate/verdict.json"}


def answering(promote: bool, reason: str) -> threading.Thread:
    """Answer the first question that a paused flow asks, as Prefect's page does."""

    def answer() -> None:
        paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
        with get_client(sync_client=True) as client:
            for _ in range(600):
                if runs := client.read_flow_runs(flow_run_filter=paused):
                    client.resume_flow_run(runs[0].id, run_input={"promote": promote, "reason": reason, "name": "Ada"})
                    return
                time.sleep(0.1)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_a_person_is_asked_with_the_evidence_before_them(
    built: Path, toy_gate: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_versions(built)  # no file ``answer``: the two cannot be compared, which the person is told
    shown = []
    real = promotion_steps.Decision.with_initial_data
    monkeypatch.setattr(
        promotion_steps.Decision,
        "with_initial_data",
        lambda description: (shown.append(description), real(description))[1],
    )
    thread = answering(False, "I want to hear it first")
    assert flow.promote(ask=True, project=str(built)) is None
    thread.join()
    assert "version 2 instead of version 1" in shown[0] and "NOT COMPARED" in shown[0] and "not comparable" in shown[0]
    assert registry.aliases(built) == {"champion": 1, "challenger": 2}

    (built / "answer").write_text("HOLD")
    thread = answering(True, "it hears children")
    entry = flow.promote(ask=True, project=str(built))
    thread.join()
    assert entry is not None and entry.why == "it hears children (Ada)" and entry.evidence["answer"] == "HOLD"
    assert "| accuracy | +1.20 points | +0.40 to +2.00 | above 0 | passed |" in shown[1]
    assert registry.aliases(built) == {"champion": 2, "previous": 1}


def test_who_does_not_answer_in_time_moves_nothing(built: Path, toy_gate: None) -> None:
    two_versions(built)
    params = (built / "params.yaml").read_text()
    (built / "params.yaml").write_text(params.replace("deadline: 72 ", "deadline: 0.0003 "))
    with pytest.raises(QuickstudyError, match=r"nobody has answered within 0.0003 h\. Nothing was moved") as error:
        flow.promote(ask=True, project=str(built))
    assert "\n" not in str(error.value) and registry.aliases(built) == {"champion": 1, "challenger": 2}
