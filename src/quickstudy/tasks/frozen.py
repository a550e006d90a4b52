"""Frozen evaluation episodes: drawn once by the stage `tasks`, answered by every model and every baseline."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from quickstudy.config import Episodes as EpisodeSettings
from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.tasks.suites import Episodes, Novelty, Suite, sample

BLOCK = 50  # episodes drawn at once: bounds the memory of the random keys


@dataclass(frozen=True)
class FrozenEpisodes:
    """The episodes of one suite at one number of shots."""

    suite: str
    dataset: str
    modality: Modality
    novelty: Novelty
    episodes: Episodes

    @property
    def count(self) -> int:
        return len(self.episodes.support)

    def part(self, start: int, stop: int) -> "FrozenEpisodes":
        """The episodes from ``start`` to before ``stop``."""
        support, query = self.episodes.support[start:stop], self.episodes.query[start:stop]
        return replace(self, episodes=Episodes(support, query))


def freeze(suite: Suite, settings: EpisodeSettings, seed: int) -> list[FrozenEpisodes]:
    """Draw the episodes of a suite, for every number of shots that it has the examples for.

    The draw depends on the seed, the suite's name and its examples alone: another suite beside it changes nothing.
    """
    frozen = []
    for shot in settings.shots:
        way = min(settings.way_of(suite.pool.dataset), suite.pool.largest_way(shot + settings.query))
        if way < 2:
            continue
        entropy = np.random.SeedSequence([seed, shot, *suite.name.encode()]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(entropy[0] >> 1))
        blocks = [
            sample(suite.pool, min(BLOCK, settings.count - start), way, shot, settings.query, generator)
            for start in range(0, settings.count, BLOCK)
        ]
        episodes = Episodes(torch.cat([b.support for b in blocks]), torch.cat([b.query for b in blocks]))
        frozen.append(FrozenEpisodes(suite.name, suite.pool.dataset, suite.pool.modality, suite.novelty, episodes))
    return frozen


def write_episodes(path: Path, frozen: list[FrozenEpisodes]) -> None:
    """One row an episode; support and query are row numbers of the dataset, class by class."""
    columns: dict[str, list] = {
        name: [] for name in ("suite", "dataset", "modality", "novelty", "way", "shot", "episode", "support", "query")
    }
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
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_episodes(path: Path) -> list[FrozenEpisodes]:
    """What `write_episodes` wrote, in the same order.

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
        frozen.append(
            FrozenEpisodes(suite, first["dataset"], first["modality"], first["novelty"], Episodes(support, query))
        )
    return frozen
