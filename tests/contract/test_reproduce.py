"""A model built again from its record: real git, DVC and MLflow, and the stages of tests/toy."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quickstudy import registry
from quickstudy.config import load_settings
from quickstudy.errors import QuickstudyError
from quickstudy.lineage import rebuild as rebuild_
from quickstudy.lineage import recipe as recipes
from quickstudy.lineage import reproduction
from quickstudy.lineage.reproduction import Reproduction
from quickstudy.versions import dvc as versions
from quickstudy.versions import git as git_
from quickstudy.versions import worktree

REPOSITORY = Path(__file__).parents[2]
TOY = REPOSITORY / "tests/toy"


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout


def dvc(root: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, check=True, capture_output=True)


def train(root: Path) -> None:
    versions.add_data(root)
    for stage in ("tasks@classify", "meta_train@classify"):
        versions.repro(root, stage, lambda line: None)


def register(root: Path) -> registry.Registration:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOY))
        patch.setattr("quickstudy.registry.runs.LOADER", "served.loader")
        patch.setattr("quickstudy.registry.runs.CODE", TOY / "served")
        return registry.register(root)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as of tests/conftest.py, trained by DVC, registered as version 1."""
    root = tmp_path_factory.mktemp("trained") / "a project"
    (root / "data").mkdir(parents=True)
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "params.yaml", "requirements.lock"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, root / name)
    for name in ("dvc.yaml", "stage.py"):
        shutil.copy(TOY / name, root)
    for name in ("one", "two"):
        (root / f"data/{name}.txt").write_text(f"{name}\n")
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message=start")
    train(root)
    assert register(root).version == 1
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "a project")
    return tmp_path / "a project"


def rebuild(root: Path, uri: str = "1") -> Reproduction:
    """What the flow does."""
    with recipes.alone(root):
        recipe = recipes.read(root, uri)
        project, source = recipes.prepare(root, recipe)
        rebuild_.check_code(project, recipe)
        rebuild_.fetch_data(project, recipe, source, lambda line: None)
        failure = None
        for stage in recipes.needed(project):
            failure = failure or rebuild_.build(project, recipe, stage, lambda line: None)
        return reproduction.judge(root, project, recipe, source, load_settings(root / "params.yaml").reproduce, failure)


def refused(root: Path, match: str, uri: str = "1") -> None:
    with pytest.raises(QuickstudyError, match=match) as error, recipes.alone(root):
        recipes.prepare(root, recipes.read(root, uri))
    assert "\n" not in str(error.value)


def working_copy(root: Path) -> dict[str, bytes]:
    """Every file of the user's, and git's index."""
    # The local settings of DVC name this folder, which is a copy.
    without = (".cache", ".git", "mlruns", ".dvc/tmp", ".dvc/config.local")
    found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    kept = {name: path.read_bytes() for name, path in found.items() if not name.startswith(without)}
    return {**kept, "index": (root / ".git/index").read_bytes(), "HEAD": (root / ".git/HEAD").read_bytes()}


def test_a_version_is_built_again_bit_for_bit_and_nothing_else_changes(root: Path) -> None:
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("seed: 0", "seed: 5"))
    git(root, "commit", "--quiet", "--all", "--message=another seed")
    (root / "stage.py").write_text("raise SystemExit('not this code')\n")
    before, objects = working_copy(root), git(root, "count-objects", "-v")
    found = rebuild(root)
    assert (found.answer, found.where, found.data_from) == ("IDENTICAL", (), "DVC's cache")
    assert found.rebuilt_weights == found.recorded_weights and found.uri == "models:/quickstudy/1"
    assert working_copy(root) == before and git(root, "count-objects", "-v") == objects
    assert git(root, "worktree", "list").count("\n") == 1
    assert reproduction.read_reproduction(root, found.run_id) == found
    kept = root / found.folder / "build/model/classify/model.safetensors"
    assert kept.read_bytes() == (root / "build/model/classify/model.safetensors").read_bytes()
    # By the same run and by its alias it is the same model.
    run = registry.version(root, "1").run_id
    for uri in (f"runs:/{run}", "champion", "models:/quickstudy@champion", "models:/quickstudy/1"):
        assert recipes.read(root, uri).uri == "models:/quickstudy/1"


