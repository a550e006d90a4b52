"""The cells of a comparison, and the episodes that all of them answer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import yaml

from quickstudy.config import Model, Settings, changed
from quickstudy.data.dataset import Dataset
from quickstudy.errors import QuickstudyError
from quickstudy.tasks.frozen import FrozenEpisodes, freeze
from quickstudy.tasks.suites import Suite, test_suites, training_pools

LEARNER = "model.learner"
VARIABLE = ("inputs", "model", "train")
"""Sections of params.yaml that a cell may change; by the others the episodes would change too."""


@dataclass(frozen=True)
class Change:
    """One parameter that a column of the grid has otherwise than params.yaml."""

    parameter: str
    """its path: "model.width" """
    value: object
    text: str
    """as it was asked for: "model.width=32" """


@dataclass(frozen=True)
class Cell:
    """One place of the grid."""

    learner: str
    change: Change | None = None
    """None: as in params.yaml."""

    @property
    def name(self) -> str:
        return self.learner if self.change is None else f"{self.learner} with {self.change.text}"

    def settings(self, base: Settings, seed: int) -> Settings:
        """What it is trained with.

        Raises:
            QuickstudyError: this learner and this change do not go together.
        """
        own = changed(changed(base, "seed", seed), LEARNER, self.learner)
        return own if self.change is None else changed(own, self.change.parameter, self.change.value)


def learners() -> tuple[str, ...]:
    """The names that `model.learner` may have."""
    return get_args(Model.model_fields["learner"].annotation)


def grid(base: Settings, names: Sequence[str], changes: Sequence[str]) -> list[Cell]:
    """The cells: each learner as it is, then each learner with each change.

    Args:
        names: of the learners; all where there is none.
        changes: "KEY=VALUE", as on the command line.

    Raises:
        QuickstudyError: an unknown learner, or a change that params.yaml would not take or that changes nothing.
    """
    for name in names:
        if name not in learners():
            known = ", ".join(learners())
            raise QuickstudyError(f"unknown learner {name!r}", where="--learner", fix=f"There are: {known}")
    columns: list[Change | None] = [None]
    seen = [(base, "params.yaml has it so")]
    for text in changes:
        change, where = _read_change(text), f"--set {text}"
        settings = changed(base, change.parameter, change.value, where)
        for other, why in seen:
            if settings == other:
                raise QuickstudyError(f"adds nothing: {why}", where=where)
        seen.append((settings, f"it is the same as {where}"))
        columns.append(change)
    return [Cell(name, change) for change in columns for name in dict.fromkeys(names or learners())]


def _read_change(text: str) -> Change:
    where = f"--set {text}"
    parameter, equals, value = text.partition("=")
    if not equals or not parameter:
        raise QuickstudyError("is not KEY=VALUE", where=where, fix="For example --set model.width=32")
    if parameter == LEARNER:
        raise QuickstudyError("learners are the rows of the grid", where=where, fix=f"Say --learner {value}")
    section = parameter.partition(".")[0]
    if section in Settings.model_fields and section not in VARIABLE:
        raise QuickstudyError(
            f"{section} is the same for all cells, as they answer the same episodes",
            where=where,
            fix=f"Change it in params.yaml; parameters of {', '.join(VARIABLE)} may differ",
        )
    try:
        return Change(parameter, yaml.safe_load(value), " ".join(text.split()))
    except yaml.YAMLError as error:
        raise QuickstudyError(f"is not YAML ({error})", where=where) from None


def freeze_all(
    datasets: Iterable[Dataset], settings: Settings, split: Literal["validation", "test"]
) -> list[FrozenEpisodes]:
    """The episodes of one side of the meta-split, for every suite and number of shots. They depend on the data and on
    the settings' seed, splits and episodes, none of which differs between cells.

    Raises:
        QuickstudyError: there is none.
    """
    frozen = []
    for dataset in datasets:
        suites = test_suites(dataset, settings.splits) if split == "test" else validation_suites(dataset, settings)
        frozen += [block for suite in suites for block in freeze(suite, settings.episodes, settings.seed)]
    if not frozen:
        raise QuickstudyError(
            f"no dataset has a group on the meta-{split} side with enough examples",
            where="data",
            fix=f"Raise splits.{split} or lower episodes.shots in params.yaml",
        )
    return frozen


def validation_suites(dataset: Dataset, settings: Settings) -> list[Suite]:
    """The meta-validation pools of a dataset, named as `test_suites` names those of meta-test."""
    pools = training_pools(dataset, settings.splits, "validation")
    if dataset.info.episode_scope == "dataset":
        return [Suite(dataset.name, "classes", pool) for pool in pools]
    groups = dataset.column("group")
    return [Suite(f"{dataset.name}/{groups[int(pool.rows[0])]}", "classes", pool) for pool in pools]
