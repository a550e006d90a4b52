"""Open set: what belongs to no class is told from what does, and the false-alarm rate asked for is the one measured.

    .venv/bin/python benchmarks/open_set.py FOLDER [--model models:/quickstudy@champion] [--datasets ../shared/datasets]
        [--split test]

CLINC150, all 150 intents, 10 examples each drawn from its training part, several draws; the questions are those of its
test part and of its out-of-scope test. Methods are compared on vectors of the frozen sentence encoder, its last layer
(minilm) and several (minilm-layers). With `--model` the service's own code answers too, `quickstudy.adaptation.adapted`
with that model: which class, how likely, and how unknown a query is. Nothing has seen any of CLINC150. `--split
validation` asks val and oos_val instead, and writes nothing: by that things were chosen. Vectors are kept in FOLDER.
Intervals are 95%, Student's t over the draws, which share their questions.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from quickstudy import registry
from quickstudy.adaptation.adapted import Task, adapt, answer, encode
from quickstudy.config import load_settings
from quickstudy.kinds.openset import fit, least_squares, unknown
from quickstudy.model.metamodel import MetaModel
from quickstudy.report.calibration import calibration_error, reliability
from quickstudy.serving.engine.loaded import folder_source
from quickstudy.stats.intervals import mean_interval
from quickstudy.system.atomic import draft, write_json
from quickstudy.system.environment import apply_environment

PROJECT = Path(__file__).resolve().parent.parent
SHOTS, SEEDS = 10, 10
RATES = (0.01, 0.05, 0.1)
ENCODERS = ("minilm", "minilm-layers")
PARTS = {"test": ("test", "oos_test"), "validation": ("val", "oos_val")}

Method = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""support [S, D], targets [S], query [Q, D] → scores of the classes [Q, N], unknown [Q]"""