def test_a_clone_rebuilds_from_the_store_of_another(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(root), str(clone))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlruns/mlflow.db")
    # The data is nowhere here, and it is no starter data.
    refused(clone, r"data version \w{8} is not in DVC's cache here, and no DVC remote is configured; it is more than")

    dvc(root, "remote", "add", "--default", "store", "../store")
    dvc(root, "push", "--quiet", "data.dvc")
    dvc(clone, "remote", "add", "--local", "--default", "store", "../store")
    found = rebuild(clone)
    assert (found.answer, found.data_from) == ("IDENTICAL", "the DVC remote")
    shutil.rmtree(clone / ".dvc/cache")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    refused(clone, r"data version \w{8} is not in DVC's cache here, nor on the DVC remote; it is more than")


def test_a_dirty_tree_is_rebuilt_with_new_binary_and_oddly_encoded_files(root: Path) -> None:
    stage = (root / "stage.py").read_text()
    assert '    (model / "model.safetensors")' in stage
    stage = stage.replace(
        '    (model / "model.safetensors").write_bytes(digest)',
        '    for name in ("ä b.bin", "new/code.py", "latin.txt"):\n        digest += Path(name).read_bytes()\n'
        '    (model / "model.safetensors").write_bytes(digest)',
    )
    (root / "stage.py").write_text(stage)
    pipeline = (root / "dvc.yaml").read_text()
    reads = '"build/tasks/${item}/tasks.json"'
    pipeline = pipeline.replace(f"[stage.py, {reads}]", f"[stage.py, {reads}, ä b.bin, new, latin.txt]")
    (root / "dvc.yaml").write_text(
        pipeline.replace("[stage.py, build/evaluate]", "[stage.py, build/evaluate, huge.zip]")
    )
    (root / "ä b.bin").write_bytes(bytes(range(256)) * 4)
    (root / "new").mkdir()
    (root / "new/code.py").write_bytes(b"a = 1\r\nb = 2\n\nno end of line")
    (root / "latin.txt").write_bytes("Grüße\n".encode("latin-1"))
    (root / "huge.zip").write_bytes(b"0" * (git_.LARGEST + 1))
    train(root)
    version = register(root).version
    assert version == 2
    for name in ("ä b.bin", "latin.txt", "huge.zip"):
        (root / name).unlink()
    git(root, "checkout", "--quiet", "stage.py", "dvc.yaml")
    before = working_copy(root)
    found = rebuild(root, "2")
    assert found.answer == "IDENTICAL", found
    assert found.notes == ("not kept, and read by no stage: huge.zip",)
    assert working_copy(root) == before
    record = recipes.read(root, "2").record
    patch = Path(record.place.removeprefix("file://").replace("%20", " ")) / "changes.patch"
    patch.unlink()
    refused(root, r"models:/quickstudy/2: cannot be rebuilt: its working copy was changed and no patch was kept", "2")


def test_a_patch_is_the_same_whatever_git_is_set_to_and_can_be_applied(root: Path, tmp_path: Path) -> None:
    (root / "stage.py").rename(root / "renamed ü.py")
    (root / "sub").mkdir()
    (root / "sub/blob").write_bytes(b"\0\1\2" * 100)
    (root / "sub/run.sh").write_text("echo\n")
    (root / "sub/run.sh").chmod(0o755)
    (root / "sub/to").symlink_to("blob")
    pipeline = (root / "dvc.yaml").read_text()
    (root / "dvc.yaml").write_text(pipeline.replace("deps: [stage.py, data]", "deps: [renamed ü.py, sub, data]"))
    (root / "data/new.txt").write_text("data is DVC's\n")
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("seed: 0", "seed: 9"))
    plain, index = git_.patch(root), (root / ".git/index").read_bytes()
    for name, value in {
        "color.ui": "always",
        "diff.noprefix": "true",
        "diff.mnemonicPrefix": "true",
        "diff.external": "false",
        "diff.renames": "copies",
        "core.abbrev": "4",
        "diff.context": "9",
    }.items():
        git(root, "config", name, value)
    assert git_.patch(root) == plain and (root / ".git/index").read_bytes() == index
    names = {"params.yaml", "dvc.yaml", "stage.py", "renamed ü.py", "sub/blob", "sub/run.sh", "sub/to"}
    assert git_.patched(plain.encode()) == names
    folder = tmp_path / "worktree"
    project = worktree.add_worktree(root, folder, "HEAD")
    git_.apply_patch(folder, plain.encode())
    assert {name: (project / name).exists() for name in names} == {name: name != "stage.py" for name in names}
    assert (project / "sub/blob").read_bytes() == (root / "sub/blob").read_bytes()
    assert (project / "sub/to").is_symlink() and (project / "sub/run.sh").stat().st_mode & 0o100
    with pytest.raises(QuickstudyError, match="the recorded patch does not fit its commit"):
        git_.apply_patch(folder, plain.encode())
    worktree.remove_worktree(root, folder)
    assert git(root, "worktree", "list").count("\n") == 1


