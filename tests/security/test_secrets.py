"""What a registering run records of a working copy that holds secrets: none of them."""

import os
import random
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.registry import keeping
from quickstudy.secrets import find_secrets, is_secret_file, redacted
from quickstudy.versions import git as git_
from quickstudy.versions import lineage
from tests.toy.project import REPOSITORY, add_flows

Git = Callable[..., str]


def letters(count: int, of: str = string.ascii_letters + string.digits, seed: int = 0) -> str:
    chosen = random.Random(f"{seed} {count}")
    return "".join(chosen.choice(of) for _ in range(count))


KEY = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{letters(70)}\n{letters(70, seed=1)}\n-----END OPENSSH PRIVATE KEY-----\n"
AWS = "AKIA" + letters(16, string.ascii_uppercase + string.digits)
GITHUB = "ghp_" + letters(36)


# ---- what a secret is


@pytest.mark.parametrize(
    "name",
    [
        *(".env", ".env.local", "servers.env", "deploy/servers.env", "server.pem", "tls/site.key", "id_rsa"),
        *("id_ed25519", "keys/id_team", "bundle.p12", ".netrc", ".pgpass", "credentials", "credentials.json"),
        *("auth.ini", ".pypirc", ".ssh/config", ".aws/config", "secrets/anything", "Credentials.JSON", "token.txt"),
    ],
)
def test_files_that_hold_secrets_are_known_by_their_names(name: str) -> None:
    assert is_secret_file(name)


def test_no_file_of_this_repository_is_named_so_nor_holds_one() -> None:
    told = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    names = [name for name in told.stdout.split("\0") if name and not name.startswith("tests/")]
    assert [name for name in names if is_secret_file(name)] == []
    found = []
    for name in names:
        path = REPOSITORY / name
        if path.suffix in (".py", ".md", ".yaml", ".toml", ".lock", ".json", ".csv") and path.is_file():
            text = path.read_text(encoding="utf-8")
            found += [(name, secret.line, secret.what) for secret in find_secrets(text, name)]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        KEY,
        f"key: {AWS}",
        f"# {GITHUB}",
        "x = 'xoxb-123456789012-abcdefABCDEF'",
        "database: postgresql+psycopg://team:hunter2@db/x",
        "url = https://me:p@ss/word@host/x",
        "    password = hunter22",
        'PASSWORD = "hunter22"',
        '"api_key": "0123456789"',
        "export AWS_SECRET_ACCESS_KEY=abcdefghij",
        "auth_string: admin:correct-horse",
        f"value: {letters(40)}",
        f"value: {letters(43, string.ascii_letters + string.digits + '-_')}",
        f"value: {letters(48, '0123456789abcdef')}",
        "Authorization: Bearer abcdef0123456789",
        "https://hooks.slack.com/services/T0000/B0000/abcdefgh",
    ],
)
def test_texts_that_are_secrets_are_seen(line: str) -> None:
    found = list(find_secrets(f"first\n{line}\nlast"))
    assert [secret.line for secret in found][:1] == [2], line


