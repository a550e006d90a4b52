"""The model as MLflow loads it: a support set and its queries in, answers out, in one call.

MLflow's `loader_module` calls `_load_pyfunc`; MLflow itself is not needed here, and no pickle is involved.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from quickstudy.adaptation.adapted import answers_of, learn
from quickstudy.data.coded import decoded
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import load_model, weights_digest
from quickstudy.system.digests import DIGESTS, check_files


def example() -> pd.DataFrame:
    """An input of one task: is this news or a blog post?"""
    support = [
        {"input": "The council approved the new budget on Tuesday after a long debate.", "label": "news"},
        {"input": "Police said two people were hurt when a bus hit a bridge.", "label": "news"},
        {"input": "I finally tried that sourdough recipe, and oh my, what a mess I made.", "label": "blog"},
        {"input": "Five things I wish I had known before I moved to Lisbon.", "label": "blog"},
    ]
    queries = ["The minister will resign at the end of the month.", "My cat has opinions about my new desk."]
    return pd.DataFrame([{"modality": "text", "support": support, "queries": queries}])


class EpisodeModel:
    """One row of the input is one task.

    Columns: ``modality`` (image, audio, text); ``support``, a list of ``{input, label}``; ``queries``, a list of
    inputs.
    An input is the text itself, or the base64 of an image's or a recording's file.
    """

    def __init__(self, model: MetaModel, digest: str):
        self.model, self.digest = model, digest

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Columns ``labels`` (the likeliest class of each query), ``probabilities`` (of it), ``classes`` (sorted) and
        ``distributions`` (for each query the probability of each class)."""
        rows = [self._answer(number, row) for number, row in enumerate(model_input.to_dict("records"), 1)]
        return pd.DataFrame(rows)

    def _answer(self, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
        where = f"row {number}"
        modality, support = row["modality"], list(row["support"])
        examples = _decode([item["input"] for item in support], modality, f"{where}, support")
        labels = [str(item["label"]) for item in support]
        task = learn(self.model, modality, examples, labels, self.digest)
        said = answers_of(self.model, task, _decode(list(row["queries"]), modality, f"{where}, queries"))
        return {
            "labels": said.targets,
            "probabilities": said.confidence.tolist(),
            "classes": list(said.names),
            "distributions": said.probabilities.tolist(),
        }


def _decode(inputs: Sequence[Any], modality: str, where: str) -> list[Any]:
    if modality == "text":
        return [str(text) for text in inputs]
    return [decoded(one, f"{where}.{place}") for place, one in enumerate(inputs)]


def _load_pyfunc(path: str) -> EpisodeModel:
    folder = Path(path)
    if (folder / DIGESTS).exists():
        check_files(folder, json.loads((folder / DIGESTS).read_text(encoding="utf-8")), folder)
    return EpisodeModel(load_model(folder, "classify"), weights_digest(folder, "classify"))
