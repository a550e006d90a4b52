"""Quickstudy: one meta-trained model that adapts to a task it has never seen."""

__version__ = "0.1.0"
