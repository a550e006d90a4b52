"""Learners: α · g_φ, one file each, chosen by `model.learner` in params.yaml."""

from torch import nn

from quickstudy.config import Model
from quickstudy.learners.adapt import AdaptLearner
from quickstudy.learners.anil import Anil
from quickstudy.learners.film import FilmLearner
from quickstudy.learners.incontext import InContextLearner
from quickstudy.learners.kernel import KernelRidge
from quickstudy.learners.learner import State, VectorLearner, WeightLearner
from quickstudy.learners.maml import Maml
from quickstudy.learners.protonet import ProtoNet
from quickstudy.learners.reptile import Reptile
from quickstudy.learners.ridge import Ridge

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
