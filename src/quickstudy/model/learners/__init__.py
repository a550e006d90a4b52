"""Learners: α · g_φ, one file each, chosen by `model.learner` in params.yaml."""

from torch import nn

from quickstudy.config import Model
from quickstudy.model.learners.adapt import AdaptLearner
from quickstudy.model.learners.anil import Anil
from quickstudy.model.learners.film import FilmLearner
from quickstudy.model.learners.incontext import InContextLearner
from quickstudy.model.learners.kernel import KernelRidge
from quickstudy.model.learners.learner import State, VectorLearner, WeightLearner
from quickstudy.model.learners.maml import Maml
from quickstudy.model.learners.protonet import ProtoNet
from quickstudy.model.learners.reptile import Reptile
from quickstudy.model.learners.ridge import Ridge

Learner = VectorLearner | WeightLearner

__all__ = ["Learner", "State", "VectorLearner", "WeightLearner", "make_learner"]


def make_learner(shape: Model, encoders: nn.ModuleDict) -> Learner:
    """An untrained learner by its name, for the encoders of a model, by modality."""
    match shape.learner:
        case "protonet":
            return ProtoNet()
        case "adapt":
            return AdaptLearner(shape.dimension, shape.heads, shape.inner_steps)
        case "ridge":
            return Ridge()
        case "kernel":
            return KernelRidge()
        case "anil":
            return Anil(shape.dimension, shape.inner_steps)
        case "film":
            return FilmLearner(shape.dimension, encoders)
        case "incontext":
            return InContextLearner(shape.dimension, shape.heads)
        case "maml":
            return Maml(shape.dimension, encoders, shape.inner_steps, shape.second_order)
        case "reptile":
            return Reptile(shape.dimension, shape.inner_steps)
