"""The toy project: a git and DVC repository with the real settings and flows, and stages that learn nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TOY = REPOSITORY / "tests/toy"
TOY_GATE = (sys.executable, str(TOY / "gate.py"))


def run_git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def make_project(root: Path) -> Path:
    """The repository with two files of data and the stages of this folder, all committed; without the flows."""
    (root / ".dvc").mkdir(parents=True)
    (root / "data").mkdir()
    same = (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "params.yaml", "requirements.lock")
    for name in (*same, "prefect.yaml"):
        shutil.copy(REPOSITORY / name, root / name)
    for name in ("dvc.yaml", "stage.py"):
        shutil.copy(TOY / name, root / name)
    (root / "data/one.txt").write_text("one\n")
    (root / "data/two.txt").write_text("two\n")
    run_git(root, "init", "--quiet", "--initial-branch=main")
    run_git(root, "add", ".")
    run_git(root, "commit", "--quiet", "--message=start")
    return root


def add_flows(project: Path) -> Path:
    """The flows, as `quickstudy run` needs them, which register with the loader of this folder and ask its gate."""
    shutil.copytree(REPOSITORY / "flows", project / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    with (project / "flows/__init__.py").open("a") as file:
        file.write(
            "import sys\nfrom pathlib import Path\nfrom quickstudy.registry import runs\n"
            f"sys.path.append({str(TOY)!r})\n"
            f"runs.LOADER, runs.CODE = 'served.loader', Path({str(TOY / 'served')!r})\n"
            "from flows import data_steps, promotion_steps\n"
            f"data_steps.STARTER, promotion_steps.GATE = ('true',), {TOY_GATE!r}\n"
        )
    return project
