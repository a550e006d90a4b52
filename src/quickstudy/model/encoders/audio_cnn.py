"""cnn: convolution blocks over the log-mel spectrogram."""

import torch
from torch import Tensor, nn

from quickstudy.config import AudioInput
from quickstudy.model.encoders.audio import AudioEncoder
from quickstudy.model.encoders.blocks import conv_block


class SpectrogramCnn(AudioEncoder):
    """A CNN over log-mel frames: time and frequency are halved three times, then averaged away."""

    def __init__(self, inputs: AudioInput, width: int, dimension: int):
        super().__init__(inputs)
        self.blocks = nn.Sequential(
            conv_block(1, width // 2),
            conv_block(width // 2, width * 3 // 4),
            conv_block(width * 3 // 4, width * 3 // 2),
            conv_block(width * 3 // 2, dimension, pool=False),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, mels: Tensor) -> Tensor:
        """[n, 1, mels, frames] → [n, D]"""
        x = self.blocks(mels.float().contiguous(memory_format=torch.channels_last))
        return x.amax(dim=(2, 3)) * 0.5 + x.mean(dim=(2, 3)) * 0.5
