"""gru, lstm: a recurrent network over the frames of the log-mel spectrogram."""

import torch
from torch import Tensor

from quickstudy.config import AudioInput
from quickstudy.encoders.audio import AudioEncoder
from quickstudy.encoders.sequences import Cell, Recurrent, Summary


class SpectrogramRecurrent(AudioEncoder):
    """Forwards and backwards over the frames; mean and maximum over them, projected."""

    def __init__(self, inputs: AudioInput, cell: Cell, width: int, dimension: int):
        super().__init__(inputs)
        self.network = Recurrent(cell, inputs.mels, 2 * width)
        self.summary = Summary(4 * width, dimension)

    def forward(self, mels: Tensor) -> Tensor:
        """[n, 1, mels, frames] → [n, D]"""
        frames = mels[:, 0].transpose(1, 2)
        frames = frames.float() if frames.dtype == torch.float16 else frames
        # Every frame is real: a short clip was filled up with silence, not with nothing.
        real = torch.ones(frames.shape[:2], dtype=torch.bool, device=mels.device)
        return self.summary(self.network(frames, real), real)
