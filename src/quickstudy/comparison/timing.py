"""How fast the cells adapt: asked in turn, so that whatever else the machine does slows all of them alike."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from quickstudy.adaptation.adapted import learn
from quickstudy.data.dataset import Dataset
from quickstudy.kinds.heads import HEADS
from quickstudy.model.metamodel import MetaModel
from quickstudy.tasks.frozen import FrozenEpisodes, targets_of


def time_adaptation(
    models: Mapping[str, MetaModel],
    datasets: Mapping[str, Dataset],
    frozen: Sequence[FrozenEpisodes],
    count: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Let every model adapt to the first ``count`` tasks of each suite and number of shots, from their files.

    Args:
        models: by the name of the cell; all have learned the modalities of the episodes.

    Returns:
        columns cell, suite, shot, episode, adapt_ms.
    """
    rows = []
    total = sum(min(count, block.count) for block in frozen) * len(models)
    met: set[str] = set()
    for block in frozen:
        shot = block.episodes.shot
        numbers, _ = targets_of(datasets[block.dataset], block)
        for episode in range(min(count, block.count)):
            examples = datasets[block.dataset].raw(block.episodes.support[episode].flatten().numpy())
            targets = HEADS[block.kind].plain(numbers[episode])
            if block.modality not in met:  # weights and kernels are warm from here on
                met.add(block.modality)
                for model in models.values():
                    learn(model, block.modality, examples, targets, "")
            for name, model in models.items():
                ms = learn(model, block.modality, examples, targets, "").adapt_ms
                rows.append((name, block.suite, shot, episode, ms))
                progress(len(rows), total)
    return pd.DataFrame(rows, columns=["cell", "suite", "shot", "episode", "adapt_ms"])
