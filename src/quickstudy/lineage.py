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

from quickstudy import versions
from quickstudy.config import load_settings

# The packages whose arithmetic ends up in the weights and the numbers.
NUMERIC = ("torch", "numpy", "scipy", "scikit-learn", "transformers", "pyarrow", "pandas", "pillow", "soundfile")


class Lineage(TypedDict):
    """What is written to ``lineage.json``."""

    git_commit: str | None
    git_branch: str | None
    git_dirty: bool
    git_changed: list[str]
    data_hash: str | None
    dvc_lock_hash: str | None
    requirements_lock_hash: str | None
    stages: dict[str, str]
    parameters: dict[str, Any]
    python: str
    platform: str
    cpu: str
    cpu_threads: int
    device: str
    packages: dict[str, str]


def record(root: Path) -> Lineage:
    """The lineage of what the project's stages have built.

    Returns:
        hashes of files are sha256 in hex, ``data_hash`` and the outputs under ``stages`` are DVC's md5; ``git_dirty``
        leaves out data.dvc and dvc.lock, which a run writes itself; ``parameters`` are those of params.yaml with dotted
        names. ``device`` is what torch would compute on here.

    Raises:
        QuickstudyError: no git repository, or params.yaml is not valid.
    """
    code = versions.code_state(root)
    return Lineage(
        git_commit=code.commit,
        git_branch=code.branch,
        git_dirty=bool(code.changed),
        git_changed=list(code.changed),
        data_hash=versions.data_hash(root),
        dvc_lock_hash=file_hash(root / "dvc.lock"),
        requirements_lock_hash=file_hash(root / "requirements.lock"),
        stages=versions.lock_hashes(root),
        parameters=versions.flatten(load_settings(root / "params.yaml").model_dump(mode="json")),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu(),
        cpu_threads=os.cpu_count() or 1,
        device=_device(),
        packages=_packages(),
    )


def to_json(lineage: Lineage) -> str:
    return json.dumps(lineage, indent=2, ensure_ascii=False) + "\n"


def file_hash(path: Path) -> str | None:
    """sha256 of a file in hex; None where it does not exist."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
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
    # Importing torch takes seconds; whoever asks in a process that has not done so gets it now.
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return "mps" if sys.platform == "darwin" and torch.backends.mps.is_available() else "cpu"
