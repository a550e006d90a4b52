"""What work costs, counted before it is begun, in units: 1 is about a millisecond of two cores.

Measured on 2 cores with bfloat16 (all-MiniLM-L6-v2, Conv4). Of a bigger encoder a unit takes longer, and its pieces are
cut smaller (batcher.py); files that took longer than their headers say are settled afterwards (allowance.py).
"""

import re
from collections.abc import Sequence
from typing import Any

from quickstudy.adaptation import held_out
from quickstudy.data.dataset import Modality
from quickstudy.data.media import Extent, extent
from quickstudy.kinds.heads import HEADS
from quickstudy.model.metamodel import MetaModel

MULTIPLICATIONS = 10_000_000
"""That are added up in a unit."""
TEXT, TOKEN, CHARACTER = 0.2, 0.11, 1 / 300
LOOKED_AT = 1_000
"""Characters of a text in which tokens are counted."""
ARRAY = 1.0
"""Of what was made of a file, through the encoder."""
FILE = 0.1
PIXELS = {"JPEG": 60_000, "PNG": 50_000, "GIF": 50_000, "BMP": 100_000, "TIFF": 30_000, "WEBP": 8_000}
"""Of each format that are decoded in a unit."""
SLOWEST = min(PIXELS.values())
BYTES = 20_000
"""Of a file that are looked through in a unit."""
SAMPLES = 50_000

_TOKEN = re.compile(r"[A-Za-z]{1,7}|[^A-Za-z\s]")


def of_text(text: str, most_tokens: int) -> float:
    """Return what it costs to encode a text; tokens beyond the most are not read, but all characters are looked at."""
    tokens = min(len(_TOKEN.findall(text[:LOOKED_AT])) + 2, most_tokens)
    return TEXT + TOKEN * tokens + CHARACTER * max(0, len(text) - LOOKED_AT)


def of_file(said: Extent | None, size: int) -> float:
    """Return what it costs to encode a file of so many bytes, by what its header says."""
    units = ARRAY + FILE + size / BYTES
    if said is not None:
        units += said.pixels * said.passes / PIXELS.get(said.format, SLOWEST) + said.samples / SAMPLES
    return units


def of_inputs(model: MetaModel, modality: Modality, inputs: Sequence[Any]) -> list[float]:
    """Return what it costs to encode each of these texts or files."""
    if modality == "text":
        return [of_text(text, model.inputs.text.max_tokens) for text in inputs]
    return [of_file(extent(data, modality), len(data)) for data in inputs]


def of_adapting(model: MetaModel, examples: int, names: int) -> float:
    """Return what it costs to adapt to a task of so many examples and classes or tags."""
    work = HEADS[model.kind].effort(model.vector_learner, examples, names, model.shape.dimension)
    return 1 + work / MULTIPLICATIONS


def of_answering(model: MetaModel, examples: int, names: int) -> float:
    """Return what it costs to answer a query that is encoded."""
    return examples * (model.shape.dimension + names) / MULTIPLICATIONS


def of_held_out(model: MetaModel, examples: int, names: int) -> float:
    """Return what it costs to leave the examples of a task out, one by one."""
    asked = min(examples, held_out.asked_of(model, examples, names))
    return 1 + asked * held_out.effort(model, examples, names) / MULTIPLICATIONS
