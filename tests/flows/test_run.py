"""`quickstudy run` as a person calls it, against the Prefect server of the tests."""

import base64
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

pytestmark = pytest.mark.usefixtures("prefect")

QUICKSTUDY = str(Path(sys.executable).parent / "quickstudy")


def quickstudy(root: Path, *arguments: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value() or "", "COLUMNS": "100"}
    return subprocess.Popen(
        [QUICKSTUDY, *arguments], cwd=root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def answer(root: Path, *arguments: str) -> tuple[int, str, str]:
    process = quickstudy(root, *arguments)
    out, err = process.communicate()
    return process.returncode, out, err


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_leaves_nothing_behind_and_the_next_run_goes_on(with_flows: Path) -> None:
    code, out, _ = answer(with_flows, "plan")
    assert code == 0 and "never ran" in out
    assert not (with_flows / ".cache").exists()  # a plan changes nothing

    (with_flows / "slow").touch()
    process = quickstudy(with_flows, "run")
    deadline = time.monotonic() + 120
    while not (with_flows / "started").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    code, _, err = answer(with_flows, "run")
    assert code == 2 and "at work here" in err
    trainer = int((with_flows / "started").read_text())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130 and err.splitlines()[-1].startswith("quickstudy: stopped")
    assert not alive(trainer)

    (with_flows / "slow").unlink()
    code, out, err = answer(with_flows, "run")
    assert code == 0, err
    assert [line.split()[1] for line in err.splitlines() if line.startswith("✓")] == [
        "data",
        "tasks@classify",
        "meta_train@classify",
        "evaluate@classify",
        "card",
        "register",
    ]
    assert "✓ tasks@classify        up to date" in err
    assert "71.0±1.0 (52.0)" in out and "95.0±1.0 (60.0)" in out
    assert "models:/quickstudy/1 @champion" in out and "quickstudy data import" in out

    code, out, err = answer(with_flows, "run")
    assert (code, err) == (0, "") and "Everything is up to date; nothing was trained or registered." in out
    code, out, _ = answer(with_flows, "plan")
    assert code == 0 and "Everything is up to date" in out and "stale" not in out


def test_mistakes_are_one_line_and_change_nothing(with_flows: Path) -> None:
    def everything() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in with_flows.rglob("*") if path.is_file()}

    params = (with_flows / "params.yaml").read_text()
    (with_flows / "params.yaml").write_text(params.replace("count: 600", "count: 1"))
    before = everything()
    for verb in ("run", "plan"):
        code, out, err = answer(with_flows, verb)
        assert (code, out, err.count("\n")) == (2, "", 1) and "params.yaml: episodes.count = 1" in err
    assert everything() == before
    (with_flows / "params.yaml").write_text(params)

    (with_flows / "data/bad").touch()
    code, _, err = answer(with_flows, "run")
    assert code == 2 and err.splitlines()[-1] == "quickstudy: data/bad: one class only. Add a second one"
    assert "Traceback" not in err
    (with_flows / "data/bad").unlink()

    (with_flows / "data/bug").touch()
    code, _, err = answer(with_flows, "run")
    assert code == 1 and err.splitlines()[-1] == (
        "quickstudy: stage tasks@classify failed: AssertionError (all of it: .cache/run.log)"
    )


def test_a_server_that_does_not_answer_is_told(with_flows: Path) -> None:
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    done = subprocess.run([QUICKSTUDY, "run"], cwd=with_flows, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "quickstudy: http://127.0.0.1:9/api: Prefect's server does not answer"
    )


def test_the_pages_open_on_loopback_and_close_on_ctrl_c(with_flows: Path) -> None:
    process = quickstudy(with_flows, "ui")
    assert process.stdout is not None
    addresses = {}
    for line in process.stdout:
        if line.startswith("Ctrl-C"):
            break
        name, address = line.split(maxsplit=1)
        addresses[name] = address.strip()
    server = (PREFECT_API_URL.value() or "").removesuffix("/api")
    assert addresses["Prefect"] == server  # that one runs already
    assert addresses["MLflow"].startswith("http://127.0.0.1:")
    assert ".prefect/login" in addresses["Login"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(addresses["MLflow"], timeout=30)
    login = base64.b64encode((with_flows / ".prefect/login").read_bytes().strip()).decode()
    asked = urllib.request.Request(addresses["MLflow"], headers={"Authorization": f"Basic {login}"})
    with urllib.request.urlopen(asked, timeout=30) as page:
        assert b"<title>MLflow" in page.read()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "closed\n", "")
    with pytest.raises(OSError):
        urllib.request.urlopen(addresses["MLflow"], timeout=5)
