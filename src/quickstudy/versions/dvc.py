"""What is stale, and which version is this: the only caller of git and DVC, by their command lines.

The command line, because in-process DVC lets a stage's output bypass whoever wants to read it. A call costs a second.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import yaml

from quickstudy.data.plain_yaml import read_yaml
from quickstudy.errors import QuickstudyError
from quickstudy.system.atomic import write_bytes
from quickstudy.system.progress import read_event
from quickstudy.versions import whole
from quickstudy.versions.command import (
    CHATTER,
    DVC,
    MustRun,
    RemoteFailed,
    StageFailed,
    content,
    raise_known,
    run,
    run_dvc,
    stream,
)
from quickstudy.versions.stale import read_lock

StageOutcome = Literal["ran", "up to date", "restored"]


def repro(
    root: Path,
    stage: str,
    on_line: Callable[[str], None],
    *,
    anew: bool = False,
    pull: bool = False,
    may_run: bool = True,
    env: Mapping[str, str] | None = None,
) -> StageOutcome:
    """Bring one stage up to date; those before it are taken as they are. A stage that fails leaves its former outputs.

    What was not made just now is compared with dvc.lock, byte by byte; where it is damaged, in the workspace or in
    DVC's cache, that is told, and it is brought from elsewhere or made anew.

    Whatever ends this call, a signal or an exception in ``on_line`` included, the stage's processes are then gone.

    Args:
        on_line: gets each line that the stage prints, while it runs: an event (`quickstudy.system.progress`) or text.
        anew: run it whatever DVC knows of it, and put nothing into DVC's cache; dvc.lock gets the hashes all the same.
            (With ``--no-run-cache`` alone DVC still restores what dvc.lock names.)
        pull: outputs that DVC knows and does not have come from the DVC remote.
        may_run: False: only what DVC knows is restored.
        env: variables beside those of this process.

    Raises:
        QuickstudyError: the stage told the user what is wrong and ended with exit code 2.
        Busy: another DVC command holds the workspace.
        StageFailed: it ended in any other way.
        MustRun: it would have to run and may not.
    """
    for further in (pull, False):
        outcome = _repro(root, stage, on_line, anew=anew, pull=pull and further, may_run=may_run, env=env)
        if outcome == "ran" or not (wrong := whole.damaged(root, stage)):
            return outcome
        broken = whole.throw_out(root, wrong)
        where = "DVC's cache" if broken else "the workspace"
        on_line(f"{', '.join(wrong)} was damaged in {where}; it is brought back or made anew")
    outcome = _repro(root, stage, on_line, anew=anew, pull=False, may_run=may_run, env=env)
    if outcome != "ran" and (wrong := whole.damaged(root, stage)):
        raise QuickstudyError(
            "is damaged again as soon as it is restored",
            where=root / wrong[0],
            fix="Check the disk, and remove what .dvc/cache holds of it",
        )
    return outcome


def _repro(
    root: Path,
    stage: str,
    on_line: Callable[[str], None],
    *,
    anew: bool,
    pull: bool,
    may_run: bool,
    env: Mapping[str, str] | None,
) -> StageOutcome:
    lines: list[str] = []
    mistakes: list[str] = []

    def listen(line: str) -> None:
        event = read_event(line)
        if event is None:
            lines.append(line)
        elif event["event"] == "error":
            mistakes.append(event["text"])
        if not may_run and line.startswith(f"Running stage '{stage}'"):
            raise MustRun(stage)
        if line and not line.startswith(CHATTER):
            on_line(line)

    how = ["--force", "--no-run-cache", "--no-commit"] if anew else ["--pull", "--allow-missing"] if pull else []
    try:
        code = stream(root, ["repro", "--single-item", *how, stage], listen, env)
    except MustRun:
        _back_to_lock(root, stage)
        raise
    text = "\n".join(lines)
    if code == 0:
        if f"Stage '{stage}' is cached - skipping run" in text:
            return "restored"
        return "ran" if f"Running stage '{stage}'" in text else "up to date"
    if not anew:
        _back_to_lock(root, stage)
    if mistakes:
        raise QuickstudyError(mistakes[-1])
    raise_known(text, root)
    ends = [line for line in lines if line.strip() and not line.startswith(CHATTER)]
    _, of_the_stage, ended = text.rstrip().rpartition(" exited with ")  # how DVC's last line ends; its own code is 1
    number = int(ended) if of_the_stage and ended.lstrip("-").isdigit() else code
    if number < 0 or number > 128:
        raise StageFailed(stage, f"killed by signal {-number if number < 0 else number - 128}", killed=True)
    raise StageFailed(stage, ends[-1].strip() if ends else f"exit code {number}", killed=False)


def _back_to_lock(root: Path, stage: str) -> None:
    """Bring back the former outputs, which DVC deletes when a stage starts."""
    if stage in read_lock(root):
        run([*DVC, "checkout", "--quiet", "--force", stage], root)


def data_hash(root: Path) -> str | None:
    """Return the version of data/: the DVC hash in data.dvc, 36 characters with its ``.dir``. None where it has none.

    Raises:
        QuickstudyError: data.dvc cannot be read.
    """
    try:
        return str(read_yaml(content(root, "data.dvc"))["outs"][0]["md5"])
    except FileNotFoundError:
        return None
    except (yaml.YAMLError, KeyError, IndexError, TypeError):
        raise QuickstudyError(
            "is not a DVC file", where=root / "data.dvc", fix="Restore it: git checkout data.dvc"
        ) from None


def committed_data_hash(root: Path) -> str | None:
    """Return the version of data/ in the last commit; None where there is none."""
    shown = run(["git", "show", "HEAD:./data.dvc"], root)
    return str(read_yaml(shown.stdout)["outs"][0]["md5"]) if shown.returncode == 0 else None


def add_data(root: Path) -> str:
    """Make data/ as it is now a version: into DVC's cache, its hash into data.dvc. Return the hash.

    Raises:
        QuickstudyError: data/ does not exist, the examples of a dataset were changed by nothing that we know of, or DVC
            refuses.
    """
    if not (root / "data").is_dir():
        raise QuickstudyError("does not exist", where=root / "data", fix="Make the starter data: quickstudy data build")
    whole.check_data(root)
    run_dvc(root, "add", "data")
    version = data_hash(root)
    assert version is not None
    return version


def in_cache(root: Path, version: str) -> bool:
    """Return whether DVC's cache in this clone holds all files of a version of the data."""
    cache = whole.cache_folder(root)
    files = whole.listed(cache, version)
    return bool(files) and all(whole.object_at(cache, md5).exists() for _, md5 in files)


