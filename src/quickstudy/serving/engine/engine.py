"""The model that answers, the tasks that it has adapted to, and how the next model takes over.

A replica keeps adapted tasks at hand, and before each use asks the database for the task's revision: what another
replica changed is seen at once. When the alias moves the new model is loaded beside the old one, the tasks at hand are
adapted again from their stored examples, and only then does it take over; a request keeps the model that it began with.
All other tasks follow in the background, or when they are asked.
"""

import asyncio
import gc
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from quickstudy.adaptation.adapted import AdaptedTask, Answers, Task, adapt, answer, joined
from quickstudy.adaptation.held_out import held_out
from quickstudy.config import Serve
from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.targets import targets_of
from quickstudy.model.metamodel import MetaModel
from quickstudy.serving.engine import cost
from quickstudy.serving.engine.allowance import Allowance
from quickstudy.serving.engine.batcher import NOBODY, PIECE, Batcher
from quickstudy.serving.engine.line import Busy
from quickstudy.serving.engine.loaded import Loaded, Source
from quickstudy.serving.engine.packing import pack, unpack
from quickstudy.serving.engine.pools import Pools
from quickstudy.serving.engine.store import Contents, Store, Unavailable
from quickstudy.serving.http.metrics import Metrics

BACKGROUND = 15.0
"""Units (cost.py) of a piece of work that nobody waits for."""
INLINE = 64
"""Inputs whose cost is counted at once; of more it is counted on another thread."""
PING = 2.0
"""Seconds that the database has to say that it is there."""
SUSPECT = 0.1
"""Seconds that it takes at most to read a piece of files which cost what their headers say."""
LOOK = 100
"""Tasks looked up at once in the background."""

log = logging.getLogger("quickstudy.serving")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Ready:
    """A task that a model has adapted to."""

    revision: int
    numbers: tuple[int, ...]
    """of its examples, in the order of their vectors"""
    texts: tuple[str, ...] | None
    """the examples of a task of texts"""
    adapted: AdaptedTask

    @property
    def size(self) -> int:
        """Bytes, about: the vectors are there twice, once of length 1."""
        tensors = [self.adapted.task.vectors] * 2 + list(self.adapted.learned.values())
        return sum(t.numel() * t.element_size() for t in tensors) + 2 * sum(map(len, self.texts or ())) + 4096


@dataclass(frozen=True, eq=False)
class _Answer:
    """Answers queries of a task. Two are the same where model and task are, as requests for it share a batch."""

    model: MetaModel
    adapted: AdaptedTask

    def __call__(self, vectors: Tensor) -> Answers:
        return answer(self.model, self.adapted, vectors)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Answer) and self.model is other.model and self.adapted is other.adapted

    def __hash__(self) -> int:
        return id(self.adapted)


@dataclass
class _Adapting:
    """A task that is being adapted to."""

    work: "asyncio.Task[Ready | None]"
    asked: int = 0
    """who wait for it"""


@dataclass(frozen=True)
class Answered:
    """What was answered, from what, by which model."""

    loaded: Loaded
    ready: Ready
    answers: Answers


