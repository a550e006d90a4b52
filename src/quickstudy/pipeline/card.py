"""The stage card: build/* → build/card."""

from pathlib import Path

from quickstudy.card import write_card
from quickstudy.pipeline.paths import CARD


def card() -> None:
    """Write the model card and its figures. build/* → build/card"""
    write_card(Path("build"), CARD)
