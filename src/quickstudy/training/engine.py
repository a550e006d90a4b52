"""Where meta-training runs: device, precision and processes, by Lightning Fabric.

One process, or as many as torchrun starts, on one machine or on several; each draws its part of every meta-batch.
"""

import atexit
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from quickstudy.config import Train
from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.task import TaskBatch
from quickstudy.model.metamodel import MetaModel
from quickstudy.training.batches import Source

T = TypeVar("T")

MEETING = "QUICKSTUDY_PROCESSES"
"""The variable that names the file by which the processes of a training on one machine find each other; without it, as
over several machines, they do so as torchrun says."""

DEVICE_SHARE = 0.5  # of a device's free memory that examples may take


class Engine:
    """The device, precision and processes of a training.

    Args:
        train: device, precision and compile are read.

    Raises:
        QuickstudyError: a device that is not there.
    """

    def __init__(self, train: Train):
        self.processes = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun
        here = int(os.environ.get("LOCAL_WORLD_SIZE", str(self.processes)))
        self.train = train
        device = available(train.device)
        if device == "cuda" and torch.cuda.device_count() < here:
            raise QuickstudyError(
                f"{here} processes on this machine, but torch finds {torch.cuda.device_count()} CUDA devices",
                where="train.processes",
                fix="Start one process a GPU",
            )
        if self.processes > 1 and (meeting := os.environ.get(MEETING)):
            if device == "cuda":
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            torch.distributed.init_process_group(  # Fabric, which would open a port for it, takes one that is there
                "nccl" if device == "cuda" else "gloo",
                init_method=f"file://{meeting}",
                rank=int(os.environ["RANK"]),
                world_size=self.processes,
            )
            atexit.register(torch.distributed.destroy_process_group)
        self.fabric = Fabric(
            accelerator=device,
            strategy="ddp" if self.processes > 1 else "auto",
            devices=here,
            num_nodes=self.processes // here,
            precision="32-true",  # of the weights; `autocast` says more
        )
        self.fabric.launch()
        self.device: torch.device = self.fabric.device
        self.rank: int = self.fabric.global_rank
        if device == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32
        elif self.processes > 1 and not train.threads:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // here))

    def setup(self, model: MetaModel) -> None:
        """Bring a model to the device and, where asked for, compile its encoders."""
        model.to(self.device)
        if self.train.compile:
            if model.learner.on_vectors is None:
                raise QuickstudyError(
                    f"{model.shape.learner} changes the encoder's weights for each task, which is not compiled",
                    where="train.compile",
                    fix="Say train.compile: false",
                )
            for encoder in model.encoders.values():
                encoder.compile()  # torch finds out which sizes vary; told beforehand, its compiler fails (2.13)

    def place(self, sources: Sequence[Source]) -> list[Source]:
        """The sources with their arrays on the device, where those fit."""
        if self.device.type != "cuda":
            return list(sources)
        room = DEVICE_SHARE * torch.cuda.mem_get_info(self.device)[0]
        placed: dict[int, Tensor] = {}
        for source in sources:
            if isinstance(source.arrays, np.ndarray) and id(source.arrays) not in placed:
                room -= source.arrays.nbytes
                if room >= 0:
                    placed[id(source.arrays)] = torch.from_numpy(np.array(source.arrays)).to(self.device)
        return [replace(source, arrays=placed.get(id(source.arrays), source.arrays)) for source in sources]

    def autocast(self, model: MetaModel) -> AbstractContextManager[Any]:
        """bfloat16 where it is asked for; by itself on a GPU that has it, for learners that read vectors. One that
        takes gradient steps on the weights keeps float32, in which small steps are not lost."""
        wanted = self.train.precision == "bfloat16"
        if self.train.precision == "auto" and self.device.type == "cuda":
            wanted = model.learner.on_vectors is not None and torch.cuda.is_bf16_supported()
        return torch.autocast(self.device.type, torch.bfloat16, enabled=wanted)

    def add_up(
        self, model: MetaModel, loss: Tensor, tasks: Sequence[TaskBatch], counts: Mapping[Modality, int]
    ) -> Tensor:
        """Make gradients and running statistics those of the whole meta-batch, alike in all processes.

        A process's loss is the sum over its tasks divided by the number of all: gradients and losses add up. Running
        statistics are the mean over processes, weighted by their tasks of that modality.

        Args:
            counts: tasks of each modality in the whole meta-batch.

        Returns:
            the loss of the whole meta-batch.
        """
        if self.processes == 1:
            return loss.detach()
        weights = [p for p in model.parameters() if p.requires_grad]
        has = loss.new_tensor([float(p.grad is not None) for p in weights])
        pieces = [loss.detach()[None], has]
        pieces += [p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in weights]
        statistics: list[Tensor] = []
        for modality, count in counts.items():
            share = sum(task.modality == modality for task in tasks) / count
            own = [b for b in model.encoder(modality).buffers() if b.is_floating_point()]  # type: ignore[arg-type]
            statistics += own
            pieces += [buffer.flatten() * share for buffer in own]
        total = self.fabric.all_reduce(torch.cat(pieces), reduce_op="sum")
        sizes = [len(piece) for piece in pieces]
        loss_sum, has, *summed = total.split(sizes)  # type: ignore[union-attr]
        for p, there, gradient in zip(weights, has, summed, strict=False):
            p.grad = gradient.view_as(p) if there > 0 else None
        with torch.no_grad():
            for buffer, mean in zip(statistics, summed[len(weights) :], strict=True):
                buffer.copy_(mean.view_as(buffer))
        return loss_sum[0]

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """Numbers by name, added up over the processes; what one of them lacks it has none of."""
        if self.processes == 1:
            return dict(values)
        everyone: list[Any] = [None] * self.processes
        torch.distributed.all_gather_object(everyone, dict(values))
        names = sorted({name for own in everyone for name in own})
        return {name: sum(own.get(name, 0.0) for own in everyone) for name in names}

    def share(self, value: T) -> T:
        """The first process's value, in all of them."""
        return value if self.processes == 1 else self.fabric.broadcast(value)


def available(device: str) -> str:
    """The device that ``train.device`` means here.

    Raises:
        QuickstudyError: it is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[device]:
        raise QuickstudyError(
            f"is {device}, but torch finds no such device here",
            where="train.device",
            fix="Say auto or cpu; for a GPU install a build of torch that knows it",
        )
    return device