@pytest.mark.parametrize(
    "line",
    [
        "md5: d41d8cd98f00b204e9800998ecf8427e.dir",
        "commit 9a767e24c4e7a89d419dc423efb82a7e9c541998",
        f"sha256 {letters(64, '0123456789abcdef')}",
        "token: str = tokens[0]",
        "max_tokens: 64",
        'password = os.environ["PASSWORD"]',
        "PASSWORD=$PASSWORD",
        "postgresql://team:SECRET@127.0.0.1/x",
        'f"postgresql://{user}:{password}@{host}/x"',
        "MLFLOW_AUTH_ADMIN_PASSWORD=SECRET",
        "class Wav2Vec2FeatureExtractorOfTheYear2024:",
        "src/quickstudy/kinds/classify/episodes.py",
        "https://example.org/archives/529-Kind-of-Like-That-2024.html",
        f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{letters(43)} ada@lab",
        f"hunter: {AWS}  # pragma: allowlist secret",
        "splits: {key: quickstudy}",
        f"data:image/png;base64,{letters(2000)}",
    ],
)
def test_honest_texts_are_not(line: str) -> None:
    assert list(find_secrets(line, "some.py" if "=" in line else "some.yaml")) == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgresql+psycopg://team:hunter2@db/x", "postgresql+psycopg://***@db/x"),
        ("at https://ghp_abc@github.com/x.git failed", "at https://***@github.com/x.git failed"),
        ("https://me:p@ss:word@host:8000/x@y", "https://***@host:8000/x@y"),
        ("postgresql://me:pa/ss?w#ord@host:8000/x", "postgresql://***@host:8000/x"),
        ("https://h/x?token=abc&page=2", "https://h/x?token=***&page=2"),
        ("http://127.0.0.1:4200/api", "http://127.0.0.1:4200/api"),
        ("ssh://git@host/x", "ssh://***@host/x"),
        (f"found {AWS}.", "found ***."),
        ("host=db user=team password=hunter2", "host=db user=team password=***"),
    ],
)
def test_addresses_are_told_without_their_passwords(text: str, left: str) -> None:
    assert redacted(text) == left and redacted(left) == left
    assert str(QuickstudyError(text, where=text)) == f"{left}: {left}"


@pytest.mark.parametrize("piece", ["://a:", "eyJ-", "-----BEGIN PRIVATE KEY\n", "1", "a.", "password=", "://x@@"])
def test_no_text_takes_for_ever(piece: str) -> None:
    """Ten times the text takes not much more than ten times as long."""

    def seconds(count: int) -> float:
        text = piece * count
        start = time.process_time()
        redacted(text)
        list(find_secrets(text))
        return time.process_time() - start

    assert seconds(20_000) < 40 * max(seconds(2_000), 0.005)


# ---- what a patch takes


@pytest.fixture
def opened(project: Path) -> Path:
    """The project as one whose .gitignore knows no names of secrets, and whose stages read a folder of code."""
    kept = (project / ".gitignore").read_text().partition("# secrets")[0]
    (project / ".gitignore").write_text(kept)
    pipeline = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(pipeline.replace("deps: [stage.py, data]", "deps: [stage.py, code, data]"))
    (project / "code").mkdir()
    (project / "code/old.py").write_text("old = 1\n")
    subprocess.run(["git", "add", "--all"], cwd=project, check=True)
    commit = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-qm", "opened"]
    subprocess.run(commit, cwd=project, check=True)
    return project


def test_a_patch_takes_new_files_only_where_a_stage_reads_them(opened: Path, git: Git) -> None:
    plant = {
        "customers.txt": "what customers wrote",
        "notes/idea.py": "idea",
        "servers.env": "SECRET",
        "code/new.py": "new = 1",
        "code/.env": "SECRET",
        "code/id_rsa": "SECRET",
        "code/closed.txt": "closed",
        "src/tool.py": "tool = 1",
        "src/list.txt": "customers",
        "staged.txt": "staged",
        "code/staged.pem": "SECRET",
    }
    for name, text in plant.items():
        (opened / name).parent.mkdir(exist_ok=True)
        (opened / name).write_text(text + "\n")
    (opened / "code/closed.txt").chmod(0o600)
    git(opened, "add", "--force", "staged.txt", "code/staged.pem")
    (opened / "code/old.py").write_text("old = 2\n")
    assert git_.patched(git_.patch(opened).encode()) == {"code/new.py", "code/old.py", "src/tool.py"}
    code = git_.code_state(opened)
    assert set(code.left_out) == {"code/.env", "code/id_rsa", "code/closed.txt", "code/staged.pem"}
    assert set(code.changed) == {"code/new.py", "code/old.py", "src/tool.py", *code.left_out}
    assert lineage.record(opened)["git_left_out"] == list(code.left_out)


def test_a_changed_file_that_is_named_so_is_left_out_though_git_tracks_it(opened: Path, git: Git) -> None:
    (opened / "code/.env").write_text("A=1\n")
    git(opened, "add", "--force", "code/.env")
    git(opened, "commit", "--quiet", "--message=a mistake")
    (opened / "code/.env").write_text("A=canary\n")
    assert "canary" not in git_.patch(opened) and set(git_.code_state(opened).left_out) == {"code/.env"}


