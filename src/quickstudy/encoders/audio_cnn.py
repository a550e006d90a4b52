"""cnn: convolution blocks over the log-mel spectrogram."""

import torch
from torch import Tensor

from quickstudy.config import AudioInput
from quickstudy.encoders.audio import AudioEncoder
from quickstudy.encoders.blocks import ConvBlock, ConvBlocks, Modulation


class SpectrogramCnn(AudioEncoder):
    """A CNN over log-mel frames: time and frequency are halved three times, then averaged away."""

    def __init__(self, inputs: AudioInput, width: int, dimension: int):
        super().__init__(inputs)
        self.blocks = ConvBlocks(
            ConvBlock(1, width // 2),
            ConvBlock(width // 2, width * 3 // 4),
            ConvBlock(width * 3 // 4, width * 3 // 2),
            ConvBlock(width * 3 // 2, dimension, pool=False),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def channels(self) -> tuple[int, ...]:
        """of each block, which a task may modulate"""
        return self.blocks.channels

    def forward(self, mels: Tensor, modulation: Modulation | None = None) -> Tensor:
        """[n, 1, mels, frames] → [n, D]"""
        x = mels.float() if mels.dtype == torch.float16 else mels
        x = self.blocks(x, modulation)
        return x.amax(dim=(2, 3)) * 0.5 + x.mean(dim=(2, 3)) * 0.5
