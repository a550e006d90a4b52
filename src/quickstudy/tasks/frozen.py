"""Frozen evaluation episodes: drawn once by the stage `tasks`, answered by every model and every baseline."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from quickstudy.config import Episodes as EpisodeSettings
from quickstudy.data.dataset import Dataset, Modality
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.episodes import EPISODES, labels_of, largest_way
from quickstudy.kinds.task import Episodes, joined
from quickstudy.tasks.suites import Novelty, Suite

BLOCK = 50  # episodes drawn at once: bounds the memory of the random keys


@dataclass(frozen=True)
class FrozenEpisodes:
    """The episodes of one suite at one number of shots."""

    kind: str
    suite: str
    dataset: str
    modality: Modality
    novelty: Novelty
    episodes: Episodes

    @property
    def count(self) -> int:
        return len(self.episodes.support)

    def part(self, start: int, stop: int) -> "FrozenEpisodes":
        """Return the episodes from ``start`` to before ``stop``."""
        return replace(self, episodes=self.episodes.part(start, stop))


def freeze(suite: Suite, settings: EpisodeSettings, seed: int) -> list[FrozenEpisodes]:
    """Draw the episodes of a suite, for every number of shots that it has the examples for.

    The draw depends on the seed, the suite's name and its examples alone: another suite beside it changes nothing.
    """
    frozen = []
    pool = suite.pool
    for shot in settings.shots:
        way = largest_way(pool, settings.way_of(pool.dataset), shot + settings.query)
        if way is None:
            continue
        entropy = np.random.SeedSequence([seed, shot, *suite.name.encode()]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(entropy[0] >> 1))
        blocks = [
            EPISODES[pool.kind].draw(pool, min(BLOCK, settings.count - start), way, shot, settings.query, generator)
            for start in range(0, settings.count, BLOCK)
        ]
        frozen.append(FrozenEpisodes(pool.kind, suite.name, pool.dataset, pool.modality, suite.novelty, joined(blocks)))
    return frozen


def targets_of(dataset: Dataset, frozen: FrozenEpisodes) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the targets of the episodes' support [E, N·K, ...] and query [E, N·Q, ...]."""
    return EPISODES[frozen.kind].targets(labels_of(dataset), frozen.episodes)


def write_episodes(path: Path, frozen: list[FrozenEpisodes]) -> None:
    """Write one row an episode; support and query are row numbers of the dataset, class by class. What a task asks
    about is written where its rows do not say so."""
    columns: dict[str, list] = {
        name: [] for name in ("suite", "dataset", "modality", "novelty", "way", "shot", "episode", "support", "query")
    }
    if any(block.episodes.asked is not None for block in frozen):
        columns["asked"] = []
    for block in frozen:
        for i in range(block.count):
            columns["suite"].append(block.suite)
            columns["dataset"].append(block.dataset)
            columns["modality"].append(block.modality)
            columns["novelty"].append(block.novelty)
            columns["way"].append(block.episodes.way)
            columns["shot"].append(block.episodes.shot)
            columns["episode"].append(i)
            columns["support"].append(block.episodes.support[i].flatten().tolist())
            columns["query"].append(block.episodes.query[i].flatten().tolist())
            if block.episodes.asked is not None:
                columns["asked"].append(block.episodes.asked[i].tolist())
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_episodes(path: Path, kind: str) -> list[FrozenEpisodes]:
    """Return what `write_episodes` wrote of a kind, in the same order.

    Raises:
        QuickstudyError: the file is missing or damaged.
    """
    try:
        frame = pq.read_table(path).to_pandas()
    except FileNotFoundError:
        raise QuickstudyError("not found", where=path, fix="`quickstudy tasks` writes it") from None
    except pa.ArrowInvalid as error:
        raise QuickstudyError(f"is damaged ({error})", where=path, fix="`quickstudy tasks` writes it anew") from None
    frozen = []
    for (suite, shot), rows in frame.groupby(["suite", "shot"], sort=False):
        first = rows.iloc[0]
        way = int(first["way"])
        support = torch.from_numpy(np.stack(rows["support"].to_list())).unflatten(1, (way, int(shot)))
        query = torch.from_numpy(np.stack(rows["query"].to_list())).unflatten(1, (way, -1))
        asked = torch.from_numpy(np.stack(rows["asked"].to_list())) if "asked" in rows else None
        episodes = Episodes(support, query, asked)
        frozen.append(FrozenEpisodes(kind, suite, first["dataset"], first["modality"], first["novelty"], episodes))
    return frozen
