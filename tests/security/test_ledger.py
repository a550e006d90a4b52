"""What the ledger proves against who writes to the store: by signatures, and by what git keeps of it."""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.registry import ledger, lines, store
from quickstudy.registry.ledger import LedgerEntry, Move

pytestmark = pytest.mark.usefixtures("served")


def settings(root: Path, **values: Any) -> None:
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["ledger"] |= values
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def train_again(root: Path) -> None:
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(params | {"seed": params["seed"] + 1}, sort_keys=False))
    subprocess.run([sys.executable, "stage.py", "meta_train"], cwd=root, check=True, capture_output=True)


def stored(root: Path) -> list[LedgerEntry]:
    return list(lines.chain_now(root).entries.values())


def rewrite(root: Path, entries: list[LedgerEntry]) -> None:
    """What a writer of the store can do: other lines, whose digests hold."""
    before, digests = ledger.START, dict[str | None, str | None]()
    with contextlib.closing(sqlite3.connect(root / "mlruns/mlflow.db")) as database, database:
        of = "name = 'quickstudy-ledger' AND version"
        for number, entry in enumerate(entries, 1):
            values = {**vars(entry), "before": before, "of": digests.get(entry.of, entry.of)}
            values.pop("digest")
            forged = ledger.entry(**values)
            digests[entry.digest] = before = forged.digest
            database.execute(
                f"UPDATE model_version_tags SET value = ? WHERE {of} = ? AND key = 'entry'", (forged.line, number)
            )
        for table in ("model_version_tags", "model_versions"):
            database.execute(f"DELETE FROM {table} WHERE {of} > ?", (len(entries),))
        database.execute("UPDATE registered_model_tags SET value = ? WHERE key = 'ledger_end'", (before,))


def broken(root: Path) -> str:
    return "; ".join(map(str, registry.read_ledger(root).broken))


