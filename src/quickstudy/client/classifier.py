"""The same learner behind scikit-learn's interface: fit, partial_fit, predict, predict_proba.

What X is decides who makes its vectors. Texts, pictures and recordings go through the model's encoder f_θ, and the
model's learner α · g_φ reads them. A matrix of numbers [n, features] is taken for vectors that somebody else's encoder
made: no encoder of ours fits them, nor does a g that was trained on others, so that α = 0, no model is loaded, and a
class is the mean of its examples (`ProtoNet`). Nobody scales the features: a StandardScaler before it does.
"""

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from quickstudy.client import Quickstudy
from quickstudy.client.examples import Examples, is_one, read_examples
from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.learners import VectorLearner
from quickstudy.learners.protonet import ProtoNet
from quickstudy.model.metamodel import TAU
from quickstudy.system.environment import CHAMPION


class QuickstudyClassifier(ClassifierMixin, BaseEstimator):
    """A classifier that learns from a handful of examples.

    Args:
        model: ``models:/quickstudy@ALIAS``, ``models:/quickstudy/VERSION`` or a folder, loaded by each `fit` on texts,
            pictures or recordings; or what `Quickstudy.load` gave, which spares cross-validation the loading. Of no
            use where X is a matrix of numbers.
        modality: image, audio or text, where it cannot be told from X.

    Attributes:
        classes_: the labels, sorted [N].
        n_features_in_: of a matrix of numbers.

    An X of examples is a list, an array of strings or a column of a table; or pictures [n, H, W] or [n, H, W, 3].
    """

    modality_: Modality | None
    """None: numbers"""
    digest_: str | None
    """sha256 of the model's weights"""

    def __init__(self, model: str | Path | Quickstudy = CHAMPION, modality: Modality | None = None):
        self.model = model
        self.modality = modality

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from examples X and their labels y [n]; forgets what was learned before.

        Raises:
            QuickstudyError: an example that cannot be read, fewer than two classes, no such model.
        """
        vectors, labels = self._read(X, y, first=True)
        classes = np.unique(labels)
        if len(classes) < 2:
            raise QuickstudyError(f"there is one class, {classes[0]!r}", fix="A task needs two classes or more")
        self.classes_, self.support_, self.targets_ = classes, vectors, np.searchsorted(classes, labels)
        return self._learn()

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Learn from more examples, with those from before, which are kept as vectors.

        Args:
            classes: at the first call, labels that are to come. One without an example yet has probability 0. Labels
                that nobody has announced are taken as well.
        """
        first = not hasattr(self, "support_")
        vectors, labels = self._read(X, y, first)
        known = [np.unique(labels)]
        known += [] if classes is None else [np.unique(classes)]
        if not first:
            known.append(self.classes_)
            labels = np.concatenate([self.classes_[self.targets_], labels])
            vectors = np.concatenate([self.support_, vectors])
        self.classes_ = np.unique(np.concatenate(known))
        self.support_, self.targets_ = vectors, np.searchsorted(self.classes_, labels)
        return self._learn()

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each example [n]."""
        check_is_fitted(self, "learned_")
        return self.classes_[self.predict_proba(X).argmax(1)]

    @torch.inference_mode()
    def predict_proba(self, X: Any) -> np.ndarray:
        """float64 [n, N]: the probability of each of `classes_`."""
        check_is_fitted(self, "learned_")
        vectors = self._vectors(X)
        state = {name: torch.from_numpy(array)[None] for name, array in self.learned_.items()}
        logits = self._learner().score(state, self._placed(vectors)[None])[0]
        return logits.double().softmax(-1).numpy()

    @torch.inference_mode()
    def _learn(self) -> Self:
        self.center_ = self.support_.mean(0)
        targets = torch.from_numpy(self.targets_)
        state = self._learner().adapt(self._placed(self.support_)[None], targets[None], len(self.classes_))
        self.learned_ = {name: tensor[0].numpy() for name, tensor in state.items()}
        return self

    def _read(self, X: Any, y: Any, first: bool) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and labels."""
        if y is None:
            raise QuickstudyError("this classifier requires y to be passed, but the target y is None")
        if _is_examples(X):
            labels = column_or_1d(y, warn=True)
            vectors = self._encoded(X, first)
            if len(labels) != len(vectors):
                raise QuickstudyError(f"{len(vectors)} examples and {len(labels)} labels")
        else:
            if not first:
                self._refuse_other(None)
            vectors, labels = validate_data(self, X, y, dtype=np.float64, reset=first)
            labels = column_or_1d(labels, warn=True)
            self.modality_, self.digest_ = None, None
        check_classification_targets(labels)
        return vectors, labels

    def _vectors(self, X: Any) -> np.ndarray:
        if _is_examples(X):
            return self._encoded(X, first=False)
        self._refuse_other(None)
        return validate_data(self, X, dtype=np.float64, reset=False)

    # What makes vectors, and what reads them

    def _encoded(self, X: Any, first: bool) -> np.ndarray:
        """Examples → float32 [n, D] of length √τ."""
        from quickstudy.client.local import encoded

        read = read_examples(list(X), self.modality)
        if first:
            self._loaded = self._load()
            self.modality_, self.digest_ = read.modality, self._loaded.digest
        else:
            self._refuse_other(read)
        return encoded(self._local().model, read).numpy()

    def _refuse_other(self, read: Examples | None) -> None:
        """Raise where what is asked is of another kind than what was learned."""
        what = {None: "numbers", "text": "texts", "image": "images", "audio": "recordings"}
        if (asked := read.modality if read else None) != self.modality_:
            raise QuickstudyError(f"X holds {what[asked]}, and the classifier was fitted to {what[self.modality_]}")

    def _placed(self, vectors: np.ndarray) -> torch.Tensor:
        """Vectors as the learner is to see them: all of length √τ.

        Numbers are centred on the mean of the training set and laid on a sphere that touches it there: what is near to
        the mean keeps its distances, and what is far is no longer than the rest, as in CL2N (Wang et al. 2019,
        SimpleShot, https://arxiv.org/abs/1911.04623), which loses the distance from the mean.
        """
        if self.modality_ is not None:
            return torch.from_numpy(vectors)
        centred = self.support_ - self.center_
        spread = np.sqrt(np.square(centred).sum(1).mean()) or 1.0
        lifted = np.column_stack([(vectors - self.center_) / spread, np.ones(len(vectors))])
        return torch.from_numpy(lifted / np.linalg.norm(lifted, axis=1, keepdims=True) * TAU**0.5)

    def _learner(self) -> VectorLearner:
        if self.modality_ is None:
            return ProtoNet()
        return self._local().model.vector_learner  # the others have refused to encode

    def _local(self) -> Any:
        """The model that it was fitted with; a copy from another process has to load it first."""
        if not hasattr(self, "_loaded"):
            loaded = self._load()
            if loaded.digest != self.digest_:
                raise QuickstudyError("is another model now than the classifier was fitted with", where=self.model)
            self._loaded = loaded
        return self._loaded

    def _load(self) -> Any:
        from quickstudy.client.local import LocalQuickstudy

        loaded = self.model if isinstance(self.model, Quickstudy) else Quickstudy.load(self.model)
        if not isinstance(loaded, LocalQuickstudy):
            raise QuickstudyError("a classifier needs the model in this process", fix="Take Quickstudy.load")
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_loaded"}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = tags.input_tags.string = True
        return tags


def _is_examples(X: Any) -> bool:
    """Whether X holds texts, pictures or recordings; anything else is for scikit-learn to judge."""
    if isinstance(X, str | bytes) or not hasattr(X, "__len__") or not hasattr(X, "__iter__"):
        return False
    if getattr(X, "ndim", 1) != 1:  # a matrix, or pictures
        return X.ndim in (3, 4)
    if hasattr(X, "__dataframe__") or not len(X):
        return False
    first = next(iter(X))
    return isinstance(first, str | bytes) or (is_one(first) and not np.isscalar(first) and not isinstance(first, dict))
