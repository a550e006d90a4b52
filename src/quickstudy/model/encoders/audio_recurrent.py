"""gru, lstm: a recurrent network over the frames of the log-mel spectrogram."""

from torch import Tensor, nn

from quickstudy.config import AudioInput
from quickstudy.model.encoders.audio import AudioEncoder
from quickstudy.model.encoders.sequences import Cell, Recurrent, pool


class SpectrogramRecurrent(AudioEncoder):
    """Both ways over the frames; mean and maximum over them, projected."""

    def __init__(self, inputs: AudioInput, cell: Cell, width: int, dimension: int):
        super().__init__(inputs)
        self.network = Recurrent(cell, inputs.mels, 2 * width)
        self.project = nn.Linear(2 * 4 * width, dimension)

    def forward(self, mels: Tensor) -> Tensor:
        """[n, 1, mels, frames] → [n, D]"""
        frames = mels[:, 0].transpose(1, 2).to(self.project.weight.dtype)
        real = frames.new_ones(frames.shape[:2]) > 0  # every frame: a clip is filled up with silence, not with nothing
        return self.project(pool(self.network(frames, real), real))