def test_where_all_files_are_closed_a_closed_one_says_nothing(opened: Path) -> None:
    """As with a umask of 077."""
    for path in opened.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            path.chmod(0o600)
    (opened / "code/new.py").write_text("new = 1\n")
    (opened / "code/new.py").chmod(0o600)
    assert git_.patched(git_.patch(opened).encode()) == {"code/new.py"}


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("params.yaml", f"# {GITHUB}\nseed: 0 ", "params.yaml, line"),
        (
            ".dvc/config",
            "['remote \"team\"']\n    url = webdavs://h/x\n    password = correct-horse\n",
            ".dvc/config, line",
        ),
        ("stage.py", f'KEY = """{KEY}"""\n', "stage.py, line 1"),
        ("code/new.py", f"one = 1\nvalue = '{letters(40)}'\n", "code/new.py, line 2"),
        ("code/latin.txt", f"Grüße {AWS}\n", "code/latin.txt, line 1"),
        ("code/blob.bin", f"\0\1\2{AWS}\0", "code/blob.bin, line 1"),
    ],
)
def test_a_secret_refuses_the_run_before_the_work_by_file_and_line(
    opened: Path, name: str, text: str, place: str
) -> None:
    path = opened / name
    before = path.read_text() if path.exists() else ""
    path.write_bytes((text + before).encode("latin-1" if "latin" in name else "utf-8"))
    with pytest.raises(QuickstudyError, match="would be recorded with what you have changed") as error:
        git_.check_recordable(opened)
    said = str(error.value)
    assert said.startswith(place) and "\n" not in said
    assert not any(secret in said for secret in (GITHUB, AWS, "correct-horse", letters(40), letters(70)))


def test_a_secret_that_is_taken_out_again_is_in_the_patch_too(opened: Path, git: Git) -> None:
    (opened / "code/old.py").write_text(f"token = '{GITHUB}'\n")
    git(opened, "commit", "--quiet", "--all", "--message=a mistake")
    (opened / "code/old.py").write_text("import os\n")
    with pytest.raises(QuickstudyError, match=r"code/old.py, line 1: an access token would be recorded"):
        git_.check_recordable(opened)


def test_a_committed_secret_beside_a_change_does_not_come_along_and_stops_nobody(
    opened: Path, git: Git, tmp_path: Path
) -> None:
    lines = [f"line{number} = 1" for number in range(9)]
    lines[4] = f"token = '{GITHUB}'"
    (opened / "code/old.py").write_text("\n".join(lines) + "\n")
    git(opened, "commit", "--quiet", "--all", "--message=a mistake")
    lines[5] = "line5 = 2"
    (opened / "code/old.py").write_text("\n".join(lines) + "\n")
    git_.check_recordable(opened)
    patch = git_.patch(opened)
    assert "line5 = 2" in patch and GITHUB not in patch
    git(opened, "worktree", "add", "--quiet", "--detach", str(tmp_path / "tree"), "HEAD")
    git_.apply_patch(tmp_path / "tree", patch.encode())
    assert (tmp_path / "tree/code/old.py").read_text() == (opened / "code/old.py").read_text()


# ---- what is recorded


CANARY = "canary-7d1f"


