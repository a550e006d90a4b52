"""What a frozen model says of an example, and a trainable projection of it."""

import torch
from torch import Tensor, nn

from quickstudy.encoders.blocks import Modulation
from quickstudy.encoders.encoder import Encoder


class ProjectedEncoder(Encoder):
    """The front gives the frozen model's vectors, float32 [n, W], of length 1; W is ``width``."""

    pretrained = True
    front_gives_vectors = True

    def __init__(self, width: int, dimension: int):
        super().__init__()
        self.project = nn.Linear(width, dimension, bias=False)
        # Begin with what the frozen model says: as it is where D allows, else turned and cut, which keeps distances
        # as well as D dimensions can.
        if dimension == width:
            nn.init.eye_(self.project.weight)
        else:
            nn.init.orthogonal_(self.project.weight)

    @property
    def channels(self) -> tuple[int, ...]:
        """of the projected vector, which a task may modulate"""
        return (self.project.out_features,)

    def forward(self, vectors: Tensor, modulation: Modulation | None = None) -> Tensor:
        """[n, W] → [n, D]"""
        projected = self.project(vectors)
        if modulation is None:
            return projected
        ((gamma, beta),) = modulation
        return gamma * projected + beta

    def augment(self, vectors: Tensor, generator: torch.Generator, way: int | None = None) -> Tensor:
        """Vectors are taken as they are."""
        return vectors
