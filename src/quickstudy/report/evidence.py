"""What reports are made of, read from what the stages left of each kind of task, and what the gate said of all."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from quickstudy.data.dataset import PLACES, Dataset, read_dataset
from quickstudy.data.plain_yaml import read_yaml
from quickstudy.errors import QuickstudyError
from quickstudy.stats.intervals import OURS, beaten_by

QUICKSTUDY = "Quickstudy"
"""How reports call the method `OURS`."""


class Method(NamedTuple):
    """A baseline, as a kind of task has it."""

    short: str
    """for the head of a column"""
    long: str
    """for a sentence"""
    family: str
    """encoder, raw, scratch: those that differ only in what they see are one line in a figure, the better of them"""


class EvidenceFolders(NamedTuple):
    """Where the stages leave what they say of one kind of task."""

    tasks: Path
    meta_train: Path
    evaluate: Path
    model: Path


def evidence_folders(build: Path, kind: str) -> EvidenceFolders:
    """Return where ``build`` keeps the evidence of a kind: in ``build/STAGE/KIND``."""
    return EvidenceFolders(*(build / stage / kind for stage in EvidenceFolders._fields))


@dataclass(frozen=True)
class GateWord:
    """What the gate said of this version, and what the champion had answered."""

    verdict: Mapping[str, Any]
    """verdict.json: `quickstudy.evaluation.gate.Verdict.record`"""
    champion: pd.DataFrame
    """champion.parquet: the champion's rows on the same frozen episodes; empty where there was no champion, or nobody
    had to answer"""
    lineage: Mapping[str, Any]
    """lineage.json of this version's run, where it is there: git_commit, data_hash"""

    @property
    def name(self) -> str:
        """Of the champion."""
        return str(self.verdict["champion"])

    @property
    def number(self) -> str | None:
        """Of this version in the registry, where the verdict names one."""
        found = re.fullmatch(r"version (\d+)", str(self.verdict["challenger"]))
        return found[1] if found else None

    def answered(self, kind: str) -> pd.DataFrame:
        """Return the champion's rows of a kind."""
        return self.champion if self.champion.empty else self.champion[self.champion["kind"] == kind]


@dataclass(frozen=True)
class KindEvidence:
    """What the stages left of one kind of task."""

    kind: str
    table: pd.DataFrame
    """evaluate/KIND/table.csv: kind, metric, suite, modality, novelty, way, shot, method, episodes, score, ci95,
    adapt_ms"""
    episodes: pd.DataFrame
    """evaluate/KIND/episodes.parquet: one row for each episode and method"""
    curve: pd.DataFrame
    """meta_train/KIND/curve.csv: step, loss, and the meta-validation score of each modality"""
    training: Mapping[str, Any]
    """meta_train/KIND/metrics.json and training.json"""
    frozen: pd.DataFrame
    """tasks/KIND/episodes.parquet: suite, dataset, shot, episode, rows of its support and query, and what it asks about
    where these do not say so"""
    counts: Mapping[str, Mapping[str, int]]
    """tasks/KIND/tasks.json: of each dataset, examples, classes (or what the kind has) and groups by meta-split"""
    splits: Mapping[str, Any]
    """tasks/KIND/splits.yaml"""
    findings: list[Mapping[str, Any]]
    """tasks/KIND/checks.json"""
    model: Mapping[str, Any]
    """model/KIND/config.yaml"""
    lineage: Mapping[str, Any]
    """model/KIND/lineage.json"""
    weights_file: Path
    """model/KIND/model.safetensors"""
    weights: str
    """its sha256, hexadecimal"""
    datasets: Mapping[str, Dataset]
    """their examples are read as they are asked for"""

    @property
    def modalities(self) -> list[str]:
        """That the model has learned."""
        return list(self.model["modalities"])

    @property
    def suites(self) -> list[str]:
        return list(dict.fromkeys(self.table["suite"]))

    @property
    def shots(self) -> list[int]:
        return sorted(int(shot) for shot in self.table["shot"].unique())

    @property
    def baselines(self) -> list[str]:
        """Methods beside ours, in the order of the table."""
        return [name for name in dict.fromkeys(self.table["method"]) if name != OURS]

    @property
    def own(self) -> pd.DataFrame:
        """Of ``table`` the model's rows."""
        return self.table[self.table["method"] == OURS]

    @cached_property
    def below(self) -> list[dict[str, Any]]:
        """Where the model lies below the interval of a baseline."""
        return beaten_by(self.table)

    @cached_property
    def answered(self) -> pd.DataFrame:
        """Of ``episodes``, the model's rows with the support and the query of each, and what it asks about where these
        do not say so. Empty where the evaluation did not keep its answers."""
        own = self.episodes[self.episodes["method"] == OURS]
        if "answers" not in own:
            return own.iloc[:0]
        keys = ["suite", "shot", "episode"]
        drawn = [*keys, *(name for name in ("support", "query", "asked") if name in self.frozen)]
        return own[own["answers"].notna()].merge(self.frozen[drawn], on=keys, suffixes=("_n", ""))

    def rows(self, suite: str, method: str) -> pd.DataFrame:
        """Return those of the table, by shot."""
        chosen = (self.table["suite"] == suite) & (self.table["method"] == method)
        return self.table[chosen].sort_values("shot")

    def best_of(self, suite: str, methods: list[str]) -> str | None:
        """Return the method with the highest mean score over the shots. None: the suite has none of them."""
        means = {name: self.rows(suite, name)["score"].mean() for name in methods if len(self.rows(suite, name))}
        return max(means, key=means.__getitem__) if means else None