@pytest.fixture
def planted(opened: Path, git: Git) -> Iterator[Path]:
    """A secret in every place that the docs name, and in such as people use."""
    for name in (
        *(".env", ".env.local", "servers.env", "auth.ini", "id_ed25519", "code/.env", "code/team.pem", "kube/.env"),
        *("customers.txt", "notes/customers.csv", "code/.netrc", "credentials.json", "src/quickstudy/.env"),
        *("build/.env", "build/tasks/.env"),
    ):
        (opened / name).parent.mkdir(parents=True, exist_ok=True)
        (opened / name).write_text(f"PASSWORD={CANARY}\n")
    (opened / "code/closed.txt").write_text(f"{CANARY}\n")
    (opened / "code/closed.txt").chmod(0o600)
    local = f"['remote \"other\"']\n    url = webdavs://team:{CANARY}@127.0.0.1:9/x\n    password = {CANARY}\n"
    (opened / ".dvc/config.local").write_text(local)
    git(opened, "remote", "add", "origin", f"https://team:{CANARY}@127.0.0.1:9/x.git")
    params = (opened / "params.yaml").read_text()
    address = f"database: postgresql+psycopg://team:{CANARY}@db.example.org/x  #"
    assert "database: null" in params
    (opened / "params.yaml").write_text(params.replace("database: null", address))
    lock = (opened / "requirements.lock").read_text()
    (opened / "requirements.lock").write_text(f"--extra-index-url https://team:{CANARY}@pypi.example.org/\n{lock}")
    git(opened, "commit", "--quiet", "requirements.lock", "--message=our index")
    yield opened


def with_canary(root: Path, *own: str) -> list[str]:
    """The files below a folder that hold it, but for those where it was put."""
    found = []
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not path.is_symlink() and CANARY.encode() in path.read_bytes():
            found.append(name)
    return [name for name in found if name not in own]


def test_nothing_that_is_recorded_holds_a_secret(planted: Path) -> None:
    """The real run: flows, Prefect's server and database, DVC, MLflow."""
    before = with_canary(planted)
    assert len(before) > 15
    add_flows(planted)
    hidden = ("PREFECT_HOME", "PREFECT_API_URL", "MLFLOW_TRACKING_URI")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {
        "AWS_SECRET_ACCESS_KEY": CANARY,
        "MLFLOW_TRACKING_PASSWORD": CANARY,
        "PREFECT_API_AUTH_STRING": f"a:{CANARY}",
    }
    env["QUICKSTUDY_DATABASE"] = f"postgresql+psycopg://team:{CANARY}@db.example.org/x"
    command = [str(Path(sys.executable).parent / "quickstudy"), "run"]
    done = subprocess.run(command, cwd=planted, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    found = with_canary(planted, *before)
    assert [name for name in found if not name.startswith(".git/")] == []
    names = {path.name for path in planted.rglob("*")}
    assert {"mlflow.db", "prefect.db", "changes.patch", "lineage.json", "run.log", "MLmodel"} <= names
    kept = next((planted / "mlruns").rglob("params.yaml")).read_text()
    assert "postgresql+psycopg://***@db.example.org/x" in kept


@pytest.mark.usefixtures("served")
def test_a_secret_that_came_during_the_run_costs_the_patch_and_not_the_run(built: Path) -> None:
    (built / "stage.py").write_text(f"key = '{GITHUB}'\n" + (built / "stage.py").read_text())
    made = registry.register(built)
    assert made.version == 1 and "stage.py, line 1: an access token" in made.note and GITHUB not in made.note
    tags = registry.version(built, "1").tags
    assert tags["changes_patch"] == "withheld"
    held = [path for path in (built / "mlruns").rglob("*") if path.is_file() and GITHUB.encode() in path.read_bytes()]
    assert held == [] and not list((built / "mlruns").rglob("changes.patch"))


def test_the_code_beside_a_model_is_what_git_knows_of_it(opened: Path, tmp_path: Path, git: Git) -> None:
    for name in (".env", "team.pem", "customers.txt", "closed.py", "new.py"):
        (opened / "code" / name).write_text(f"# {CANARY if name != 'new.py' else 'new'}\n")
    (opened / "code/closed.py").chmod(0o600)
    (opened / "code/staged.txt").write_text(CANARY)
    git(opened, "add", "code/staged.txt")
    keeping.copy_code(opened / "code", tmp_path / "copy", {"new.py"})
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"old.py", "new.py"}
    installed = tmp_path / "installed"
    (installed / "__pycache__").mkdir(parents=True)
    for name in ("code.py", ".env", "__pycache__/code.pyc"):
        (installed / name).write_text("")
    keeping.copy_code(installed, tmp_path / "other", set())
    assert {path.name for path in (tmp_path / "other").iterdir()} == {"code.py"}
