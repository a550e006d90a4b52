"""Where a model comes from: code, data, parameters, environment and device, in one record."""

import hashlib
import json
import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

from quickstudy.config import load_settings
from quickstudy.secrets import redacted, redacted_values
from quickstudy.versions import dvc, git, stale

# The packages whose arithmetic ends up in the weights and the numbers.
NUMERIC = (
    "torch",
    "lightning-fabric",
    "numpy",
    "scipy",
    "scikit-learn",
    "transformers",
    "pyarrow",
    "pandas",
    "pillow",
    "soundfile",
)

FEATURES = Path(".cache") / "features"
"""Where a stage keeps what the frozen fronts of the encoders made of the datasets."""


class Machine(TypedDict):
    """A machine and its packages: the part of a `Lineage` that is not of the project."""

    python: str
    platform: str
    cpu: str
    cpu_capability: str
    cpu_threads: int
    threads: int
    device: str
    packages: dict[str, str]


class Lineage(Machine):
    """What is written to ``lineage.json``."""

    git_commit: str | None
    git_branch: str | None
    git_dirty: bool
    git_changed: list[str]
    git_left_out: list[str]
    data_hash: str | None
    dvc_lock_hash: str | None
    requirements_lock_hash: str | None
    stages: dict[str, str]
    features: dict[str, str]
    parameters: dict[str, Any]


def record(root: Path) -> Lineage:
    """Return the lineage of what the project's stages have built.

    Returns:
        hashes of files are sha256 in hex, ``data_hash`` and the outputs under ``stages`` are DVC's md5; ``git_dirty``
        leaves out data.dvc and dvc.lock, which a run writes itself; ``git_left_out`` are the changed files that are
        not in the patch, being too large or not for others' eyes; ``features`` are hashes of arrays that the training
        read; ``parameters`` are those of params.yaml with dotted names, without passwords in addresses. ``device`` is
        what torch would compute on here, with ``threads`` threads and at most the instructions of ``cpu_capability``.

    Raises:
        QuickstudyError: no git repository, or params.yaml is not valid.
    """
    code = git.code_state(root)
    parameters = redacted_values(load_settings(root / "params.yaml").model_dump(mode="json"))
    return Lineage(
        git_commit=code.commit,
        git_branch=code.branch,
        git_dirty=bool(code.changed),
        git_changed=list(code.changed),
        git_left_out=list(code.left_out),
        data_hash=dvc.data_hash(root),
        dvc_lock_hash=kept_hash(root / "dvc.lock"),
        requirements_lock_hash=kept_hash(root / "requirements.lock"),
        stages=dvc.lock_hashes(root),
        features=feature_hashes(root),
        parameters=stale.flatten(parameters),
        **machine(parameters["train"]["threads"]),
    )


def machine(threads: int = 0) -> Machine:
    """Return what there is to say of this machine and the packages here.

    Args:
        threads: of torch, as ``train.threads`` sets them.
    """
    # Importing torch takes seconds; whoever asks in a process that has not done so gets it now.
    import torch

    return Machine(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        cpu_threads=os.cpu_count() or 1,
        threads=threads or torch.get_num_threads(),
        device=_device(),
        packages=_packages(),
    )


def feature_hashes(root: Path) -> dict[str, str]:
    """Return the name of a file in ``.cache/features`` → sha256, of each dataset's latest: an encoder's name is not in
    it, its content is (see `quickstudy.encoders.features`)."""
    latest: dict[str, Path] = {}
    for path in sorted((root / FEATURES).glob("*-*.npy"), key=lambda path: path.stat().st_mtime):
        latest[path.name.rpartition("-")[0]] = path
    return {path.name: file_hash(path) or "" for _, path in sorted(latest.items())}


def to_json(lineage: Lineage) -> str:
    """Return what stands in lineage.json."""
    return json.dumps(lineage, indent=2, ensure_ascii=False) + "\n"


def file_hash(path: Path) -> str | None:
    """Return the sha256 of a file in hex; None where it does not exist."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def kept(path: Path) -> bytes:
    """Return a text file as it is recorded: what is in it, but for passwords in addresses and the like."""
    return redacted(path.read_bytes().decode(errors="surrogateescape")).encode(errors="surrogateescape")


def kept_hash(path: Path) -> str | None:
    """Return the sha256 of `kept`; None where there is no such file."""
    try:
        return hashlib.sha256(kept(path)).hexdigest()
    except FileNotFoundError:
        return None


def _packages() -> dict[str, str]:
    found = {}
    for name in NUMERIC:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match.group(1) if match else platform.processor() or platform.machine()


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return "mps" if sys.platform == "darwin" and torch.backends.mps.is_available() else "cpu"
