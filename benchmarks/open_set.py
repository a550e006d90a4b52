"""Open set: what belongs to no class is told from what does, and the false-alarm rate asked for is the one measured.

    .venv/bin/python benchmarks/open_set.py FOLDER [--datasets ../shared/datasets] [--split test]

CLINC150, all 150 intents, 10 examples each drawn from its training part, several draws; the questions are those of its
test part and of its out-of-scope test. The sentence encoder is frozen (minilm) and has seen none of it. `--split
validation` asks val and oos_val instead, and writes nothing: by that the method was chosen. The service takes from the
last row how unknown a query is; which class it names is its learner's word, not the accuracy of that row. Vectors are
kept in FOLDER.
Intervals are 95%, Student's t over the draws, which share their questions.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from quickstudy.config import load_settings
from quickstudy.model.metamodel import MetaModel
from quickstudy.serving.openset import fit, least_squares, unknown
from quickstudy.serving.task import encode
from quickstudy.stats import mean_interval

PROJECT = Path(__file__).resolve().parent.parent
SHOTS, SEEDS = 10, 10
RATES = (0.01, 0.05, 0.1)
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


def read(datasets: Path, folder: Path, part: str) -> tuple[Tensor, np.ndarray]:
    """Vectors of length 1 of a part of CLINC150, embedded once, and the labels."""
    rows = json.loads((datasets / "clinc150" / "data_full.json").read_text())[part]
    path = folder / f"minilm-{part}.npy"
    if not path.exists():
        settings = load_settings(PROJECT / "params.yaml")
        encoders = settings.model.encoders.model_copy(update={"text": "minilm"})
        shape = settings.model.model_copy(update={"dimension": 384, "encoders": encoders})
        model = MetaModel(settings.inputs, shape, {"text"})
        np.save(path, encode(model, "text", [text for text, _ in rows]).numpy())
    return F.normalize(torch.from_numpy(np.load(path)), dim=-1), np.array([label for _, label in rows])


def percent(values: Sequence[float]) -> str:
    mean, half = mean_interval(values)
    return f"{100 * mean:.1f} ± {100 * half:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--datasets", type=Path, default=PROJECT / "../shared/datasets")
    parser.add_argument("--split", choices=PARTS, default="test")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    train, inside, outside = (
        read(arguments.datasets, arguments.folder, part) for part in ("train", *PARTS[arguments.split])
    )
    classes = np.unique(train[1])
    answers = torch.from_numpy(np.searchsorted(classes, inside[1]))
    query = torch.cat([inside[0], outside[0]])
    is_outside = np.arange(len(query)) >= len(answers)
    targets = torch.arange(len(classes)).repeat_interleave(SHOTS)
    found: dict[str, dict[str, list[float]]] = {name: {"auroc": [], "accuracy": []} for name in METHODS}
    alarms: dict[float, list[float]] = {rate: [] for rate in RATES}
    refused: dict[float, list[float]] = {rate: [] for rate in RATES}
    seconds = []
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        rows = [random.choice(np.flatnonzero(train[1] == name), SHOTS, replace=False) for name in classes]
        support = train[0][np.concatenate(rows)]
        for name, method in METHODS.items():
            scores, strange = method(support, targets, query)
            found[name]["auroc"].append(float(roc_auc_score(is_outside, strange.numpy())))
            found[name]["accuracy"].append((scores[: len(answers)].argmax(-1) == answers).double().mean().item())
        for rate in RATES:
            started = time.perf_counter()
            task = fit(support, targets, rate)
            seconds.append(time.perf_counter() - started)
            above = (unknown(task, query) > task.threshold).double()
            alarms[rate].append(above[: len(answers)].mean().item())
            refused[rate].append(above[len(answers) :].mean().item())
    print("| method | AUROC | in-scope accuracy |\n|---|--:|--:|")
    for name, values in found.items():
        print(f"| {name} | {percent(values['auroc'])} | {percent(values['accuracy'])} |")
    print("\n| false alarms asked | measured | out of scope refused |\n|--:|--:|--:|")
    for rate in RATES:
        print(f"| {100 * rate:g} | {percent(alarms[rate])} | {percent(refused[rate])} |")
    print(f"\nThe threshold in {1000 * float(np.median(seconds)):.0f} ms")
    if arguments.split == "test":
        result = {
            "shots": SHOTS,
            "draws": SEEDS,
            "methods": {name: {key: mean_interval(v) for key, v in values.items()} for name, values in found.items()},
            "false_alarms": {str(rate): mean_interval(alarms[rate]) for rate in RATES},
            "refused": {str(rate): mean_interval(refused[rate]) for rate in RATES},
        }
        path = PROJECT / "benchmarks" / "results" / "open_set.json"
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
