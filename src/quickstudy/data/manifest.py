"""Which datasets of a kind there are, each by the digest of its files: what a kind's stages depend on in data/."""

import hashlib
import json
from pathlib import Path

import yaml

from quickstudy.data.contents import FILE
from quickstudy.data.dataset import dataset_names
from quickstudy.data.plain_yaml import read_yaml
from quickstudy.errors import QuickstudyError

MANIFEST = "data.json"


def manifest(root: Path, kind: str) -> dict[str, str]:
    """Return the datasets of a kind under the data root: name → sha256 of what dataset.yaml and the examples are."""
    found = {}
    for name in dataset_names(root):
        described = (root / name / "dataset.yaml").read_bytes()
        if (read_yaml(described) or {}).get("kind", "classify") != kind:
            continue
        digest = hashlib.sha256(hashlib.sha256(described).digest())
        if (root / name / FILE).exists():
            with (root / name / FILE).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        found[name] = digest.hexdigest()
    return found


def write_manifest(path: Path, root: Path, kind: str) -> None:
    """Write ``manifest`` as JSON, with the kind."""
    path.write_text(json.dumps({"kind": kind, "datasets": manifest(root, kind)}, indent=1) + "\n", encoding="utf-8")


def read_manifest(path: Path) -> dict[str, str]:
    """Return the datasets that a manifest names: name → sha256.

    Raises:
        QuickstudyError: it is missing or damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["datasets"])
    except FileNotFoundError:
        raise QuickstudyError("not found", where=path, fix="`quickstudy tasks` writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise QuickstudyError(f"is damaged ({error})", where=path, fix="`quickstudy tasks` writes it anew") from None


def is_current(path: Path, root: Path) -> bool:
    """Return whether a manifest still says what lies under the data root; False where it cannot be read."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return bool(told["datasets"] == manifest(root, told["kind"]))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return False
