"""Behind scikit-learn's interface, by scikit-learn's own checks and with examples of every kind."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from quickstudy import Quickstudy, QuickstudyClassifier
from quickstudy.client.examples import read_examples
from quickstudy.data.media import decode_image
from quickstudy.errors import QuickstudyError


@pytest.fixture
def pictures(toys) -> tuple[list[bytes], list[str]]:
    dataset = toys("image", classes=3, each=6)
    return dataset.raw(), dataset.column("label")


TEXTS = ["Where is my parcel?", "When will it arrive?", "Money back!", "A refund, please"]


def test_it_passes_what_scikit_learn_asks_of_a_classifier() -> None:
    results = check_estimator(QuickstudyClassifier(), on_skip=None)  # none is expected to fail
    passed = [result for result in results if result["status"] == "passed"]
    assert len(passed) > 50 and len(results) - len(passed) <= 1  # the array API is skipped, where it is switched off


def test_numbers_need_no_model(monkeypatch) -> None:
    monkeypatch.setattr(Quickstudy, "load", None)
    X, y = load_iris(return_X_y=True)
    few = np.concatenate([np.flatnonzero(y == c)[:5] for c in range(3)])
    model = make_pipeline(StandardScaler(), QuickstudyClassifier()).fit(X[few], y[few])
    assert model.score(X, y) > 0.8 and np.allclose(model.predict_proba(X).sum(1), 1)
    assert cross_val_score(QuickstudyClassifier(), X, y).mean() > 0.8


def test_it_answers_as_a_task_does(qs: Quickstudy, model_folder: Path, pictures) -> None:
    X, y = pictures
    numbers = [{"class 00": 30, "class 01": 7, "class 02": 20}[label] for label in y]
    task, classifier = qs.adapt(X, y), QuickstudyClassifier(model_folder).fit(X, numbers)
    assert classifier.classes_.tolist() == [7, 20, 30] and classifier.modality_ == "image"
    assert np.allclose(classifier.predict_proba(X), task.predict_proba(X)[:, [1, 2, 0]], atol=1e-5)
    assert classifier.score(X, numbers) == np.mean(task.predict(X) == np.array(y))


def test_examples_come_in_many_shapes(qs: Quickstudy, pictures, wav) -> None:
    X, y = pictures
    pixels = np.stack([decode_image(one) for one in read_examples(X).contents])
    by_bytes, by_pixels = (QuickstudyClassifier(qs).fit(given, y).predict_proba(given) for given in (X, pixels))
    assert pixels.ndim == 3 and np.allclose(by_bytes, by_pixels, atol=1e-5)
    for given in (TEXTS, np.array(TEXTS), np.array(TEXTS, dtype=object), pd.Series(TEXTS, index=[5, 6, 7, 8])):
        classifier = QuickstudyClassifier(qs).fit(given, pd.Series([0, 0, 1, 1]))
        assert classifier.modality_ == "text" and classifier.predict(given[:2]).tolist() == [0, 0]
    sounds = QuickstudyClassifier(qs).fit([wav(1), wav(2)], ["x", "y"])
    assert sounds.modality_ == "audio" and sounds.predict([wav(2)]).tolist() == ["y"]


def test_learning_in_parts_is_learning_at_once(qs: Quickstudy, pictures) -> None:
    X, y = np.array(pictures[0], dtype=object), np.array(pictures[1])
    order = np.random.default_rng(0).permutation(len(y))
    whole, parts = QuickstudyClassifier(qs).fit(X, y), QuickstudyClassifier(qs)
    for part in np.array_split(order, 4):
        parts.partial_fit(X[part], y[part], classes=["class 00", "class 01", "class 02", "to come"])
    assert parts.predict_proba(X)[:, 3].tolist() == [0] * len(X)
    assert np.allclose(parts.predict_proba(X)[:, :3], whole.predict_proba(X), atol=1e-5)
    assert parts.fit(X, y).classes_.tolist() == whole.classes_.tolist()  # all forgotten
    iris, species = load_iris(return_X_y=True)
    halves = QuickstudyClassifier().partial_fit(iris[:75], species[:75]).partial_fit(iris[75:], species[75:])
    assert np.allclose(halves.predict_proba(iris), QuickstudyClassifier().fit(iris, species).predict_proba(iris))


def test_it_travels_without_the_model(model_folder: Path, pictures) -> None:
    classifier = QuickstudyClassifier(model_folder).fit(*pictures)
    data = pickle.dumps(classifier)
    assert len(data) < (model_folder / "classify/model.safetensors").stat().st_size / 2
    assert np.allclose(pickle.loads(data).predict_proba(pictures[0]), classifier.predict_proba(pictures[0]))


def test_a_loaded_model_is_shared(qs: Quickstudy, pictures, monkeypatch) -> None:
    classifier = QuickstudyClassifier(qs)
    monkeypatch.setattr(Quickstudy, "load", None)
    assert clone(classifier).model is qs
    assert cross_val_score(classifier, np.array(pictures[0], dtype=object), pictures[1], cv=2).mean() > 0.5


def test_mistakes(qs: Quickstudy, pictures) -> None:
    X, y = pictures
    fitted = QuickstudyClassifier(qs).fit(X, y)
    for wrong, line in (
        (lambda: fitted.predict(TEXTS), "X holds texts, and the classifier was fitted to images"),
        (lambda: fitted.predict(np.zeros((2, 5))), "X holds numbers, and the classifier was fitted to images"),
        (lambda: fitted.partial_fit(np.zeros((2, 5)), [0, 1]), "X holds numbers"),
        (lambda: QuickstudyClassifier().fit(np.eye(4), [0, 0, 1, 1]).predict(X), "X holds images, and .* numbers"),
        (lambda: QuickstudyClassifier(qs).fit(X, ["a"] * len(X)), "there is one class, .*'a'"),
        (lambda: QuickstudyClassifier(qs).fit(X, y[:-1]), "18 examples and 17 labels"),
        (lambda: QuickstudyClassifier(qs).fit([X[0], b"no picture"], [0, 1]), "example 2 .* not an image but text"),
        (lambda: QuickstudyClassifier(qs, modality="audio").fit([np.zeros((4, 4))], [0]), "is an image, not a rec"),
    ):
        with pytest.raises(QuickstudyError, match=line):
            wrong()
