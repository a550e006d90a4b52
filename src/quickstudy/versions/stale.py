"""Which stages dvc.yaml has, and which are stale and why."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from quickstudy.data.manifest import MANIFEST, is_current
from quickstudy.data.plain_yaml import read_yaml
from quickstudy.errors import QuickstudyError
from quickstudy.versions.command import content, run_dvc


@dataclass(frozen=True)
class Stage:
    """One entry of dvc.yaml. Paths are relative to the project."""

    name: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]
    after: tuple[str, ...]
    """The stages whose outputs it reads."""


def stages(root: Path) -> tuple[Stage, ...]:
    """Return the stages of dvc.yaml, each after those that it depends on.

    Raises:
        QuickstudyError: dvc.yaml is not readable or its stages depend on each other in a circle.
    """
    path = root / "dvc.yaml"
    try:
        written: Mapping[str, Any] = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("stages") or {}
        entries = {name: entry for stage, found in written.items() for name, entry in _each(root, stage, found)}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise QuickstudyError(f"cannot be read ({error})", where=path) from None
    except (AttributeError, KeyError, TypeError) as error:  # a stage that is none
        raise QuickstudyError(f"cannot be read ({type(error).__name__}: {error})", where=path) from None
    for name in entries:  # DVC gets it as an argument
        if name.startswith("-"):
            raise QuickstudyError(f"a stage cannot be called {name!r}", where=path, fix="Begin its name with a letter")
    outs = {name: _paths(entry, "outs", "metrics", "plots") for name, entry in entries.items()}
    after = {
        name: tuple(
            other
            for other in entries
            if other != name and any(overlap(dep, out) for dep in _paths(entry, "deps") for out in outs[other])
        )
        for name, entry in entries.items()
    }
    try:
        order = list(TopologicalSorter(after).static_order())
    except ValueError as error:
        raise QuickstudyError(f"the stages depend on each other in a circle ({error.args[1]})", where=path) from None
    return tuple(
        Stage(
            name=name,
            deps=_paths(entries[name], "deps"),
            params=_paths(entries[name], "params"),
            outs=outs[name],
            after=after[name],
        )
        for name in order
    )


def _each(root: Path, stage: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A stage by its name in DVC, or of one with ``foreach`` each of those that it stands for: STAGE@KEY."""
    if "foreach" not in entry:
        yield stage, entry
        return
    over = entry["foreach"]
    if match := re.fullmatch(r"\$\{([\w.]+)\}", str(over)):
        values: Any = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
        for part in match[1].split("."):
            values = (values or {}).get(part)
        over = values or {}
    for key, item in over.items() if isinstance(over, Mapping) else ((each, each) for each in over):
        yield f"{stage}@{key}", _filled(entry["do"], {"key": str(key), "item": str(item)})


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    """``${key}`` and ``${item}`` in every text of a stage."""
    if isinstance(value, Mapping):
        return {_filled(name, names): _filled(each, names) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, names) for each in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(key|item)\}", lambda match: names[match[1]], value)
    return value


def stale(root: Path) -> dict[str, tuple[str, ...]]:
    """Return what is not up to date and why: names of stages, in order, and first "data" for data/ itself.

    A stage after a stale one is stale too, though it may turn out that its inputs stay the same; not where the data has
    changed, but none of the datasets that its kind reads (`quickstudy.data.manifest`). Nothing is changed.

    Raises:
        QuickstudyError: no git or DVC repository, a broken dvc.yaml, or another DVC command is busy.
    """
    status: dict[str, Any] = json.loads(run_dvc(root, "status", "--json"))
    found: dict[str, tuple[str, ...]] = {}
    if reason := _why_data(root, status):
        found["data"] = (reason,)
    lock = read_lock(root)
    outs: dict[str, tuple[str, ...]] = {}
    of_others: set[str] = set()
    for stage in stages(root):
        outs[stage.name] = stage.outs
        before = [out for name in stage.after if name in found for out in outs[name]]
        reasons = _why_stage(root, stage, before, status.get(stage.name, []), lock.get(stage.name))
        if "data" in found and any(overlap(dep, "data") for dep in stage.deps):
            reasons.append("data changed")
        reasons += [f"after {name}" for name in stage.after if name in found and name not in of_others]
        if reasons:
            found[stage.name] = tuple(dict.fromkeys(reasons))
            manifests = [root / out for out in stage.outs if Path(out).name == MANIFEST]
            if set(reasons) == {"data changed"} and manifests:
                of_others |= {stage.name} if all(is_current(path, root / "data") for path in manifests) else set()
    return found


