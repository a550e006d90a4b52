"""What the card is made of, read from the stages' outputs."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from quickstudy.data.dataset import Dataset, read_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.stats.intervals import OURS, beaten_by

SHORT = {
    OURS: "Quickstudy",
    "logreg_encoder": "LogReg, encoder",
    "centroid_encoder": "centroid, encoder",
    "logreg_raw": "LogReg, raw",
    "centroid_raw": "centroid, raw",
    "scratch": "from scratch",
}
LONG = {
    OURS: "Quickstudy",
    "logreg_encoder": "logistic regression on the encoder before meta-training",
    "centroid_encoder": "nearest centroid on the encoder before meta-training",
    "logreg_raw": "logistic regression on raw features",
    "centroid_raw": "nearest centroid on raw features",
    "scratch": "the same network trained from scratch",
}
FAMILIES = {
    "encoder": ("logreg_encoder", "centroid_encoder"),
    "raw": ("logreg_raw", "centroid_raw"),
    "scratch": ("scratch",),
}
"""Baselines that differ only in what they see are one line in a figure: the better of them."""


@dataclass(frozen=True)
class GateWord:
    """What the gate said of this version, and what the champion had answered."""

    verdict: Mapping[str, Any]
    """verdict.json: `quickstudy.evaluation.gate.Verdict.record`"""
    champion: pd.DataFrame
    """champion.parquet: the champion's rows on the same frozen episodes; empty where there was no champion"""
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


@dataclass(frozen=True)
class Evidence:
    table: pd.DataFrame
    """evaluate/table.csv: suite, modality, novelty, way, shot, method, episodes, accuracy, ci95, adapt_ms"""
    episodes: pd.DataFrame
    """evaluate/episodes.parquet: one row for each episode and method"""
    curve: pd.DataFrame
    """meta_train/curve.csv: step, loss, and the meta-validation accuracy of each modality"""
    training: Mapping[str, Any]
    """meta_train/metrics.json and training.json"""
    frozen: pd.DataFrame
    """tasks/episodes.parquet: suite, dataset, shot, episode, and rows of its support and query, class by class"""
    counts: Mapping[str, Mapping[str, int]]
    """tasks/tasks.json: of each dataset, examples, classes and groups by meta-split"""
    splits: Mapping[str, Any]
    """tasks/splits.yaml"""
    findings: list[Mapping[str, Any]]
    """tasks/checks.json"""
    model: Mapping[str, Any]
    """model/config.yaml"""
    lineage: Mapping[str, Any]
    """model/lineage.json"""
    weights: str
    """sha256 of model.safetensors, hexadecimal"""
    datasets: Mapping[str, Dataset]
    """without their examples"""
    data: Path
    """the data root"""
    gate: GateWord | None = None

    @property
    def suites(self) -> list[str]:
        return list(dict.fromkeys(self.table["suite"]))

    @property
    def shots(self) -> list[int]:
        return sorted(int(shot) for shot in self.table["shot"].unique())

    @property
    def methods(self) -> list[str]:
        """That were judged, ours first; those that this file does not know last."""
        found = dict.fromkeys(self.table["method"])
        return [name for name in SHORT if name in found] + [name for name in found if name not in SHORT]

    @property
    def baselines(self) -> list[str]:
        return [name for name in self.methods if name != OURS]

    @cached_property
    def below(self) -> list[dict[str, Any]]:
        """Where the model lies below the interval of a baseline."""
        return beaten_by(self.table)

    @cached_property
    def ours(self) -> pd.DataFrame:
        """Of ``episodes``, the model's rows with the support and the query of each. Empty where the evaluation did not
        keep its answers."""
        own = self.episodes[self.episodes["method"] == OURS]
        if "answers" not in own:
            return own.iloc[:0]
        keys = ["suite", "shot", "episode"]
        return own[own["answers"].notna()].merge(self.frozen[[*keys, "support", "query"]], on=keys, suffixes=("_n", ""))

    def rows(self, suite: str, method: str) -> pd.DataFrame:
        """Of the table, by shot."""
        chosen = (self.table["suite"] == suite) & (self.table["method"] == method)
        return self.table[chosen].sort_values("shot")

    def best_of(self, suite: str, methods: tuple[str, ...]) -> str | None:
        """The method with the highest mean accuracy over the shots. None: the suite has none of them."""
        means = {name: self.rows(suite, name)["accuracy"].mean() for name in methods if len(self.rows(suite, name))}
        return max(means, key=means.__getitem__) if means else None


def truth(way: int, queries: int) -> np.ndarray:
    """int64 [queries]: the class of each query of an episode, class by class."""
    return np.repeat(np.arange(way), queries // way)


def read_evidence(build: Path, data: Path, gate: Path | None = None) -> Evidence:
    """Read what the stages before the card have written, and the gate where it has spoken.

    Raises:
        QuickstudyError: a file is missing.
    """
    try:
        counts = json.loads((build / "tasks/tasks.json").read_text(encoding="utf-8"))
        return Evidence(
            table=pd.read_csv(build / "evaluate/table.csv"),
            episodes=pd.read_parquet(build / "evaluate/episodes.parquet"),
            curve=pd.read_csv(build / "meta_train/curve.csv"),
            training={
                name: value
                for file in ("training.json", "metrics.json")
                for name, value in json.loads((build / "meta_train" / file).read_text(encoding="utf-8")).items()
            },
            frozen=pd.read_parquet(build / "tasks/episodes.parquet"),
            counts=counts,
            splits=yaml.safe_load((build / "tasks/splits.yaml").read_text(encoding="utf-8")),
            findings=json.loads((build / "tasks/checks.json").read_text(encoding="utf-8")),
            model=yaml.safe_load((build / "model/config.yaml").read_text(encoding="utf-8")),
            lineage=json.loads((build / "model/lineage.json").read_text(encoding="utf-8")),
            weights=sha256((build / "model/model.safetensors").read_bytes()).hexdigest(),
            datasets={name: read_dataset(data / name, columns=("label",)) for name in counts},
            data=data,
            gate=_read_gate(gate) if gate is not None else None,
        )
    except FileNotFoundError as error:
        raise QuickstudyError(
            "the card needs a file that is missing", where=error.filename, fix="`quickstudy run` makes it"
        ) from None


def _read_gate(folder: Path) -> GateWord:
    verdict = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    path = folder / "lineage.json"
    lineage = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if verdict["champion"] is None:
        return GateWord(verdict, pd.DataFrame(), lineage)
    champion = pd.read_parquet(folder / "champion.parquet")
    return GateWord(verdict, champion[champion["method"] == OURS], lineage)
