"""Inputs that arrive together are encoded together, on the one thread that computes.

While a batch is encoded the next one gathers, and it waits a little until there are as many as before: callers who were
answered together ask again together, and in two small batches they would all wait longer. While requests come one by
one none waits. Tenants take turns (line.py): work of many inputs is cut into pieces by what it costs, other long work
goes on for `TURN` at a time, so that whoever asks for little waits for one piece of everybody else's, and no more.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from quickstudy.adaptation.adapted import check_modality, encode_decoded
from quickstudy.data.dataset import Modality
from quickstudy.serving.engine.cost import ARRAY
from quickstudy.serving.engine.line import Line
from quickstudy.serving.engine.loaded import Loaded
from quickstudy.serving.engine.pools import Pool
from quickstudy.system.turns import Turns

LONGEST = 10
"""Times as long as for others, at most, a batch waits for requests that are being looked up."""
PIECE = 50.0
"""Units (cost.py) that a request brings to a batch, at most, unless one input alone has more."""
BATCH = 3 * PIECE
"""Units of a batch, at most; a batch of short texts is bounded by their number."""
TURN = 0.015
"""Seconds of other work before others have their turn; it may take a little more until it can stop."""
UNTRIED = 0.1
"""Of a piece's units that the first inputs bring to an encoder of which it is not known yet how long it takes."""
FIXED = 10.0
"""Units that any call costs, however little it encodes."""
SLOW = 5.0
"""Times as long as was counted, from which on an encoder counts as slow."""
ROOM = 5_000.0
"""Units of a tenant's files that are decoded and not encoded yet, at most: 40 to 300 million pixels."""
NOBODY = ""
"""Whose work nobody waits for."""
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
    units: float
    """that were counted"""
    cost: float
    """the same, by how long this encoder takes"""


_Key = tuple[str, Modality]


@dataclass(frozen=True, eq=False)
class _Long:
    turns: Turns[Any]
    done: "asyncio.Future[Any]"