class Engine:
    """Answers for a service. `start` and `stop` belong to its event loop.

    Args:
        champion: whose alias is followed. challenger: where given, it answers too and is compared.
        compare: told of what both answered to the same queries: the task's id, the champion's and the challenger's.

    Raises:
        QuickstudyError: there is no such model.
    """

    def __init__(
        self,
        settings: Serve,
        store: Store,
        champion: Source,
        metrics: Metrics,
        challenger: Source | None = None,
        compare: Callable[[str, Answered, Answered], None] = lambda task, champion, challenger: None,
    ):
        self.settings, self.store, self.metrics = settings, store, metrics
        self._champion, self._challenger, self._compare = champion, challenger, compare
        if settings.threads:
            torch.set_num_threads(settings.threads)
        version = champion.look()
        if version is None:
            raise QuickstudyError("there is no champion yet", fix="`quickstudy run` makes one")
        self.loaded = champion.load(version, settings.precision)
        self.shadow: Loaded | None = None
        self._refused: set[str] = set()
        """versions that could not be loaded"""
        self._adapting: dict[tuple[str, str, int], _Adapting] = {}
        self._at_hand: OrderedDict[tuple[str, str], Ready] = OrderedDict()
        self._bytes = 0
        self._background: set[asyncio.Task[Any]] = set()
        self._shadowing = 0
        self.allowance = Allowance(settings.budget, settings.credit, settings.held)
        self.pools = Pools(settings.waiting, self._has_decoded)
        self._tell_model()
        _forget_garbage()

    async def start(self) -> None:
        own = self.settings
        observe = self.metrics.batch.observe
        self.batcher = Batcher(own.batch, own.wait / 1000, self.pools.decoding, own.waiting, observe)
        await self.batcher.start()
        self._spawn(self._follow())
        for part in self.loaded.parts.values():
            self._spawn(self._adapt_the_rest(self.loaded, part))

    async def stop(self) -> None:
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.batcher.stop()
        self.pools.stop()

    async def check(self) -> None:
        """Raise Busy where no request can be answered soon, Unavailable where the database is away."""
        if self.batcher.has_ended:
            raise Busy("nothing is computed any more", fix="Start the service again; its log says why")
        if (seconds := self.batcher.at_work) > self.settings.stuck:
            raise Busy(
                f"the thread that computes has been at one piece of work for {seconds:.0f} seconds (serve.stuck)"
            )
        own = self.batcher
        if own.pieces.is_full or own.long.is_full or any(pool.line.is_full for pool in self.pools.all):
            raise Busy("as much waits as may (serve.waiting)")
        try:
            async with asyncio.timeout(PING):
                await self.pools.health.run(NOBODY, self.store.ping)
        except TimeoutError:
            raise Unavailable(f"the database does not answer (within {PING:g} seconds)") from None

    # ---- what requests ask for

    async def encode(
        self,
        kind: str,
        modality: Modality,
        inputs: Sequence[Any],
        costs: Sequence[float] | None = None,
        who: str = NOBODY,
    ) -> tuple[str, list[bytes]]:
        """Return inputs as the model's part for a kind sees them, packed, and the digest of that part.

        Args:
            costs: of each input, where they are known already. who: the tenant.

        Raises:
            QuickstudyError: there is no such part; or see `quickstudy.adaptation.adapted.encode`.
            Overdrawn, Busy: the tenant, or all, want too much.
        """
        loaded = self.loaded.of(kind)
        costs = costs or await self._costs(who, loaded, modality, inputs)
        self.allowance.spend(who, sum(costs))
        parts = await self.batcher.encode(loaded, modality, inputs, pack, costs, who)
        return loaded.digest, [row for part in parts for row in part]

    def check_task(self, kind: str, examples: int, names: int) -> None:
        """Raise QuickstudyError where no tenant may adapt to a task of so many examples and classes or tags."""
        credit, units = self.allowance.credit, cost.of_adapting(self.loaded.of(kind).model, examples, names)
        if self.allowance.budget is not None and units > credit:
            raise QuickstudyError(
                f"{examples} examples of {names} names would cost {units:,.0f} units of work to learn, more than the "
                f"{credit:,.0f} allowed (serve.credit)",
                fix="Make it a smaller task, or several",
            )

    async def answer(
        self,
        id: str,
        revision: int,
        kind: str,
        modality: Modality,
        queries: Sequence[Any],
        costs: Sequence[float] | None = None,
        who: str = NOBODY,
    ) -> Answered | None:
        """Answer queries of a task whose revision is known to be this; None where it has gone meanwhile.

        Args:
            costs: of each query, where they are known already. who: the tenant.

        Raises:
            QuickstudyError: an unreadable query, a model that has not learned the kind, or a task that is none yet, as
                one of fewer than two classes.
            Overdrawn, Busy: the tenant, or all, want too much.
        """
        loaded = self.loaded.of(kind)
        costs = costs or await self._costs(who, loaded, modality, queries)
        self.allowance.spend(who, sum(costs))
        answered = await self._answer(loaded, id, revision, modality, queries, costs, who)
        # What the challenger has no time for it does not answer: it must not slow the champion down.
        shadow = self.shadow.parts.get(kind) if self.shadow else None
        if answered and shadow and self._shadowing < self.settings.batch:
            self._spawn(self._answer_too(shadow, id, modality, queries, costs, answered))
        return answered

    async def held_out(self, id: str, revision: int, kind: str, who: str = NOBODY) -> tuple[int, float, int] | None:
        """(revision, score, asked) of a task's leave-one-out score; see `quickstudy.adaptation.held_out`.

        Raises:
            Overdrawn, Busy: the tenant, or all, want too much.
        """
        loaded = self.loaded.of(kind)
        ready = await self._ready(loaded, id, revision, who)
        if ready is None:
            return None
        task = ready.adapted.task
        self.allowance.spend(who, cost.of_held_out(loaded.model, len(task.targets), len(ready.adapted.names)))
        return (ready.revision, *await self.batcher.run(held_out, loaded.model, task, who=who))

    async def _costs(self, who: str, loaded: Loaded, modality: Modality, inputs: Sequence[Any]) -> list[float]:
        if modality == "text" and len(inputs) <= INLINE:
            return cost.of_inputs(loaded.model, modality, inputs)
        return await self.pools.parsing.run(who, cost.of_inputs, loaded.model, modality, inputs)

    async def _answer(
        self,
        loaded: Loaded,
        id: str,
        revision: int,
        modality: Modality,
        queries: Sequence[Any],
        costs: Sequence[float],
        who: str,
        most: float = PIECE,
    ) -> Answered | None:
        ready = await self._ready(loaded, id, revision, who)
        if ready is None:
            return None
        task = ready.adapted
        each = cost.of_answering(loaded.model, len(task.task.targets), len(task.names))
        whole = [own + each for own in costs]
        parts = await self.batcher.encode(loaded, modality, queries, _Answer(loaded.model, task), whole, who, most)
        return Answered(loaded, ready, joined(parts))

    async def _answer_too(
        self,
        shadow: Loaded,
        id: str,
        modality: Modality,
        queries: Sequence[Any],
        costs: Sequence[float],
        champion: Answered,
    ) -> None:
        self._shadowing += 1
        try:
            revision = champion.ready.revision
            challenger = await self._answer(shadow, id, revision, modality, queries, costs, NOBODY, BACKGROUND)
            if challenger is not None and challenger.ready.revision == revision:
                self._compare(id, champion, challenger)
        except QuickstudyError as error:
            self.metrics.shadow.labels("failed").inc(len(queries))
            log.warning("the challenger cannot answer: %s", error)
        finally:
            self._shadowing -= 1

    # ---- adapted tasks

    async def _ready(self, loaded: Loaded, id: str, revision: int, who: str = NOBODY) -> Ready | None:
        """A task at this revision or a later one, adapted once however many ask; when all who asked have gone, so is
        that work."""
        found = self._at_hand.get((id, loaded.digest))
        if found is not None and found.revision >= revision:
            self._at_hand.move_to_end((id, loaded.digest))
            return found
        key = (id, loaded.digest, revision)
        if key not in self._adapting:
            self._adapting[key] = _Adapting(self._spawn(self._adapt(loaded, id, who)))
            self._adapting[key].work.add_done_callback(lambda _: self._adapting.pop(key, None))
        adapting = self._adapting[key]
        adapting.asked += 1
        try:
            return await asyncio.shield(adapting.work)
        finally:
            adapting.asked -= 1
            if not adapting.asked and not adapting.work.done():
                adapting.work.cancel()
                self._adapting.pop(key, None)

    async def _adapt(self, loaded: Loaded, id: str, who: str) -> Ready | None:
        contents = await self.pools.database.run(who, self.store.contents, id, loaded.digest)
        if contents is None:
            return None
        targets = [example.target for example in contents.examples]
        if who != NOBODY:
            names = len(targets_of(contents.kind).count(targets))
            self.allowance.spend(who, cost.of_adapting(loaded.model, len(targets), names))
        packed = await self._seen(loaded, id, contents, who)
        adapted = await self.batcher.run(_adapt, loaded, contents, packed, self.settings.false_alarm, who=who)
        texts = None
        if contents.modality == "text":
            texts = tuple(example.content.decode() for example in contents.examples)
        ready = Ready(contents.revision, tuple(example.number for example in contents.examples), texts, adapted)
        self.metrics.adapted.inc()
        self._keep_at_hand((id, loaded.digest), ready)
        return ready

    async def _seen(self, loaded: Loaded, id: str, contents: Contents, who: str) -> dict[int, bytes]:
        """What a model sees in a task's examples; those it has not seen yet it sees now, and that is kept."""
        new = [example for example in contents.examples if example.number not in contents.packed]
        if not new:
            return dict(contents.packed)
        inputs = [_input(contents.modality, example.content) for example in new]
        costs = await self._costs(who, loaded, contents.modality, inputs)
        most = BACKGROUND if who == NOBODY else PIECE
        parts = await self.batcher.encode(loaded, contents.modality, inputs, pack, costs, who, most)
        rows = [row for part in parts for row in part]
        packed = {example.number: row for example, row in zip(new, rows, strict=True)}
        await self.pools.database.run(who, self.store.keep_vectors, id, loaded.digest, packed)
        return {**contents.packed, **packed}

    def _has_decoded(self, who: str, seconds: float) -> None:
        """Files may take longer than their headers say."""
        if seconds > SUSPECT and who != NOBODY:
            self.allowance.settle(who, 1000 * (seconds - SUSPECT))

    def _keep_at_hand(self, key: tuple[str, str], ready: Ready) -> None:
        if (old := self._at_hand.get(key)) is not None:
            if old.revision > ready.revision:
                return
            self._bytes -= old.size
        self._at_hand[key] = ready
        self._at_hand.move_to_end(key)
        self._bytes += ready.size
        while self._bytes > self.settings.memory * 1_000_000 and len(self._at_hand) > 1:
            _, dropped = self._at_hand.popitem(last=False)
            self._bytes -= dropped.size
        self.metrics.at_hand.set(len(self._at_hand))

    def _drop(self, digest: str) -> None:
        """What an earlier model made of tasks."""
        for key in [key for key in self._at_hand if key[1] == digest]:
            self._bytes -= self._at_hand.pop(key).size
        self.metrics.at_hand.set(len(self._at_hand))

    # ---- the next model

    async def _follow(self) -> None:
        """Look where the aliases stand, for as long as the service runs."""
        while True:
            try:
                if (new := await self._next(self._champion, self.loaded)) is not None:
                    await self._take_over(new)
                if self._challenger is not None:
                    await self._look_at_challenger(self._challenger)
            except Exception as error:  # the registry is away; what is loaded answers
                log.warning("cannot see where the alias stands: %s", error)
            await asyncio.sleep(self.settings.reload)

    async def _next(self, source: Source, now: Loaded | None) -> Loaded | None:
        """The model that a name stands for now, where it is another one and can be loaded."""
        version = await asyncio.to_thread(source.look)
        if version is None or version in self._refused or (now is not None and version == now.version):
            return None
        try:
            return await asyncio.to_thread(source.load, version, self.settings.precision)
        except QuickstudyError as error:  # the old one goes on
            self._refused.add(version)
            self.metrics.reloads.labels("failed").inc()
            log.error("version %s is not loaded: %s", version, error)
            return None

    async def _take_over(self, new: Loaded) -> None:
        old = self.loaded
        changed = {
            part.digest: new.parts.get(kind)
            for kind, part in old.parts.items()
            if kind not in new.parts or new.parts[kind].digest != part.digest
        }
        for id, digest in reversed(list(self._at_hand)):
            if (part := changed.get(digest)) is not None:
                try:
                    await self._ready(part, id, self._at_hand[id, digest].revision)
                except (QuickstudyError, KeyError) as error:  # told to whoever asks it; or it has left meanwhile
                    log.warning("task %s cannot be adapted to version %s: %s", id, new.version, error)
        self.loaded = new
        self._tell_model()
        self.metrics.reloads.labels("done").inc()
        log.info("version %s has taken over from %s", new.version, old.version)
        for digest in changed:
            self._drop(digest)
        for kind, part in new.parts.items():
            before = old.parts.get(kind)
            if before is None or before.digest != part.digest:
                self._spawn(self._adapt_the_rest(new, part, before))
        _forget_garbage()

    async def _look_at_challenger(self, source: Source) -> None:
        old = self.shadow
        if await asyncio.to_thread(source.look) is None:
            self.shadow = None
        elif (new := await self._next(source, old)) is not None:
            self.shadow = new
            log.info("version %s answers in the shadow", new.version)
        if old is not None and self.shadow is not old:
            kept = {part.digest for part in self.loaded.parts.values()}
            for part in old.parts.values():
                if part.digest not in kept:
                    self._drop(part.digest)

    async def _adapt_the_rest(self, whole: Loaded, new: Loaded, old: Loaded | None = None) -> None:
        """Let a part of a model see the examples of all tasks of its kind, while nobody waits for it, until another
        model takes over."""
        after = ""
        while self.loaded is whole:
            try:
                ids = await self.pools.database.run(NOBODY, self.store.unseen, new.digest, new.kind, after, LOOK)
                for after in ids:
                    if self.loaded is not whole:
                        return
                    await self._see(new, after, old)
                if not ids:
                    return
            except QuickstudyError as error:
                log.warning("tasks wait to be adapted again: %s", error)
                await asyncio.sleep(self.settings.reload)

    async def _see(self, new: Loaded, id: str, old: Loaded | None) -> None:
        contents = await self.pools.database.run(NOBODY, self.store.contents, id, new.digest)
        if contents is None or contents.modality not in new.model.modalities:
            return
        await self._seen(new, id, contents, NOBODY)
        # What is two models back is of no more use; the last one's vectors serve a rollback and slower replicas.
        shadow = self.shadow.parts.get(new.kind) if self.shadow else None
        kept = {loaded.digest for loaded in (new, old, shadow) if loaded is not None}
        await self.pools.database.run(NOBODY, self.store.forget_vectors, id, sorted(kept))

    def _tell_model(self) -> None:
        self.metrics.model.info({"version": self.loaded.version, "digest": self.loaded.digest})

    def _spawn(self, work: Coroutine[Any, Any, _Result]) -> "asyncio.Task[_Result]":
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


def _adapt(loaded: Loaded, contents: Contents, packed: dict[int, bytes], false_alarm: float) -> AdaptedTask:
    targets = tuple(example.target for example in contents.examples)
    try:
        targets_of(contents.kind).check_task(targets)
    except QuickstudyError as error:
        raise QuickstudyError(error.what, fix="POST more to /tasks/{id}/examples") from None
    vectors = unpack([packed[example.number] for example in contents.examples])
    return adapt(loaded.model, Task(contents.kind, contents.modality, targets, vectors, loaded.digest), false_alarm)


def _forget_garbage() -> None:
    """Collect what is garbage, and look through the rest no more: libraries and model are a million objects, and each
    full collection, every few seconds under load, would hold all requests up for 0.2 s."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _input(modality: Modality, content: bytes) -> Any:
    return content.decode() if modality == "text" else content
