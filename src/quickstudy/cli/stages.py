"""The stages that dvc.yaml calls, each for a kind of task: files in, files out, nothing else."""

from typing import Annotated

import typer

PANEL = "Stages (dvc.yaml calls these; `quickstudy run` brings them up to date)"

StageKind = Annotated[str, typer.Option("--kind", metavar="KIND", help="Of task: classify, or what params.yaml lists.")]


def register(app: typer.Typer) -> None:
    """Add the stages to the command line."""
    app.command(rich_help_panel=PANEL)(tasks)
    app.command("meta_train", rich_help_panel=PANEL)(meta_train)
    app.command(rich_help_panel=PANEL)(card)


def tasks(kind: StageKind = "classify") -> None:
    """Check the data, split it by group and freeze the evaluation episodes. data → build/tasks/KIND"""
    from quickstudy.pipeline.tasks import tasks

    tasks(kind)


def meta_train(kind: StageKind = "classify") -> None:
    """Meta-train a part of the model on the meta-train groups. data, build/tasks → build/model, build/meta_train

    With train.processes above 1 it starts that many of itself by torchrun. Over several machines start it by torchrun
    on each: `torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m quickstudy
    meta_train`, in project folders on a file system that they share.
    """
    from quickstudy.pipeline.meta_train import meta_train

    meta_train(kind)


def card() -> None:
    """Write the model card and its figures. build/* → build/card"""
    from quickstudy.pipeline.card import card

    card()