FORGERIES: dict[str, Callable[[list[LedgerEntry]], list[LedgerEntry]]] = {
    "another reason": lambda entries: [replace(entry, why="for money") if entry.why else entry for entry in entries],
    "another person": lambda entries: [replace(entry, who="eve@lab") for entry in entries],
    "another gate": lambda entries: [
        replace(entry, evidence={"answer": "PROMOTE"}) if entry.verb == "promote" and entry.moves else entry
        for entry in entries
    ],
    "the last move was never made": lambda entries: entries[:4],
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_lines_that_were_written_anew_are_seen_by_what_git_keeps(three: Path, forgery: str) -> None:
    assert broken(three) == ""
    rewrite(three, FORGERIES[forgery](stored(three)))
    chain = ledger.read([(n, entry.line) for n, entry in lines.chain_now(three).entries.items()])
    assert chain.breaks == ()  # by itself it holds
    assert "git knows a line" in broken(three) and "written anew" in broken(three)
    with pytest.raises(QuickstudyError, match="git knows a line"):
        registry.promote(three, 1, against=2, why="slow", verb="rollback")
    registry.accept_breaks(three, "we had to")
    assert broken(three) == ""
    kept = subprocess.run(
        ["git", "log", "--format=%s", "refs/quickstudy/ledger/own"], cwd=three, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(kept) == 5 and kept[0].startswith("accepted accept")  # what it was before is in git's log


def test_an_emptied_ledger_is_seen_with_the_aliases_and_without(three: Path) -> None:
    client = store.client(three)
    client.delete_registered_model("quickstudy-ledger")
    assert "git knows a line" in broken(three)
    assert "@champion stands at version 2, and the ledger is empty" in broken(three)
    client.delete_registered_model("quickstudy")
    assert "git knows a line" in broken(three)
    shutil.rmtree(three / "mlruns")  # all of it
    command = [str(Path(sys.executable).parent / "quickstudy"), "history"]
    for words, code, said in (
        ([], 2, "git knows a line"),
        (["--accept", "--reason", "we begin anew"], 0, "it stands from now on"),
        ([], 0, "No alias has moved yet"),
    ):
        done = subprocess.run([*command, *words], cwd=three, capture_output=True, text=True)
        assert done.returncode == code and said in done.stdout + done.stderr, done.stderr


def test_what_git_keeps_is_not_asked_where_a_person_says_so(three: Path) -> None:
    settings(three, anchor=False)
    rewrite(three, FORGERIES["another person"](stored(three)))
    assert broken(three) == ""


def test_a_project_that_is_no_repository_keeps_its_ledger(built: Path) -> None:
    registry.register(built)
    shutil.rmtree(built / ".git")
    assert broken(built) == "" and registry.read_ledger(built).standing() == {"champion": 1}


def test_a_git_remote_keeps_it_too(three: Path, tmp_path: Path) -> None:
    subprocess.run(
        ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(tmp_path / "origin.git")], check=True
    )
    subprocess.run(["git", "remote", "add", "origin", str(tmp_path / "origin.git")], cwd=three, check=True)
    settings(three, remote="origin")
    registry.promote(three, 1, against=2, why="slow", verb="rollback")
    assert registry.compare_remote(three, registry.read_ledger(three)) == ()
    rewrite(three, FORGERIES["the last move was never made"](stored(three)))
    for name in ("champion", "previous"):
        number = {"champion": "2", "previous": "1"}[name]
        store.client(three).set_registered_model_alias("quickstudy", name, number)
    subprocess.run(["git", "update-ref", "-d", "refs/quickstudy/ledger/own"], cwd=three, check=True)
    command = [str(Path(sys.executable).parent / "quickstudy"), "history"]
    done = subprocess.run(command, cwd=three, capture_output=True, text=True)
    assert done.returncode == 2 and "the git remote origin knows a line" in done.stderr
    subprocess.run(["git", "remote", "set-url", "origin", "/nowhere"], cwd=three, check=True)
    done = subprocess.run(command, cwd=three, capture_output=True, text=True)
    assert "not compared with the git remote" in done.stderr


def test_two_clones_keep_it_in_the_same_remote(three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where each run begins with a new clone."""
    subprocess.run(
        ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(tmp_path / "origin.git")], check=True
    )
    subprocess.run(["git", "remote", "add", "origin", str(tmp_path / "origin.git")], cwd=three, check=True)
    subprocess.run(["git", "push", "--quiet", "origin", "main"], cwd=three, check=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{three}/mlruns/mlflow.db")  # a server's, as it were
    clones = [tmp_path / name for name in ("one", "other")]
    for clone in clones:
        subprocess.run(["git", "clone", "--quiet", str(tmp_path / "origin.git"), str(clone)], check=True)
        settings(clone, remote="origin")
    registry.promote(clones[0], 1, against=2, why="slow", verb="rollback")
    registry.promote(clones[1], 2, against=1, why="quick")
    told = ["git", "ls-remote", str(tmp_path / "origin.git"), "refs/quickstudy/*"]
    before = subprocess.run(told, capture_output=True, text=True, check=True).stdout
    assert before.count("\n") == 1
    for clone in clones:
        assert registry.compare_remote(clone, registry.read_ledger(clone)) == ()
    registry.promote(clones[0], 1, against=2, why="slow", verb="rollback")
    assert subprocess.run(told, capture_output=True, text=True, check=True).stdout != before


# ---- signatures


@pytest.fixture
def signed(built: Path, tmp_path: Path) -> Path:
    """The project with a key that signs, and a file that says whose signatures count."""
    for name in ("ada", "eve"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    public = (tmp_path / "ada.pub").read_text()
    (built / "signers").write_text(f'ada@example.org namespaces="quickstudy-ledger" {public}')
    settings(built, key=str(tmp_path / "ada"), signers="signers", anchor=False)
    return built


def test_each_line_is_signed_and_says_by_whom(signed: Path) -> None:
    registry.register(signed)
    train_again(signed)
    registry.register(signed)
    registry.promote(signed, 2, against=1, why="better")
    assert broken(signed) == "" and set(registry.signers(signed).values()) == {"ada@example.org"}
    command = [str(Path(sys.executable).parent / "quickstudy"), "history", "--json"]
    done = subprocess.run(command, cwd=signed, capture_output=True, text=True)
    told = json.loads(done.stdout)["lines"]
    assert done.returncode == 0 and {line["signed_by"] for line in told} == {"ada@example.org"}


def test_lines_of_who_has_no_key_are_broken(signed: Path, tmp_path: Path) -> None:
    registry.register(signed)
    train_again(signed)
    settings(signed, key=str(tmp_path / "eve"))
    registry.register(signed)
    assert "line 3 is not signed by any of ledger.signers" in broken(signed)
    # Nor can eve let her own lines stand, or who signs nothing.
    for key in (str(tmp_path / "eve"), None):
        settings(signed, key=key)
        registry.accept_breaks(signed, "it was me")
        assert "line 3 is not signed" in broken(signed)
    settings(signed, key=str(tmp_path / "ada"))
    registry.accept_breaks(signed, "she may")
    assert broken(signed) == ""


def test_a_signed_line_cannot_be_written_anew(signed: Path) -> None:
    registry.register(signed)
    rewrite(signed, FORGERIES["another person"](stored(signed)))
    assert "line 1 is not signed" in broken(signed)


def test_a_signature_of_another_line_or_for_another_purpose_does_not_count(signed: Path, tmp_path: Path) -> None:
    registry.register(signed)
    with contextlib.closing(sqlite3.connect(signed / "mlruns/mlflow.db")) as database, database:
        (first,) = database.execute("SELECT value FROM model_version_tags WHERE key = 'signature' AND version = 1")
        database.execute("UPDATE model_version_tags SET value = ? WHERE key = 'signature' AND version = 2", first)
    assert "line 2 is not signed" in broken(signed) and "line 1" not in broken(signed)
    text = lines.chain_now(signed).entries[1].line
    command = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(tmp_path / "ada")]
    other = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout.decode()
    with contextlib.closing(sqlite3.connect(signed / "mlruns/mlflow.db")) as database, database:
        database.execute("UPDATE model_version_tags SET value = ? WHERE key = 'signature' AND version = 1", (other,))
    assert "line 1 is not signed" in broken(signed)


def test_a_key_that_cannot_sign_moves_nothing(signed: Path, tmp_path: Path) -> None:
    registry.register(signed)
    train_again(signed)
    settings(signed, key=str(tmp_path / "none"))
    with pytest.raises(QuickstudyError, match=r"ledger.key: .*none: there is no such key"):
        registry.register(signed)
    (tmp_path / "broken").write_text("no key\n")
    (tmp_path / "broken").chmod(0o600)
    settings(signed, key=str(tmp_path / "broken"))
    with pytest.raises(QuickstudyError, match=r"ledger.key: .*broken: cannot sign"):
        registry.register(signed)
    assert registry.aliases(signed) == {"champion": 1} and len(stored(signed)) == 2
    settings(signed, key=str(tmp_path / "ada"), signers="nowhere")
    with pytest.raises(QuickstudyError, match=r"ledger.signers: .*nowhere: there is no such file"):
        registry.read_ledger(signed)


# ---- who


def test_who_is_the_system_s_word_not_a_variable_s(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    registry.register(built)
    who = stored(built)[0].who
    assert "somebody-else" not in who and who.endswith(f"(uid {Path('/proc/self').stat().st_uid})")


def test_an_edited_acceptance_accepts_nothing() -> None:
    when = {"when": "2026-03-03T10:00:00+00:00", "who": "ada@lab"}
    intent = ledger.entry("intent", "promote", before=ledger.START, moves=[Move("champion", None, 1)], **when)  # type: ignore[arg-type]
    accept = ledger.entry("accepted", "accept", before=intent.digest, **when)  # type: ignore[arg-type]
    edited = json.dumps({**json.loads(accept.line), "accepts": [1, 2]})
    found = ledger.read([(1, intent.line.replace("ada", "eve")), (2, edited)])
    assert [one.number for one in found.broken] == [1, 2]
