"""The rules of the house that a machine can check: docs and reviews need not."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from quickstudy.versions.stale import stages

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "src/quickstudy"

# No dependencies: the settings, whose values are under `params`, and what only prints or starts processes.
NO_DEPENDENCY = {
    "quickstudy",
    "quickstudy.config",
    "quickstudy.errors",
    "quickstudy.pipeline.paths",
    "quickstudy.secrets",
    "quickstudy.system.atomic",
    "quickstudy.system.environment",
    "quickstudy.system.printing",
    "quickstudy.system.processes",
    "quickstudy.system.progress",
    "quickstudy.system.terminal",
    "quickstudy.system.turns",
    "quickstudy.system.workers",
}


def test_imports_go_one_way() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_versions_calls_git_and_dvc() -> None:
    callers = set()
    for path in sorted([*PACKAGE.rglob("*.py"), *(REPOSITORY / "flows").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.List | ast.Tuple):
                words = [item.value if isinstance(item, ast.Constant) else None for item in node.elts]
                if words[:1] == ["git"] or words[1:3] == ["-m", "dvc"]:
                    callers.add(path.relative_to(REPOSITORY).as_posix())
    assert callers and all(caller.startswith("src/quickstudy/versions/") for caller in callers)


NAMED_BY_OTHERS = ("episodes.ways", "train.tasks", "train.examples", "runs.hours")


def leaves(values: dict[str, Any], prefix: str = "") -> list[str]:
    # A mapping whose keys are no identifiers of ours (modalities, names of datasets, of steps) is one parameter.
    found = []
    for name, value in values.items():
        if isinstance(value, dict) and prefix + name not in NAMED_BY_OTHERS:
            found += leaves(value, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def test_every_parameter_is_used() -> None:
    read: set[str] = set()
    for path in [*PACKAGE.rglob("*.py"), *(REPOSITORY / "flows").glob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    parameters = leaves(yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8")))
    assert len(parameters) > 10
    assert [name for name in parameters if name.rpartition(".")[2] not in read] == []


def test_every_parameter_is_explained() -> None:
    lines = (REPOSITORY / "params.yaml").read_text(encoding="utf-8").splitlines()
    bare = [line for line in lines if re.match(r"\s+\w+: ", line) and "#" not in line and "{" not in line]
    # a name that says it all may stand alone, but not many
    assert len(bare) <= 2, bare


KINDS = tuple(path.name for path in sorted((PACKAGE / "kinds").iterdir()) if (path / "__init__.py").exists())


@cache
def imports() -> Any:
    return grimp.build_graph("quickstudy", exclude_type_checking_imports=True)


@pytest.mark.parametrize("name", [stage.name for stage in stages(REPOSITORY)])
def test_a_stage_depends_on_the_code_that_it_runs(name: str) -> None:
    (declared,) = [stage.deps for stage in stages(REPOSITORY) if stage.name == name]
    stage, _, kind = name.partition("@")
    runs = f"quickstudy.pipeline.{stage}"
    of_others = tuple(f"quickstudy.kinds.{other}" for other in KINDS if kind and other != kind)
    missing = []
    for module in sorted({runs, *imports().find_upstream_modules(runs)} - NO_DEPENDENCY):
        if module.startswith(of_others):  # a kind's table imports all kinds; a stage runs its own
            continue
        path = Path("src", *module.split("."))
        files = [f"{path}.py", f"{path}/__init__.py"]
        file = next(file for file in files if (REPOSITORY / file).exists())
        statements = ast.parse((REPOSITORY / file).read_text(encoding="utf-8")).body
        says_something = any(not isinstance(statement, ast.Expr) for statement in statements)  # more than a docstring
        if says_something and not any(file == dep or file.startswith(f"{dep}/") for dep in declared):
            missing.append(file)
    assert missing == []
    assert all((REPOSITORY / dep).exists() for dep in declared if dep.startswith("src/"))
    assert not [
        dep for dep in declared if f"{dep}/".replace("/", ".").startswith(tuple(f"src.{o}." for o in of_others))
    ]


def test_the_command_line_starts_without_the_heavy_packages() -> None:
    code = "import sys; from quickstudy import cli; cli._register(); print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "quickstudy.cli.stages" in loaded
    assert not loaded & {"torch", "mlflow", "prefect", "pandas", "numpy", "sklearn", "pyarrow", "matplotlib", "dvc"}
