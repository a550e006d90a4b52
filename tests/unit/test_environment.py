import os
import subprocess
import sys
from pathlib import Path

import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.system.environment import apply_environment, find_project


def test_the_project_is_the_nearest_folder_upwards_with_both_files(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).touch()
    inner = tmp_path / "data" / "words"
    inner.mkdir(parents=True)
    (inner / "params.yaml").touch()  # one of the two is not enough
    assert find_project(inner) == tmp_path.resolve()


def test_outside_a_project_the_error_says_where_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(QuickstudyError, match=r"dvc\.yaml and params\.yaml.*Run the command in the project's folder"):
        find_project(tmp_path)


def test_what_the_user_has_set_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"HF_HUB_OFFLINE": "0", "PREFECT_HOME": "/somewhere"})
    apply_environment(tmp_path)
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    assert os.environ["PREFECT_HOME"] == "/somewhere"
    assert os.environ["DO_NOT_TRACK"] == "true"


def test_prefect_keeps_its_files_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    apply_environment(tmp_path)
    assert os.environ["PREFECT_HOME"] == str(tmp_path.resolve() / ".prefect")


def test_importing_the_flows_sets_the_environment_before_prefect_reads_it(tmp_path: Path) -> None:
    repository = Path(__file__).parents[2]
    bare = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    code = "import flows, sys; assert 'prefect' not in sys.modules; import os; print(os.environ['PREFECT_HOME'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, env=bare, capture_output=True, text=True)
    assert done.stdout.strip() == str(repository.resolve() / ".prefect"), done.stderr
