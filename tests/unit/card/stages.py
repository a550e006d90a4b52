"""What the stages leave of a kind of task, as little of it as the card reads."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from quickstudy.config import load_settings
from quickstudy.evaluation.answers import write_evaluation
from quickstudy.tasks.frozen import FrozenEpisodes, write_episodes
from quickstudy.training import Look, write_curve
from tests.toy.project import REPOSITORY


def leave(
    build: Path,
    frozen: list[FrozenEpisodes],
    frame: pd.DataFrame,
    names: Sequence[str],
    modalities: Sequence[str],
    text_encoder: str = "minilm",
) -> None:
    """Write what is left of the kind that the episodes are of.

    Args:
        frame: the evaluation.
        names: of its datasets. modalities: that its part of the model has learned.
    """
    kind = frozen[0].kind
    tasks, meta_train, model = (build / stage / kind for stage in ("tasks", "meta_train", "model"))
    for folder in (tasks, meta_train, model):
        folder.mkdir(parents=True)
    counts = {"examples": 1200, "classes": 60, "groups_train": 7, "groups_validation": 1, "groups_test": 2}
    (tasks / "tasks.json").write_text(json.dumps({name: counts for name in names}))
    (tasks / "splits.yaml").write_text(yaml.safe_dump({name: {"groups": {"a": "test"}} for name in names}))
    finding = {"severity": "warning", "dataset": names[0], "kind": "near", "count": 6, "fix": "Look at some"}
    (tasks / "checks.json").write_text(json.dumps([finding | {"what": "6 examples nearly repeat"}]))
    write_episodes(tasks / "episodes.parquet", frozen)
    write_evaluation(build / "evaluate" / kind, frame)
    looks = [Look(step, 2.0 / step, dict.fromkeys(modalities, 0.5)) for step in (1, 2)]  # type: ignore[arg-type]
    write_curve(meta_train / "curve.csv", looks)
    (meta_train / "metrics.json").write_text('{"loss": 1.0, "alpha": 0.25}')
    (meta_train / "training.json").write_text('{"seconds": 61.0, "steps": 600, "parameters": 1234567}')
    settings = load_settings(REPOSITORY / "params.yaml")
    shape = settings.model.model_dump(mode="json")
    shape["encoders"] = {"image": "conv4", "audio": "gru", "text": text_encoder}
    config = {"modalities": sorted(modalities), "inputs": settings.inputs.model_dump(mode="json"), "model": shape}
    (model / "config.yaml").write_text(yaml.safe_dump(config))
    (model / "lineage.json").write_text('{"seed": 3}')
    (model / "model.safetensors").write_bytes(b"weights")
