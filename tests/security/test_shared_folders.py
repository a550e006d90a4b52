"""Folders that every user of a machine may write to: nothing that lies there is loaded, followed or waited for."""

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.system import locks
from quickstudy.system.environment import apply_environment
from quickstudy.system.private import private_folder, temporary_folder
from quickstudy.versions import command, dvc

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
STRANGER = 65_533


def site_of(project: Path, **env: str) -> Path:
    """Where DVC, called by hand in this project, keeps its pickles."""
    code = "from dvc.repo import Repo; print(Repo().site_cache_dir)"
    bare = {name: value for name, value in os.environ.items() if name != command.SITE}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=bare | env, capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


def others_can_reach(path: Path, below: Path) -> bool:
    """Whether another user, who may enter ``below``, may change something in the folder."""
    between = [folder for folder in path.parents if below in folder.parents]
    return bool(path.stat().st_mode & 0o002) and all(folder.stat().st_mode & 0o001 for folder in between)


def test_what_dvc_remembers_lies_in_the_project_for_our_calls_and_those_by_hand(project: Path) -> None:
    dvc.add_data(project)
    site = site_of(project)
    assert site.is_relative_to(project)
    assert any(site.iterdir())  # our call has used the same
    assert not others_can_reach(site.parent, project)
    inner = project / "data"
    assert site_of(inner) == site  # from wherever it is called
    assert "site" not in command.run_git(project, "status", "--short")


def test_a_setting_of_dvc_that_stands_in_the_same_file_stays(project: Path) -> None:
    path = project / ".dvc/config.local"
    path.write_text(
        "[core]\n    remote = mine\n['remote \"mine\"']\n    url = webdavs://127.0.0.1:9/x\n    password = p\n"
    )
    path.chmod(0o600)
    command.run_dvc(project, "status")
    assert command.run_dvc(project, "config", "core.remote").strip() == "mine"
    assert path.stat().st_mode & 0o777 == 0o600
    assert site_of(project).is_relative_to(project)


def test_a_project_that_was_moved_has_its_own_again(project: Path, tmp_path: Path) -> None:
    command.run_dvc(project, "status")
    moved = project.rename(tmp_path / "moved")
    command.run_dvc(moved, "status")
    assert site_of(moved).is_relative_to(moved)
    assert not project.exists()


def test_a_folder_that_others_could_write_to_is_begun_anew(project: Path) -> None:
    planted = project / command.OWN_SITE / "repo" / "planted"
    planted.mkdir(parents=True)
    (project / command.OWN_SITE).chmod(0o777)
    command.run_dvc(project, "status")
    assert not planted.exists()


def _chown_site(project: Path) -> None:
    (project / command.OWN_SITE).mkdir(parents=True)
    os.chown(project / command.OWN_SITE, STRANGER, STRANGER)


def _chown_between(project: Path) -> None:
    (project / command.OWN_SITE).mkdir(parents=True)
    os.chown(project / ".dvc/tmp", STRANGER, STRANGER)


def _link_site(project: Path) -> None:
    (project / command.OWN_SITE.parent).mkdir(parents=True)
    (project / "elsewhere").mkdir()
    (project / command.OWN_SITE).symlink_to(project / "elsewhere")


def _open_project(project: Path) -> None:
    (project / ".dvc").chmod(0o777)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(_chown_site, marks=needs_root),
        pytest.param(_chown_between, marks=needs_root),
        _link_site,
        _open_project,
    ],
)
def test_a_folder_of_another_user_is_refused_before_dvc_reads_it(project: Path, spoil: Callable[[Path], None]) -> None:
    spoil(project)
    for call in (lambda: command.run_dvc(project, "status"), lambda: dvc.repro(project, "tasks", print)):
        with pytest.raises(QuickstudyError, match=r"\.dvc.*who could have this project run code") as refused:
            call()
        assert "\n" not in str(refused.value)


