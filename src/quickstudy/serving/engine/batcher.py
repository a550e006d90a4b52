"""Inputs that arrive together are encoded together, on the one thread that computes.

While a batch is encoded the next one gathers, and it waits a little until there are as many as before: callers who were
answered together ask again together, and in two small batches they would all wait longer. While requests come one by
one none waits. Work of many inputs is cut into pieces, between which others get their turn.
"""

import asyncio
import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from quickstudy.adaptation.adapted import encode
from quickstudy.data.dataset import Modality
from quickstudy.serving.engine.loaded import Loaded

LONGEST = 10
"""Times as long as for others, at most, a batch waits for requests that are being looked up."""
_Result = TypeVar("_Result")


class Rows(Protocol):
    """What comes of several inputs, and can be cut into parts."""

    def __getitem__(self, rows: slice) -> Any: ...


_Rows = TypeVar("_Rows", bound=Rows)


@dataclass(frozen=True)
class _Piece:
    loaded: Loaded
    modality: Modality
    inputs: Sequence[Any]
    finish: Callable[[Tensor], Rows]
    done: "asyncio.Future[Any]"


class Batcher:
    """Encodes for an event loop.

    Args:
        size: inputs in a batch, at most. wait: seconds that a batch waits for as many requests as there were before.
        observe: told the size of each batch.
    """

    def __init__(self, size: int, wait: float, observe: Callable[[int], None] = lambda size: None):
        self.size, self.wait, self._observe = size, wait, observe
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="torch")
        self._waiting: asyncio.Queue[_Piece] = asyncio.Queue()
        self._coming = 0
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._loop = asyncio.create_task(self._batches())

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop
        self._thread.shutdown(wait=True)

    async def run(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        """Compute something else on the same thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def encode(
        self,
        loaded: Loaded,
        modality: Modality,
        inputs: Sequence[Any],
        finish: Callable[[Tensor], _Rows],
        piece: int | None = None,
    ) -> list[_Rows]:
        """Encode inputs, and do something with their vectors on the thread that computes.

        Args:
            finish: gets float32 [n, D] of a piece of the inputs, in order; of all pieces of a batch at once that say
                the same one, and then each has its rows of the result.
            piece: inputs of a piece, at most; by default a batch.

        Raises:
            QuickstudyError: an input that cannot be read; the others of its batch are not harmed.
        """
        step = piece or self.size
        results = []
        for start in range(0, len(inputs), step):
            done: asyncio.Future[_Rows] = asyncio.get_running_loop().create_future()
            self._waiting.put_nowait(_Piece(loaded, modality, inputs[start : start + step], finish, done))
            results.append(await done)
        return results

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        """While a request is looked up that may bring inputs."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def _batches(self) -> None:
        loop = asyncio.get_running_loop()
        usual = 1  # pieces that there were when the last batch was done: its own, and those that waited
        while True:
            batch = [await self._waiting.get()]
            size = len(batch[0].inputs)
            soon, latest = loop.time() + self.wait, loop.time() + LONGEST * self.wait
            while size < self.size:
                if self._waiting.empty():
                    now, until = loop.time(), latest if self._coming else soon
                    if len(batch) >= usual or now >= until:
                        break
                    try:
                        async with asyncio.timeout_at(min(until, now + self.wait)):
                            batch.append(await self._waiting.get())
                    except TimeoutError:
                        continue
                else:
                    batch.append(self._waiting.get_nowait())
                size += len(batch[-1].inputs)
            self._observe(size)
            results = await loop.run_in_executor(self._thread, _compute, batch)
            usual = len(batch) + self._waiting.qsize()
            for piece, result in zip(batch, results, strict=True):
                if piece.done.done():  # whoever asked has gone
                    continue
                if isinstance(result, Exception):
                    piece.done.set_exception(result)
                else:
                    piece.done.set_result(result)


@torch.inference_mode()
def _compute(batch: Sequence[_Piece]) -> list[Any]:
    """What each piece comes to, or what it raised."""

    def together(places: Sequence[int]) -> list[Any]:
        first = batch[places[0]]
        inputs = [one for place in places for one in batch[place].inputs]
        return _split(batch, places, encode(first.loaded.model, first.modality, inputs))

    results: list[Any] = [None] * len(batch)
    for alike in _grouped(batch, range(len(batch)), lambda piece: (piece.loaded.digest, piece.modality)):
        for place, vectors in zip(alike, _each(together, alike), strict=True):
            results[place] = vectors

    def finished(places: Sequence[int]) -> list[Any]:
        return _split(batch, places, batch[places[0]].finish(torch.cat([results[place] for place in places])))

    encoded = [place for place, result in enumerate(results) if not isinstance(result, Exception)]
    for alike in _grouped(batch, encoded, lambda piece: piece.finish):
        for place, result in zip(alike, _each(finished, alike), strict=True):
            results[place] = result
    return results


def _grouped(batch: Sequence[_Piece], places: Iterable[int], key: Callable[[_Piece], Hashable]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for place in places:
        groups.setdefault(key(batch[place]), []).append(place)
    return list(groups.values())


def _split(batch: Sequence[_Piece], places: Sequence[int], rows: Rows) -> list[Any]:
    """The rows of each of these pieces."""
    ends = list(accumulate(len(batch[place].inputs) for place in places))
    return [rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _each(work: Callable[[Sequence[int]], list[Any]], places: Sequence[int]) -> list[Any]:
    """What work makes of pieces at once; where one of them is to blame that it fails, of each by itself."""
    try:
        return work(places)
    except Exception as error:
        if len(places) == 1:
            return [error]
        return [result for place in places for result in _each(work, [place])]