def read_evidence(kind: str, folders: EvidenceFolders, data: Path) -> KindEvidence:
    """Read what the stages before the card have written of a kind.

    Args:
        data: the data root.

    Raises:
        QuickstudyError: a file is missing.
    """
    tasks, meta_train, evaluate, model = folders
    weights = model / "model.safetensors"
    try:
        counts = json.loads((tasks / "tasks.json").read_text(encoding="utf-8"))
        return KindEvidence(
            kind=kind,
            table=pd.read_csv(evaluate / "table.csv"),
            episodes=pd.read_parquet(evaluate / "episodes.parquet"),
            curve=pd.read_csv(meta_train / "curve.csv"),
            training={
                name: value
                for file in ("training.json", "metrics.json")
                for name, value in json.loads((meta_train / file).read_text(encoding="utf-8")).items()
            },
            frozen=pd.read_parquet(tasks / "episodes.parquet"),
            counts=counts,
            splits=read_yaml((tasks / "splits.yaml").read_text(encoding="utf-8")),
            findings=json.loads((tasks / "checks.json").read_text(encoding="utf-8")),
            model=read_yaml((model / "config.yaml").read_text(encoding="utf-8")),
            lineage=json.loads((model / "lineage.json").read_text(encoding="utf-8")),
            weights_file=weights,
            weights=sha256(weights.read_bytes()).hexdigest(),
            datasets={name: read_dataset(data / name, PLACES) for name in counts},
        )
    except FileNotFoundError as error:
        raise QuickstudyError(
            "the card needs a file that is missing", where=error.filename, fix="`quickstudy run` makes it"
        ) from None


def without_part(folders: EvidenceFolders) -> str | None:
    """Return why the model has no part for a kind; None where it has one, or nobody trained it for that kind."""
    path = folders.model / "none.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["why"]) if path.exists() else None


def read_gate(folder: Path) -> GateWord:
    """Read what the gate left: verdict.json, champion.parquet where there was a champion, and lineage.json of the
    version's run where it is there."""
    verdict = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    path = folder / "lineage.json"
    lineage = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if verdict["champion"] is None:
        return GateWord(verdict, pd.DataFrame(), lineage)
    champion = pd.read_parquet(folder / "champion.parquet")
    if champion.empty:
        return GateWord(verdict, champion, lineage)
    if "kind" not in champion:  # of before there were kinds
        champion = champion.rename(columns={"accuracy": "score"}).assign(kind="classify")
    return GateWord(verdict, champion[champion["method"] == OURS], lineage)