def test_what_is_gone_is_told_before_any_work(root: Path, tmp_path: Path) -> None:
    folder = root / "mlruns/artifacts" / registry.version(root, "1").run_id / "artifacts"
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text().replace("seed: 0", "seed: 7"))
    refused(root, r"params.yaml of its commit is not what was recorded \(seed: 7 recorded, 0 there\)")
    (folder / "params.yaml").unlink()
    (folder / "dvc.lock").write_text("stages: {}\n")
    assert recipes.read(root, "1").notes == ("dvc.lock beside its run was changed since, and is not looked at",)
    listing = json.loads((folder / "lineage.json").read_text())
    (folder / "lineage.json").write_text(json.dumps({**listing, "git_commit": "0" * 40}))
    refused(root, r"says another git_commit than the run itself; commit 0000000000 is not in this repository")
    refused(root, "models:/quickstudy/9: there is no such version", "9")
    refused(root, "runs:/0123: there is no such run", "runs:/0123")
    (folder / "lineage.json").unlink()
    refused(root, "models:/quickstudy/1: cannot be rebuilt: lineage.json is not beside its run")
    assert not list((root / recipes.FOLDER).glob("*/worktree"))

    from mlflow import MlflowClient

    run = registry.version(root, "1").run_id
    MlflowClient(registry.tracking_uri(root)).delete_run(run)
    for uri in ("1", f"runs:/{run}"):
        refused(root, f"its run {run} was deleted. Restore it", uri)


def test_another_code_or_parameter_than_the_recorded_is_different_and_says_where(root: Path) -> None:
    # Trained; then the code and a parameter change and are committed, and the old model is registered with them.
    text = (root / "stage.py").read_text()
    (root / "stage.py").write_text(text.replace('str(params["seed"])', 'str(params["seed"] + 1)'))
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("heads: 4 ", "heads: 8 "))
    (root / "build/model/classify/config.yaml").write_text("another: model\n")
    git(root, "commit", "--quiet", "--all", "--message=changed")
    assert register(root).version == 2
    found = rebuild(root, "2")
    assert found.answer == "DIFFERENT" and found.gap is None
    assert "the weights differ, and the two cannot be asked" in found.why
    assert found.where[0].startswith("tasks@classify: reads stage.py: ")
    assert "meta_train@classify: parameter model.heads: 4 → 8" in found.where
    assert found.where[-1].startswith("meta_train@classify: writes build/model/classify: ")
    assert not any("tasks.json" in line for line in found.where)  # that came out the same

    (root / "stage.py").write_text(text.replace('if stage == "meta_train":', 'if stage == "meta_train":\n    1 / 0'))
    (root / "build/model/classify/model.safetensors").write_bytes(b"other")
    git(root, "commit", "--quiet", "--all", "--message=broken")
    assert register(root).version == 3
    found = rebuild(root, "3")
    assert (found.answer, found.rebuilt_weights) == ("DIFFERENT", None)
    assert "stage meta_train@classify failed: ZeroDivisionError" in found.why and found.where[0] == found.why


def test_damaged_files_do_not_hinder_and_are_given_back(root: Path) -> None:
    folder = registry.resolve("models:/quickstudy/1", root)
    (folder / "classify/model.safetensors").write_bytes(b"\0" * 32)
    found = rebuild(root)
    assert (
        found.answer == "IDENTICAL"
        and "classify/model.safetensors was changed since the model was registered" in found.notes[0]
    )
    assert "as they were registered" in found.next


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.contract.test_reproduce import rebuild
rebuild(Path.cwd())
"""


def test_a_kill_in_the_middle_leaves_the_working_copy_and_the_next_run_is_clean(root: Path) -> None:
    before = working_copy(root)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(REPOSITORY)], cwd=root)
    started = time.monotonic()
    while not (found := list((root / recipes.FOLDER).glob("*/worktree/data/one.txt"))):
        assert process.poll() is None and time.monotonic() - started < 60
        time.sleep(0.01)
    with pytest.raises(QuickstudyError, match="another rebuild is at work here"), recipes.alone(root):
        pass
    process.kill()
    process.wait()
    assert found[0].exists() and working_copy(root) == before
    assert rebuild(root).answer == "IDENTICAL"
    assert not found[0].exists() and working_copy(root) == before
    assert git(root, "worktree", "list").count("\n") == 1