def prototypes(support: Tensor, targets: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    means = F.one_hot(targets).float().T @ support / SHOTS
    scores = 2 * query @ means.T - means.square().sum(-1)
    return scores, -scores.amax(-1)


def nearest_example(support: Tensor, targets: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    cosine = query @ support.T
    scores = cosine.unflatten(1, (-1, SHOTS)).amax(-1)
    return scores, -cosine.amax(-1)


def mahalanobis(relative: bool) -> Method:
    """Lee et al. 2018; relative: Ren et al. 2021. Each covariance halfway to a multiple of the identity."""

    def method(support: Tensor, targets: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        means = F.one_hot(targets).float().T @ support / SHOTS

        def distances(scatter: Tensor, centres: Tensor) -> Tensor:
            size = len(scatter)
            inverse = torch.linalg.inv(0.5 * scatter + 0.5 * scatter.trace() / size * torch.eye(size))
            own = ((query @ inverse) * query).sum(-1, keepdim=True)
            return own - 2 * query @ inverse @ centres.T + ((centres @ inverse) * centres).sum(-1)

        within = support - means[targets]
        scores = -distances(within.T @ within / (len(support) - len(means)), means)
        centre = support.mean(0, keepdim=True)
        background = distances((support - centre).T @ (support - centre) / len(support), centre)[:, 0]
        return scores, -scores.amax(-1) - background * relative

    return method


def logistic(chance: bool) -> Method:
    def method(support: Tensor, targets: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        model = LogisticRegression(C=30, max_iter=300).fit(support.numpy(), targets.numpy())
        scores = torch.from_numpy(model.decision_function(query.numpy()))
        return scores, -(scores.softmax(-1) if chance else scores).amax(-1)

    return method


def kernel(support: Tensor, targets: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    claims = least_squares(fit(support, targets, 0.05), query)
    return claims, -claims.amax(-1)


def ours(support: Tensor, targets: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    task = fit(support, targets, 0.05)
    return least_squares(task, query), unknown(task, query)


METHODS: dict[str, Method] = {
    "nearest example": nearest_example,
    "prototypes": prototypes,
    "Mahalanobis": mahalanobis(False),
    "relative Mahalanobis": mahalanobis(True),
    "logistic regression, probability": logistic(True),
    "logistic regression, logit": logistic(False),
    "kernel least squares": kernel,
    "least squares and prototypes": ours,
}
OURS = "least squares and prototypes"


@dataclass
class Part:
    """Questions of CLINC150."""

    texts: list[str]
    labels: np.ndarray


def read(datasets: Path, part: str) -> Part:
    rows = json.loads((datasets / "clinc150" / "data_full.json").read_text())[part]
    return Part([text for text, _ in rows], np.array([label for _, label in rows]))


def vectors(folder: Path, name: str, model: MetaModel, part: str, questions: Part) -> Tensor:
    """[n, D] of a part, encoded once."""
    path = folder / f"{name}-{part}.npy"
    if not path.exists():
        with draft(path) as new, new.open("wb") as file:
            np.save(file, encode(model, "text", questions.texts).numpy())
    return torch.from_numpy(np.load(path))


def frozen(encoder: str) -> MetaModel:
    settings = load_settings(PROJECT / "params.yaml")
    encoders = settings.model.encoders.model_copy(update={"text": encoder})
    return MetaModel(
        settings.inputs, settings.model.model_copy(update={"dimension": 384, "encoders": encoders}), {"text"}
    )


def draws(train: Part) -> tuple[np.ndarray, list[np.ndarray]]:
    """The classes, and of each draw the rows of the examples, class by class."""
    classes, found = np.unique(train.labels), []
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        rows = [random.choice(np.flatnonzero(train.labels == name), SHOTS, replace=False) for name in classes]
        found.append(np.concatenate(rows))
    return classes, found


def methods(train: Tensor, query: Tensor, supports: list[np.ndarray], answers: Tensor) -> dict[str, dict[str, Any]]:
    """Each method's AUROC and accuracy, a number a draw, and of each rate the false alarms and what is refused."""
    train, query = F.normalize(train, dim=-1), F.normalize(query, dim=-1)
    inside = len(answers)
    is_outside = np.arange(len(query)) >= inside
    targets = torch.arange(len(supports[0]) // SHOTS).repeat_interleave(SHOTS)
    found: dict[str, dict[str, Any]] = {name: {"auroc": [], "accuracy": []} for name in METHODS}
    found[OURS] |= {"false_alarms": {rate: [] for rate in RATES}, "refused": {rate: [] for rate in RATES}}
    for rows in supports:
        for name, method in METHODS.items():
            scores, strange = method(train[rows], targets, query)
            found[name]["auroc"].append(float(roc_auc_score(is_outside, strange.numpy())))
            found[name]["accuracy"].append((scores[:inside].argmax(-1) == answers).double().mean().item())
        for rate in RATES:
            task = fit(train[rows], targets, rate)
            above = (unknown(task, query) > task.threshold).double()
            found[OURS]["false_alarms"][rate].append(above[:inside].mean().item())
            found[OURS]["refused"][rate].append(above[inside:].mean().item())
    return found


def service(
    model: MetaModel, train: Tensor, labels: np.ndarray, query: Tensor, supports: list[np.ndarray], answers: Tensor
) -> dict[str, Any]:
    """The same of what the service answers, and how far its probabilities are from how often it is right."""
    inside = len(answers)
    is_outside = np.arange(len(query)) >= inside
    found: dict[str, Any] = {"auroc": [], "accuracy": [], "calibration_error": []}
    found |= {"false_alarms": {rate: [] for rate in RATES}, "refused": {rate: [] for rate in RATES}}
    for rows in supports:
        task = Task("classify", "text", tuple(labels[rows]), train[rows], "")
        for rate in RATES:
            told = answer(model, adapt(model, task, rate), query)
            above = told.unknown > told.threshold
            found["false_alarms"][rate].append(float(above[:inside].mean()))
            found["refused"][rate].append(float(above[inside:].mean()))
        hits = told.probabilities[:inside].argmax(1) == answers.numpy()
        found["auroc"].append(float(roc_auc_score(is_outside, told.unknown)))
        found["accuracy"].append(float(hits.mean()))
        sure = told.probabilities[:inside].max(1)
        found["calibration_error"].append(calibration_error(reliability(sure, hits, np.zeros(inside))))
    return found


def percent(values: Sequence[float]) -> str:
    mean, half = mean_interval(values)
    return f"{100 * mean:.1f} ± {100 * half:.1f}"


def print_rates(name: str, found: Mapping[str, Any]) -> None:
    print(f"\n| false alarms asked ({name}) | measured | out of scope refused |\n|--:|--:|--:|")
    for rate in RATES:
        print(f"| {100 * rate:g} | {percent(found['false_alarms'][rate])} | {percent(found['refused'][rate])} |")


def shown(found: Mapping[Any, Any]) -> dict[str, Any]:
    """Mean and half of the interval of every list of numbers in it."""
    return {str(key): shown(v) if isinstance(v, Mapping) else mean_interval(v) for key, v in found.items()}


def arguments(description: str | None, model: str | None, what: str) -> argparse.Namespace:
    """Those of a benchmark on CLINC150, whose folder is then there.

    Args:
        model: the default. what: said of it.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=model, help=f"a folder, or as MLflow names it; {what}")
    parser.add_argument("--datasets", type=Path, default=PROJECT / "../shared/datasets")
    parser.add_argument("--split", choices=PARTS, default="test")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.folder.mkdir(parents=True, exist_ok=True)
    return asked


def trained(uri: str) -> tuple[MetaModel, str]:
    """A model as the service has it, and the name of its vectors."""
    apply_environment(PROJECT)
    precision = load_settings(PROJECT / "params.yaml").serve.precision
    loaded = folder_source(registry.resolve(uri, PROJECT)).load("", precision)
    kind = str(loaded.model.encoder("text").front_dtype).removeprefix("torch.")
    return loaded.model, f"{loaded.digest[:12]}-{kind}"


def main() -> None:
    asked = arguments(__doc__, None, "without it only the methods are compared")
    parts = {part: read(asked.datasets, part) for part in ("train", *PARTS[asked.split])}
    inside = parts[PARTS[asked.split][0]]
    classes, supports = draws(parts["train"])
    answers = torch.from_numpy(np.searchsorted(classes, inside.labels))

    def embedded(name: str, model: MetaModel) -> tuple[Tensor, Tensor]:
        train, *query = (vectors(asked.folder, name, model, part, questions) for part, questions in parts.items())
        return train, torch.cat(query)

    result: dict[str, Any] = {"shots": SHOTS, "draws": SEEDS}
    for encoder in ENCODERS:
        found = methods(*embedded(encoder, frozen(encoder)), supports, answers)
        print(f"\n| method on {encoder} | AUROC | in-scope accuracy |\n|---|--:|--:|")
        for name, values in found.items():
            print(f"| {name} | {percent(values['auroc'])} | {percent(values['accuracy'])} |", flush=True)
        print_rates(encoder, found[OURS])
        result[encoder] = shown(found)
    if asked.model:
        model, name = trained(asked.model)
        train, query = embedded(name, model)
        found = service(model, train, parts["train"].labels, query, supports, answers)
        print(f"\nThe service with {asked.model} ({model.shape.encoders.text}, {model.shape.learner}):")
        for what in ("auroc", "accuracy", "calibration_error"):
            print(f"{what} {percent(found[what])}")
        print_rates("service", found)
        result["service"] = {"text": model.shape.encoders.text, "learner": model.shape.learner, **shown(found)}
    if asked.split == "test":
        write_json(PROJECT / "benchmarks" / "results" / "open_set.json", result)


if __name__ == "__main__":
    main()