def checkout_data(root: Path, force: bool = False) -> None:
    """Make data/ what data.dvc says, from DVC's cache. Changes that are in no version are not overwritten, unless
    forced.

    Raises:
        QuickstudyError: they would be, or what DVC's cache holds is damaged.
    """
    run_dvc(root, "checkout", *(["--force"] if force else []), "data.dvc")
    _check_restored(root, "DVC's cache")


def _check_restored(root: Path, source: str) -> None:
    version = data_hash(root)
    if version and (wrong := whole.check_restored(root, version)):
        raise RemoteFailed(
            f"{', '.join(wrong)} of data version {version[:8]} is damaged in {source}; it was taken out of there",
            where=root,
            fix="Run the same again: it comes from the DVC remote where there is one, else push it from another clone",
        )


def has_remote(root: Path) -> bool:
    """Return whether a default DVC remote is configured."""
    return bool(run([*DVC, "config", "core.remote"], root).stdout.strip())


def in_remote(root: Path) -> bool:
    """Return whether the default DVC remote holds all files of the version that data.dvc names, some of which the cache
    lacks.

    Raises:
        RemoteFailed: it cannot be reached.
    """
    done = run([*DVC, "status", "--cloud", "--json", "data.dvc"], root)
    if done.returncode != 0:
        raise_known(done.stderr, root)
        raise RemoteFailed(f"the DVC remote does not answer: {done.stderr.removeprefix('ERROR: ')}", where=root)
    states = json.loads(done.stdout or "{}")
    # Where neither has the list of the files, DVC knows of none and only warns.
    return bool(states) and "missing" not in states.values() and "neither locally nor on remote" not in done.stderr


