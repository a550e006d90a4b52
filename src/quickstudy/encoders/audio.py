"""Audio: the frozen front (a log-mel spectrogram, plain torch) and the augmentation that audio encoders share."""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.config import AudioInput, Inputs
from quickstudy.data.dataset import Modality
from quickstudy.data.media import decode_audio
from quickstudy.encoders.encoder import Encoder

WINDOW_SECONDS, HOP_SECONDS = 0.032, 0.020
FLOOR_DB = 60.0  # what lies further below the loudest point of a clip is silence
SILENCE = FLOOR_DB / 40  # decibels become numbers in [-SILENCE, SILENCE]


class AudioEncoder(Encoder):
    """All of an audio encoder but its network."""

    def __init__(self, inputs: AudioInput):
        super().__init__()
        self.inputs = inputs

    @classmethod
    def sees(cls, modality: Modality, inputs: Inputs, name: str) -> str:
        return heard(f"at {inputs.audio.sample_rate:,} Hz", inputs.audio)

    @property
    def front(self) -> str:
        return repr(self.inputs)

    @cached_property
    def samples(self) -> int:
        return round(self.inputs.seconds * self.inputs.sample_rate)

    @cached_property
    def mel_filters(self) -> Tensor:
        """[mels, bins]: triangles that are even on the mel scale (Slaney's area norm left out)."""
        window = round(WINDOW_SECONDS * self.inputs.sample_rate)
        bins = torch.linspace(0, self.inputs.sample_rate / 2, window // 2 + 1)
        top = 2595 * math.log10(1 + self.inputs.sample_rate / 2 / 700)
        low = 2595 * math.log10(1 + 60 / 700)
        edges = 700 * (10 ** (torch.linspace(low, top, self.inputs.mels + 2) / 2595) - 1)
        up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
        return torch.minimum(up, down).clamp(min=0)

    def prepare(self, raw: Sequence[bytes]) -> np.ndarray:
        """Frozen front: audio files → float16 [n, 1, mels, frames], in units of the clip's own spread, mean 0."""
        return self.arrays([self.decoded(data) for data in raw])

    def decoded(self, raw: bytes) -> np.ndarray:
        """Return the clip of an audio file, float32 [samples]."""
        return self._clip(decode_audio(raw, self.inputs.sample_rate))

    def arrays(self, decoded: Sequence[np.ndarray]) -> np.ndarray:
        """Return clips as float16 [n, 1, mels, frames]."""
        return self.log_mel(torch.from_numpy(np.stack(decoded))).half().numpy()

    def _clip(self, wave: np.ndarray) -> np.ndarray:
        """Cut around the middle of the energy, or pad, to ``samples``."""
        start = middle(wave) - self.samples // 2
        out = np.zeros(self.samples, dtype=np.float32)
        if len(wave) <= self.samples:  # the whole clip fits: keep all of it, its middle as near to ours as can be
            start = min(0, max(start, len(wave) - self.samples))
        else:
            start = min(max(start, 0), len(wave) - self.samples)
        piece = wave[max(start, 0) : start + self.samples]
        offset = max(-start, 0)
        out[offset : offset + len(piece)] = piece
        return out

    def log_mel(self, clips: Tensor) -> Tensor:
        """[n, samples] → [n, 1, mels, frames]"""
        window = round(WINDOW_SECONDS * self.inputs.sample_rate)
        hop = round(HOP_SECONDS * self.inputs.sample_rate)
        spectrum = torch.stft(
            clips, window, hop, window=torch.hann_window(window), center=True, return_complex=True, pad_mode="constant"
        )
        power = self.mel_filters @ spectrum.abs().square()
        decibel = 10 * torch.log10(power.clamp(min=1e-12))
        loudest = decibel.amax(dim=(1, 2), keepdim=True)
        decibel = (decibel - loudest).clamp(min=-FLOOR_DB)
        return (decibel / 20 + SILENCE)[:, None]

    def augment(self, mels: Tensor, generator: torch.Generator, way: int | None = None) -> Tensor:
        """float16 [n, 1, mels, frames] → float32: another pace and vocal tract (stretch in time and frequency),
        another microphone (tilt) and room (noise), and hidden bands and frames (SpecAugment, Park et al. 2019)."""
        n, _, bands, frames = mels.shape

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(n, generator=generator, device=mels.device) * (high - low) + low

        zero = torch.zeros(n, device=mels.device)
        in_time = torch.stack([uniform(0.8, 1.25), zero, uniform(-0.1, 0.1)], dim=1)
        in_frequency = torch.stack([zero, uniform(0.8, 1.2), uniform(-0.08, 0.08)], dim=1)
        grid = F.affine_grid(torch.stack([in_time, in_frequency], dim=1), [n, 1, bands, frames], align_corners=False)
        # Outside of the clip is silence, which is -SILENCE and not 0.
        x = F.grid_sample(mels.float() + SILENCE, grid, align_corners=False) - SILENCE
        x = x + uniform(-0.4, 0.4)[:, None, None, None] * torch.linspace(-1, 1, bands, device=mels.device)[:, None]
        # Below -SILENCE noise is not heard: half of the clips stay as clean as they are when the model is asked.
        noise = uniform(-3.0, -0.7)[:, None, None, None] + 0.25 * torch.randn(
            x.shape, generator=generator, device=mels.device
        )
        x = torch.maximum(x, noise)  # of two sounds added, the louder one is nearly the sum, on a logarithmic scale
        for axis, length in ((2, bands), (3, frames)):
            width = uniform(-length / 10, length / 10)  # of half of the clips nothing
            start = uniform(0, 1) * (length - width)
            place = torch.arange(length, device=mels.device)
            hidden = (place >= start[:, None]) & (place < (start + width)[:, None])
            x = x.masked_fill(hidden[:, None, :, None] if axis == 2 else hidden[:, None, None, :], -0.8)
        return x


def heard(rate: str, inputs: AudioInput) -> str:
    """Return what is heard of a recording, in a sentence.

    Args:
        rate: "at 8,000 Hz".
    """
    return (
        f"Recordings are heard {rate} and for {inputs.seconds:g} s, around their loudest part: what is higher or "
        "longer is lost."
    )


def middle(wave: np.ndarray) -> int:
    """[samples] → the sample that half of the recording's energy is before."""
    energy = np.cumsum(wave.astype(np.float64) ** 2)
    return int(np.searchsorted(energy, energy[-1] / 2))
