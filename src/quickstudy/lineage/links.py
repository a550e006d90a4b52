"""What each link of the chain says, as text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy import registry
from quickstudy.registry.ledger import Ledger
from quickstudy.registry.records import Recorded, counted, json_artifact, recorded
from quickstudy.registry.store import FILES
from quickstudy.versions import git

MAIN = ("model.learner", "model.encoders", "train.steps", "train.learning_rate", "train.shots", "seed", "splits.key")
"""Parameters that are shown first; a name stands for those below it too."""


@dataclass(frozen=True)
class Link:
    """A link of the chain."""

    name: str
    title: str
    """what it is, in a few words"""
    facts: tuple[tuple[str, str], ...]
    """name and value; the most telling first"""
    values: Mapping[str, Any]
    """everything, for `--json`"""


def chain(root: Path, uri: str) -> tuple[Link, ...]:
    """Return the links of a model, in order. What was not recorded is left out. Changes nothing.

    Args:
        uri: of a version, an alias or a run; see `quickstudy.registry.records.recorded`.

    Raises:
        QuickstudyError: there is no such model, or its run was deleted.
    """
    record = recorded(root, uri)
    origin = json_artifact(root, record, "lineage.json")
    counts = counted(root, record, origin)
    commit = origin.get("git_commit") or record.tags.get("git_commit") or ""
    links = [
        _data(origin, record, counts),
        _tasks(origin, counts),
        _parameters(origin, record),
        _code(origin, commit, git.about_commit(root, commit) if commit else None),
        _environment(origin, record),
        _run(record, registry.redacted(registry.tracking_uri(root))),
    ]
    if record.version is not None:
        links += [_version(record), _promotions(record.version, registry.read_ledger(root))]
    return tuple(links)


def _data(origin: Mapping[str, Any], record: Recorded, counts: Mapping[str, Any]) -> Link:
    version = origin.get("data_hash") or record.tags.get("data_hash") or ""
    sets = {name: of for name, of in counts.items() if isinstance(of, Mapping)}
    facts = [
        (name, f"{of.get('examples', 0):,} examples, {of.get('classes', 0):,} classes") for name, of in sets.items()
    ]
    return Link(
        "data",
        f"version {version[:8] or 'not recorded'}",
        (*facts, *((("DVC", version),) if version else ())),
        {"version": version, "datasets": sets},
    )


def _tasks(origin: Mapping[str, Any], counts: Mapping[str, Any]) -> Link:
    outs = {path: md5 for path, md5 in origin.get("stages", {}).items() if path.startswith("build/tasks/")}
    sides = {
        side: sum(of.get(f"groups_{side}", 0) for of in counts.values() if isinstance(of, Mapping))
        for side in ("train", "validation", "test")
    }
    parameters = origin.get("parameters", {})
    facts = [(f"meta-{side}", f"{count:,} groups") for side, count in sides.items() if count]
    if "episodes.count" in parameters:
        shots = ", ".join(map(str, parameters.get("episodes.shots", [])))
        facts.append(("episodes", f"{parameters['episodes.count']} a suite and shot ({shots})"))
    facts += [
        (path.removeprefix("build/tasks/"), f"md5 {md5[:8]}")
        for path, md5 in outs.items()
        if not path.endswith("checks.json")
    ]
    title = f"{sum(sides.values()):,} groups on three sides" if any(sides.values()) else "meta-splits and episodes"
    return Link("tasks", title, tuple(facts), {"outputs": outs, "groups": sides})


def _parameters(origin: Mapping[str, Any], record: Recorded) -> Link:
    values: Mapping[str, Any] = origin.get("parameters") or record.parameters
    shown = [name for main in MAIN for name in values if name == main or name.startswith(f"{main}.")]
    facts = [(name, str(values[name])) for name in shown]
    if len(values) > len(shown):
        facts.append(("others", f"{len(values) - len(shown)}, in params.yaml"))
    title = f"learner {values['model.learner']}" if "model.learner" in values else f"{len(values)} parameters"
    if "train.steps" in values:
        title += f", {values['train.steps']} steps"
    return Link("parameters", title, tuple(facts), values)


def _code(origin: Mapping[str, Any], commit: str, about: tuple[str, str] | None) -> Link:
    facts: list[tuple[str, str]] = []
    if about is not None:
        facts += [("message", about[1]), ("of", about[0])]
    elif commit:
        facts.append(("", "this repository does not have the commit"))
    changed = origin.get("git_changed", [])
    if origin.get("git_dirty"):
        facts.append(("changed", f"{', '.join(changed[:4])}{' …' if len(changed) > 4 else ''} (changes.patch)"))
    if origin.get("git_branch"):
        facts.append(("branch", origin["git_branch"]))
    facts.append(("commit", commit))
    keys = ("git_commit", "git_branch", "git_dirty", "git_changed", "git_left_out")
    title = f"commit {commit[:10]}{' + changes' if origin.get('git_dirty') else ''}" if commit else "no commit"
    return Link("code", title, tuple(facts), {key: origin[key] for key in keys if key in origin})


def _environment(origin: Mapping[str, Any], record: Recorded) -> Link:
    packages = origin.get("packages", {})
    facts = [("cpu", f"{origin['cpu']}, {origin.get('cpu_threads', '?')} cores")] if "cpu" in origin else []
    threads, able = origin.get("threads"), origin.get("cpu_capability")
    facts += [("threads", f"{threads} of torch, {able}")] if threads else []
    facts += [("system", origin["platform"])] if "platform" in origin else []
    facts += [(name, packages[name]) for name in ("numpy", "scikit-learn", "transformers") if name in packages]
    lock = origin.get("requirements_lock_hash") or record.tags.get("requirements_lock_hash", "")
    facts += [("requirements.lock", f"sha256 {lock[:12]}")] if lock else []
    keys = ("python", "platform", "cpu", "cpu_capability", "cpu_threads", "threads", "device", "packages")
    device, python = (origin.get(key) or record.tags.get(key, "?") for key in ("device", "python"))
    return Link(
        "environment",
        f"Python {python}, torch {packages.get('torch', '?')}",
        (("device", device), *facts),
        {**{key: origin[key] for key in keys if key in origin}, "requirements_lock_hash": lock},
    )


def _run(record: Recorded, store: str) -> Link:
    results = {
        name: value for name, value in record.metrics.items() if not name.startswith(("live/", "system/", "train/"))
    }
    facts = []
    for name, value in sorted(results.items()):
        of = name.removeprefix("evaluate/").rpartition("/")[0]
        said = f" of {of}" if of else ""
        if name.endswith(("mean_score", "mean_accuracy")):
            facts.append((f"mean score{said}", f"{100 * value:.1f} %, over suites and shots"))
        elif name.endswith("below_a_baseline"):
            facts.append((f"below a baseline{said}", f"at {value:.0f} places"))
    facts += [("began", record.created[:19].replace("T", " ")), ("id", record.run_id), ("in", store)]
    values = {"run_id": record.run_id, "began": record.created, "tracking_uri": store, "metrics": results}
    return Link("run", f"run {record.run_id[:8]}", tuple(facts), values)


def _version(record: Recorded) -> Link:
    try:
        files: Mapping[str, str] = json.loads(record.tags.get(FILES, "{}"))
    except ValueError:
        files = {}
    names = "".join(f" @{alias}" for alias in record.aliases)
    facts = tuple((name, f"sha256 {digest[:12]}") for name, digest in sorted(files.items(), key=_weights_first))
    values = {"version": record.version, "uri": record.uri, "aliases": list(record.aliases), "files": files}
    return Link("version", f"version {record.version}{names}", facts, values)


def _weights_first(file: tuple[str, str]) -> tuple[bool, str]:
    return not file[0].endswith(".safetensors"), file[0]


def _promotions(version: int, ledger: Ledger) -> Link:
    facts, values = [], []
    for number, state in ledger.states().items():
        entry = ledger.entries[number]
        mine = [move for move in entry.moves if version in (move.origin, move.target)]
        if state != "done" or not mine:
            continue
        moves = ", ".join(map(str, mine))
        why = f": {entry.why}" if entry.why else ""
        facts.append((entry.when[:16].replace("T", " "), f"{moves} ({entry.verb} by {entry.who}{why})"))
        values.append(
            {
                "line": number,
                "when": entry.when,
                "who": entry.who,
                "verb": entry.verb,
                "why": entry.why,
                "moves": [vars(move) for move in mine],
                "evidence": entry.evidence,
            }
        )
    facts += [("broken", f"the ledger does not hold: {found}") for found in ledger.broken]
    title = f"{len(values)} move{'s' if len(values) != 1 else ''} of an alias" if values else "no alias moved"
    return Link("promotions", title, tuple(facts), {"moves": values, "broken": [str(b) for b in ledger.broken]})