def pull_data(root: Path, on_line: Callable[[str], None]) -> None:
    """Fetch the version of the data that data.dvc names from the DVC remote.

    Raises:
        RemoteFailed: the remote cannot be reached or does not have it.
    """
    _transfer(
        root,
        ["pull", "data.dvc"],
        "give the data",
        on_line,
        "Check `dvc remote list`, or make the starter data: quickstudy data build",
    )
    _check_restored(root, "the DVC remote")


def pull_outputs(root: Path, stage: str, on_line: Callable[[str], None]) -> None:
    """Bring the outputs of a stage, as dvc.lock names them, from DVC's cache or else from the DVC remote.

    Raises:
        RemoteFailed: they are in neither.
    """
    for further in (True, False):
        if run([*DVC, "checkout", "--quiet", "--force", stage], root).returncode != 0:
            _transfer(root, ["pull", "--force", stage], f"give what {stage} has made", on_line)
        if not (wrong := whole.damaged(root, stage)):
            return
        whole.throw_out(root, wrong)
        if not further:
            raise RemoteFailed(f"the DVC remote gives a damaged {', '.join(wrong)}", where=stage)
        on_line(f"{', '.join(wrong)} was damaged in DVC's cache; it is brought from the DVC remote")


def push_outputs(root: Path, stages: Sequence[str], on_line: Callable[[str], None]) -> None:
    """Bring the outputs of stages into the DVC remote, and what DVC knows of their runs, so that another clone can
    restore them.

    Raises:
        RemoteFailed: it cannot be reached.
    """
    _transfer(root, ["push", "--run-cache", *stages], f"take what {', '.join(stages)} made", on_line)


def push_data(root: Path, on_line: Callable[[str], None]) -> None:
    """Bring the version of the data that data.dvc names into the DVC remote.

    Raises:
        RemoteFailed: it cannot be reached.
    """
    _transfer(root, ["push", "data.dvc"], "take the data", on_line)


def _transfer(
    root: Path, arguments: Sequence[str], what: str, on_line: Callable[[str], None], fix: str | None = None
) -> None:
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        on_line(line)

    if stream(root, arguments, listen) != 0:
        raise_known("\n".join(lines), root)
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        if any("neither locally nor on remote" in line for line in lines):
            errors = ["it does not have all of it"]  # DVC names the folder, over several lines
        raise RemoteFailed(f"the DVC remote did not {what}: {' '.join(errors or lines[-1:])}", fix=fix)


def lock_hashes(root: Path) -> dict[str, str]:
    """Return the path of every stage output → its hash in dvc.lock."""
    return {
        out["path"]: out["md5"] for stage in read_lock(root).values() for out in stage.get("outs", []) if "md5" in out
    }


def set_data(root: Path, version: str) -> None:
    """Let data.dvc name a version of the data; data/ stays as it is."""
    out = {"md5": version, "hash": "md5", "path": "data"}
    write_bytes(root / "data.dvc", yaml.safe_dump({"outs": [out]}).encode())


def hash_data(root: Path) -> str:
    """Write the version of data/ as it is now into data.dvc and return it; DVC's cache gets nothing.

    Raises:
        QuickstudyError: DVC refuses.
    """
    run_dvc(root, "add", "--no-commit", "data")
    version = data_hash(root)
    assert version is not None
    return version