def locked(path: Path) -> dict[str, Any]:
    """Return stage → its command, dependencies, parameters and outputs, of a dvc.lock; nothing where there is none.

    Raises:
        QuickstudyError: it cannot be read.
    """
    try:
        return _locked(path.read_bytes(), path)
    except FileNotFoundError:
        return {}


def overlap(a: str, b: str) -> bool:
    """Return whether one of two paths is the other or lies in it."""
    one, other = Path(a).parts, Path(b).parts
    return one[: len(other)] == other or other[: len(one)] == one


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a mapping without mappings in it: {"a": {"b": 1}} → {"a.b": 1}. Lists are values."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _paths(entry: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    # An item is a path, or a mapping from one path to its settings.
    items = (item for key in keys for item in entry.get(key) or [])
    return tuple(str(item if isinstance(item, str) else next(iter(item))) for item in items)


def read_lock(root: Path) -> dict[str, Any]:
    """Return what `locked` does, of the dvc.lock of a project."""
    try:
        return _locked(content(root, "dvc.lock"), root / "dvc.lock")
    except FileNotFoundError:
        return {}


def _locked(text: bytes, path: Path) -> dict[str, Any]:
    try:
        return dict((read_yaml(text) or {}).get("stages") or {})
    except (yaml.YAMLError, AttributeError):
        raise QuickstudyError("is not readable", where=path, fix="Restore it: git checkout dvc.lock") from None


def _why_data(root: Path, status: Mapping[str, Any]) -> str | None:
    if not (root / "data.dvc").exists():
        return "no version yet" if (root / "data").is_dir() else "not there yet"
    words = {
        "deleted": "data/ is missing",
        "modified": "data/ differs from data.dvc",
        "new": "data/ differs from data.dvc",
        "not in cache": "not in DVC's cache yet",
    }
    for entry in status.get("data.dvc", []):
        for state in entry.get("changed outs", {}).values():
            return words.get(str(state), str(state))
    return None


def _why_stage(
    root: Path, stage: Stage, before: list[str], entries: list[Any], locked: Mapping[str, Any] | None
) -> list[str]:
    """Return why a stage is stale, beside what the stale stages before it say, whose outputs are ``before``. A run that
    is cut off between two stages leaves the first up to date and the second with an input that has changed."""
    if locked is None:
        return ["never ran"]
    reasons: list[str] = []
    for entry in entries:
        if not isinstance(entry, Mapping):
            reasons.append(str(entry).replace("changed command", "its command changed"))
            continue
        for path, state in entry.get("changed deps", {}).items():
            if path.endswith("params.yaml"):
                reasons += _why_params(root, stage, locked)
            elif overlap(path, "data") or not any(overlap(path, out) for out in before):
                reasons.append(f"{path} {'is missing' if state == 'deleted' else 'changed'}")
        for path, state in entry.get("changed outs", {}).items():
            reasons.append(f"{path} {'is missing' if state == 'deleted' else 'was changed by hand'}")
    return reasons or (["an input changed"] if entries and not before else [])


def _why_params(root: Path, stage: Stage, locked: Mapping[str, Any]) -> list[str]:
    now = flatten(yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8")) or {})
    then = flatten(locked.get("params", {}).get("params.yaml", {}))
    mine = {name for name in {*now, *then} if any(name == p or name.startswith(f"{p}.") for p in stage.params)}
    return [
        f"{name}: {then.get(name, 'nothing')} → {now.get(name, 'nothing')}"
        for name in sorted(mine)
        if now.get(name) != then.get(name)
    ]
