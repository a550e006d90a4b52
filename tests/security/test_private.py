"""What the project writes is its owner's to read; a team's folder stays the team's."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

QUICKSTUDY = str(Path(sys.executable).parent / "quickstudy")


def modes(root: Path, *folders: str) -> dict[str, int]:
    """Rights of others and of the group, of all that can be reached by others in the folders."""
    found = {}
    for folder in folders:
        for path in (root / folder, *(root / folder).rglob("*")):
            if not path.is_symlink():
                found[path.relative_to(root).as_posix()] = stat.S_IMODE(path.stat().st_mode) & 0o077
    return found


def call(root: Path, *words: str, umask: int = 0o022, **env: str) -> None:
    done = subprocess.run(
        [QUICKSTUDY, *words],
        cwd=root,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.umask(umask) and None,
    )
    assert done.returncode == 0, done.stderr


def test_nobody_else_reads_what_a_verb_writes(three: Path) -> None:
    for path in (three, *three.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o055 if path.is_dir() else path.stat().st_mode | 0o044)
    three.chmod(0o755)
    call(three, "serve", "keys", "add", "ada")
    call(three, "history")
    for name in ("mlruns", ".cache", "build"):  # what lay there before lies in a closed folder now
        assert stat.S_IMODE((three / name).stat().st_mode) & 0o077 == 0, name
    assert modes(three, ".cache/serve.db") == {".cache/serve.db": 0}
    assert stat.S_IMODE(three.stat().st_mode) == 0o755  # the project itself is as it was


def test_a_folder_whose_group_may_write_is_the_group_s(three: Path) -> None:
    three.chmod(0o2775)
    (three / "mlruns").chmod(0o2775)
    call(three, "serve", "keys", "add", "ada", umask=0o002)
    assert modes(three, ".cache/serve.db") == {".cache/serve.db": 0o040}
    assert stat.S_IMODE((three / "mlruns").stat().st_mode) == 0o2770


def test_a_person_may_say_otherwise_and_a_closer_umask_stays(three: Path) -> None:
    call(three, "serve", "keys", "add", "ada", QUICKSTUDY_UMASK="022")
    assert modes(three, ".cache/serve.db") == {".cache/serve.db": 0o044}
    (three / ".cache/serve.db").unlink()
    three.chmod(0o775)
    call(three, "serve", "keys", "add", "ada", umask=0o077)
    assert modes(three, ".cache/serve.db") == {".cache/serve.db": 0}
    done = subprocess.run(
        [QUICKSTUDY, "history"],
        cwd=three,
        env={**os.environ, "QUICKSTUDY_UMASK": "all"},
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 2 and done.stderr == "quickstudy: QUICKSTUDY_UMASK: 'all' is no umask. Say 077, 027 or 022\n"
    )


def test_a_flow_and_what_it_starts_have_it_too(three: Path) -> None:
    code = "import flows, os, subprocess, sys\nsubprocess.run([sys.executable, '-c', 'open(\"made\", \"w\")'])\n"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])}
    subprocess.run(
        [sys.executable, "-c", code], cwd=three, env=env, check=True, preexec_fn=lambda: os.umask(0o022) and None
    )
    assert stat.S_IMODE((three / "made").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_importing_the_package_changes_nobody_s_umask(mode: int, tmp_path: Path) -> None:
    code = "import os, quickstudy.client; mask = os.umask(0); print(oct(mask))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.umask(0o022) and None,
    )
    assert done.stdout.strip() == oct(0o022)