class Batcher:
    """Computes for an event loop.

    Args:
        size: inputs in a batch, at most. wait: seconds that a batch waits for as many requests as there were before.
        decoding: where files are read. share: see `Line`, of pieces and of other work each.
        observe: told the size of each batch.
    """

    def __init__(
        self, size: int, wait: float, decoding: Pool, share: int, observe: Callable[[int], None] = lambda size: None
    ):
        self.size, self.wait, self._decoding, self._observe = size, wait, decoding, observe
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="torch", initializer=_start)
        self.pieces: Line[_Piece] = Line(share)
        self.long: Line[_Long] = Line(share)
        self._came = asyncio.Event()
        self._coming = 0
        self._loop: asyncio.Task[None] | None = None
        self._begun: float | None = None
        self._given_up: list[_Long] = []
        self._room = Room(ROOM)
        self._pace: dict[_Key, float] = {}
        """seconds of the thread that a unit takes, of each encoder"""

    async def start(self) -> None:
        self._loop = asyncio.create_task(self._work())

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop
        self._thread.shutdown(wait=True)

    @property
    def has_ended(self) -> bool:
        """Return whether nothing is computed any more."""
        return self._loop is None or self._loop.done()

    @property
    def at_work(self) -> float:
        """Return for how many seconds the thread has been at what it does now; 0 where it does nothing."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    async def run(self, work: Callable[..., _Result], *arguments: Any, who: str = NOBODY) -> _Result:
        """Compute something else on the same thread, which lets others have their turn where it gives way (turns.py).
        Whoever is cancelled while waiting cancels the work.

        Raises:
            Busy: too much waits already.
        """
        done: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        long: _Long = _Long(Turns(lambda: work(*arguments)), done)
        self.long.put(who, long)
        self._came.set()
        try:
            return await done
        finally:
            if not done.done() or done.cancelled():
                self._given_up.append(long)
                self._came.set()

    async def encode(
        self,
        loaded: Loaded,
        modality: Modality,
        inputs: Sequence[Any],
        finish: Callable[[Tensor], _Rows],
        costs: Sequence[float] | None = None,
        who: str = NOBODY,
        most: float = PIECE,
    ) -> list[_Rows]:
        """Encode inputs, and do something with their vectors on the thread that computes.

        Args:
            finish: gets float32 [n, D] of a piece of the inputs, in order; of all pieces of a batch at once that say
                the same one, and then each has its rows of the result.
            costs: of each input, in units; where it is not said, all are cheap. who: the tenant.
            most: units of a piece.

        Raises:
            QuickstudyError: an input that cannot be read; the others of its batch are not harmed.
            Busy: too much waits already.
        """
        check_modality(loaded.model, modality)
        results: list[_Rows] = []
        own = costs or [0.0] * len(inputs)
        for part, units in cut(inputs, own, lambda: most * self._share_of(loaded, modality), self.size):
            if modality == "text":
                results.append(await self._encoded(who, loaded, modality, part, finish, units, bool(results)))
                continue
            async with self._room.of(who, units):
                decoded = await self._decoding.run(who, _decoded, loaded, modality, part)
                units = ARRAY * len(part)
                results.append(await self._encoded(who, loaded, modality, decoded, finish, units, bool(results)))
        return results

    async def _encoded(
        self,
        who: str,
        loaded: Loaded,
        modality: Modality,
        inputs: Sequence[Any],
        finish: Callable[[Tensor], _Rows],
        units: float,
        is_begun: bool,
    ) -> _Rows:
        slower = 1 / max(self._share_of(loaded, modality), UNTRIED)
        done: asyncio.Future[_Rows] = asyncio.get_running_loop().create_future()
        # What was begun is ended: only the first piece may be refused.
        join = self.pieces.back if is_begun else self.pieces.put
        join(who, _Piece(loaded, modality, inputs, finish, done, units, min(units * slower, BATCH)))
        self._came.set()
        return await done

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        """While a request is looked up that may bring inputs."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def _work(self) -> None:
        usual = 1  # pieces that there were when the last batch was done: its own, and those that waited
        while True:
            for long in self._given_up:
                await self._on_thread(long.turns.give_up)
            self._given_up.clear()
            if not len(self.pieces) and not len(self.long):
                self._came.clear()
                await self._came.wait()
            if (taken := self.long.take()) is not None:
                await self._turn(*taken)
            batch = await self._gathered(usual)
            if batch:
                await self._answer(batch)
                usual = len(batch) + len(self.pieces)

    async def _turn(self, who: str, long: _Long) -> None:
        try:
            done = await self._on_thread(long.turns.go_on, TURN)
        except Exception as error:
            if not long.done.done():
                long.done.set_exception(error)
            return
        if not done:
            self.long.back(who, long)
        elif not long.done.done():
            long.done.set_result(long.turns.result)

    async def _gathered(self, usual: int) -> list[_Piece]:
        """The next batch; none where no piece waits."""
        first = self.pieces.take()
        if first is None:
            return []
        loop = asyncio.get_running_loop()
        batch = [first[1]]
        size, units = len(batch[0].inputs), batch[0].cost
        soon, latest = loop.time() + self.wait, loop.time() + LONGEST * self.wait
        while size < self.size and units < BATCH:
            room = BATCH - units
            taken = self.pieces.take(lambda _, piece, room=room: piece.cost <= room)  # type: ignore[misc]
            if taken is not None:
                batch.append(taken[1])
                size, units = size + len(taken[1].inputs), units + taken[1].cost
                continue
            now, until = loop.time(), latest if self._coming else soon
            if len(batch) >= usual or now >= until or len(self.long) or len(self.pieces):
                break
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(until, now + self.wait)):
                    await self._came.wait()
        return batch

    async def _answer(self, batch: list[_Piece]) -> None:
        self._observe(sum(len(piece.inputs) for piece in batch))
        results, took = await self._on_thread(_compute, batch)
        for key, pace in took.items():
            self._pace[key] = 0.8 * self._pace[key] + 0.2 * pace if key in self._pace else pace
        for piece, result in zip(batch, results, strict=True):
            if piece.done.done():  # whoever asked has gone
                continue
            if isinstance(result, Exception):
                piece.done.set_exception(result)
            else:
                piece.done.set_result(result)

    def _share_of(self, loaded: Loaded, modality: Modality) -> float:
        """Which share of the usual units an encoder has in a piece, so that it takes as long as others."""
        pace = self._pace.get((loaded.digest, modality))
        if pace is None:
            return UNTRIED
        return 1.0 if 1000 * pace < SLOW else 1 / (1000 * pace)

    async def _on_thread(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        self._begun = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        finally:
            self._begun = None


def cut(
    inputs: Sequence[Any], costs: Sequence[float], most: Callable[[], float], size: int
) -> Iterator[tuple[Sequence[Any], float]]:
    """Yield inputs piece by piece, with what each costs: at most so many units, unless one alone has more, and so many
    inputs."""
    begin, units = 0, 0.0
    for place, own in enumerate(costs):
        if place > begin and (units + own > most() or place - begin >= size):
            yield inputs[begin:place], units
            begin, units = place, 0.0
        units += own
    if len(inputs) > begin:
        yield inputs[begin:], units


class Room:
    """Bounds what of each tenant is decoded and not encoded yet.

    Args:
        most: units of a tenant, unless one piece has more.
    """

    def __init__(self, most: float):
        self.most = most
        self._held: dict[str, float] = {}
        self._left = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def of(self, who: str, units: float) -> AsyncIterator[None]:
        """Wait until there is room for more of a tenant's, and hold it."""
        while (held := self._held.get(who, 0.0)) and held + units > self.most:
            async with self._left:
                await self._left.wait()
        self._held[who] = held + units
        try:
            yield
        finally:
            left = self._held.pop(who) - units
            if left > 1e-6:
                self._held[who] = left
            async with self._left:
                self._left.notify_all()


def _decoded(loaded: Loaded, modality: Modality, inputs: Sequence[Any]) -> list[Any]:
    encoder = loaded.model.encoder(modality)
    return [encoder.decoded(one) for one in inputs]


_inference: list[Any] = []


def _start() -> None:
    """For all of the thread's life: work that stops amid its `inference_mode` must not end that of others."""
    mode = torch.inference_mode()
    mode.__enter__()
    _inference.append(mode)


@torch.inference_mode()
def _compute(batch: Sequence[_Piece]) -> tuple[list[Any], dict[_Key, float]]:
    """What each piece comes to, or what it raised; and the seconds of this thread that a unit took of each encoder."""
    took: dict[_Key, float] = {}

    def together(places: Sequence[int]) -> list[Any]:
        first = batch[places[0]]
        inputs = [one for place in places for one in batch[place].inputs]
        started = time.thread_time()  # which does not grow where the machine is busy
        vectors = encode_decoded(first.loaded.model, first.modality, inputs)
        units = FIXED + sum(batch[place].units for place in places)
        took[first.loaded.digest, first.modality] = (time.thread_time() - started) / units
        return _split(batch, places, vectors)

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
    return results, took


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