def test_a_place_that_a_person_names_is_used_and_checked(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    monkeypatch.setenv(command.SITE, str(own))
    command.run_dvc(project, "status")
    assert not others_can_reach(own / "repo", tmp_path)
    own.chmod(0o777)
    with pytest.raises(QuickstudyError, match="every user"):
        command.run_dvc(project, "status")


def test_temporary_files_lie_in_a_folder_of_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everybodys = tmp_path / "tmp"
    everybodys.mkdir()
    everybodys.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(everybodys))
    monkeypatch.setattr(tempfile, "tempdir", None)
    apply_environment(tmp_path)
    own = Path(tempfile.gettempdir())
    assert own.parent == everybodys and own.stat().st_mode & 0o777 == 0o700
    apply_environment(tmp_path)  # a child of this process
    assert Path(os.environ["TMPDIR"]) == own


@pytest.mark.parametrize("how", ["link", pytest.param("stranger", marks=needs_root), "file", "no sticky bit"])
def test_where_its_name_is_taken_it_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    everybodys, home = tmp_path / "tmp", tmp_path / "home"
    everybodys.mkdir()
    home.mkdir()
    everybodys.chmod(0o777 if how == "no sticky bit" else 0o1777)
    squatted = everybodys / f"quickstudy-{os.geteuid()}"
    if how == "link":
        (tmp_path / "target").mkdir()
        squatted.symlink_to(tmp_path / "target")
    elif how == "file":
        squatted.touch()
    else:
        squatted.mkdir()
        os.chown(squatted, STRANGER if how == "stranger" else -1, -1)
    monkeypatch.setattr(tempfile, "tempdir", str(everybodys))
    monkeypatch.setenv("HOME", str(home))
    assert temporary_folder() == home / ".cache/quickstudy/tmp"


def test_what_libraries_keep_under_names_that_all_can_guess_lies_in_that_folder(tmp_path: Path) -> None:
    """MLflow opens db_init_lock-HASH for writing, and the hash is that of the database's address: through a link that
    was planted it would empty a file of the user's."""
    everybodys, url = tmp_path / "tmp", f"sqlite:///{tmp_path}/mlflow.db"
    everybodys.mkdir()
    everybodys.chmod(0o1777)
    code = (
        "from quickstudy.system.environment import apply_environment; apply_environment();"
        "import sqlalchemy; from mlflow.store.db import utils; utils._all_tables_exist = lambda engine: True;"
        f"utils._safe_initialize_tables(sqlalchemy.create_engine({url!r}))"
    )
    env = os.environ | {"TMPDIR": str(everybodys)}
    subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, check=True)
    assert [path.name for path in everybodys.iterdir()] == [f"quickstudy-{os.geteuid()}"]
    assert any(path.name.startswith("db_init_lock") for path in everybodys.glob("*/*"))


# The lock of the GPU, which users of a machine share


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # where another user can get to
        Path(folder).chmod(0o1777)
        monkeypatch.setattr(locks, "SHARED", Path(folder))
        monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
        yield Path(folder) / "gpu.lock"


def test_a_lock_that_another_user_has_made_can_be_taken(shared: Path) -> None:
    """Made by one user as 0644, it stopped every other user's training for ever."""
    said: list[str] = []
    with locks.in_turn("gpu.lock", said.append, 1):
        pass
    assert not said and shared.stat().st_mode & 0o444 == 0o444  # whoever comes next may open it to lock it
    if os.geteuid() == 0:
        os.chown(shared, STRANGER, STRANGER)
        pid = os.fork()
        if pid == 0:
            os.setuid(STRANGER - 1)
            with locks.in_turn("gpu.lock", said.append, 1):
                os._exit(len(said))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("how", ["link", "fifo", "folder"])
def test_what_is_no_lock_is_told_and_not_followed(shared: Path, tmp_path: Path, how: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    match how:
        case "link":
            shared.symlink_to(victim)
        case "fifo":
            os.mkfifo(shared)
        case "folder":
            shared.mkdir()
    said: list[str] = []
    with locks.in_turn("gpu.lock", said.append, 1):
        pass
    assert len(said) == 1 and "does not wait" in said[0]
    assert victim.read_text() == "mine"


def test_one_who_never_lets_go_is_not_waited_for_for_ever(shared: Path) -> None:
    said: list[str] = []
    with shared.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with locks.in_turn("gpu.lock", said.append, 0.2):
            pass
    assert ["waits" in said[0], "goes on" in said[1]] == [True, True]


def test_a_folder_within_the_project_is_made_private(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a" / "b", tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
