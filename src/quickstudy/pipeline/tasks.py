"""The stage tasks of a kind: data → build/tasks/KIND."""

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import yaml

from quickstudy.config import load_settings
from quickstudy.data.manifest import MANIFEST, write_manifest
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.checks import check_datasets
from quickstudy.kinds.targets import TARGETS
from quickstudy.pipeline.inputs import open_datasets
from quickstudy.pipeline.paths import CACHE, DATA, TASKS, folder_of
from quickstudy.system.atomic import write_json
from quickstudy.system.progress import showing_progress
from quickstudy.tasks.frozen import freeze, write_episodes
from quickstudy.tasks.splits import meta_split, row_splits
from quickstudy.tasks.suites import test_suites


def tasks(kind: str) -> None:
    """Check a kind's datasets, split them by group and freeze the evaluation episodes.

    Where the project has no dataset of the kind, that is what is written.

    Raises:
        QuickstudyError: there is no dataset at all, a check is fatal, or nothing can be tested on.
    """
    settings = load_settings().of(kind)
    datasets = open_datasets(kind)
    with showing_progress() as progress:
        findings = check_datasets(
            list(datasets.values()),
            settings,
            partial(meta_split, splits=settings.splits),
            cache=CACHE / "checks",
            progress=lambda name, done, total: progress(f"check {name}", done, total),
        )
    fatal = [finding for finding in findings if finding.severity == "fatal"]
    if fatal:
        more = f" (and {len(fatal) - 1} more: `quickstudy data check`)" if len(fatal) > 1 else ""
        raise QuickstudyError(fatal[0].what + more, where=f"data/{fatal[0].dataset}", fix=fatal[0].fix)
    splits: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    frozen = []
    for name, dataset in datasets.items():
        groups = [(group, meta_split(dataset.info, group, settings.splits)) for group in dataset.codes("group")[0]]
        splits[name] = {"groups": dict(groups)}
        _, held_out = row_splits(dataset, settings.splits)
        if held_out.any():
            domains, domain = dataset.codes("domain")
            splits[name]["domains_held_out"] = [domains[number] for number in np.unique(domain[held_out])]
        suites = test_suites(dataset, settings.splits)
        frozen += [block for suite in suites for block in freeze(suite, settings.episodes, settings.seed)]
        counts[name] = {"examples": len(dataset), "classes": len(TARGETS[kind].names(dataset))}
        counts[name] |= {f"groups_{s}": sum(1 for _, of in groups if of == s) for s in ("train", "validation", "test")}
    if not frozen and datasets:
        raise QuickstudyError(
            "no dataset has a group on the meta-test side with enough examples",
            where="data",
            fix="Import one with --split test, or lower episodes.shots in params.yaml",
        )
    folder = folder_of(TASKS, kind)
    (folder / "splits.yaml").write_text(yaml.safe_dump(splits, allow_unicode=True), encoding="utf-8")
    write_manifest(folder / MANIFEST, DATA, kind)
    write_episodes(folder / "episodes.parquet", frozen)
    write_json(folder / "checks.json", [asdict(finding) for finding in findings])
    write_json(folder / "tasks.json", counts)
    episodes = sum(block.count for block in frozen)
    print(f"{kind}: {len(datasets)} datasets, {episodes:,} frozen episodes, {len(findings)} findings recorded")
