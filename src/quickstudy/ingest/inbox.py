"""Data that arrives: what lies in inbox/NAME/ is taken into the dataset NAME. Files in, files out.

    inbox/NAME/tickets.csv      a delivery: a table, a .zip, or a file whose name fits the dataset's pattern
    inbox/NAME/CLASS/file       a delivery is the folder: CLASS/file, or GROUP/CLASS/file
    inbox/.taken/NAME/          deliveries that were taken
    inbox/.rejected/NAME/       deliveries that cannot be, each with a file beside it that says why

A delivery is looked at twice, some seconds apart, and taken only where nothing about it changed, it is called nothing
like .part, and nobody has it open for writing. First its examples are in the dataset, then it is moved away: killed
in between, the next call finds only repetitions and moves it. Nothing is deleted, and no link is followed. Reading one
may take so much memory and no more; one that fails at it twice, or ends the process (`journal`), is set aside.
"""

import contextlib
import errno
import os
import signal
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from quickstudy.errors import QuickstudyError
from quickstudy.ingest.journal import MOST, Journal, key_of, key_of_several
from quickstudy.system.limits import GB, memory_limit
from quickstudy.system.locks import locked

if TYPE_CHECKING:
    from quickstudy.config import Settings
    from quickstudy.ingest.additions import Addition
    from quickstudy.ingest.checks import Progress, SplitOf

UNFINISHED = (".part", ".tmp", ".crdownload", "~")
TAKEN, REJECTED = ".taken", ".rejected"

Look = frozenset[tuple[str, int, int]]
"""What is seen of a delivery: each path in it, its size in bytes and the time of its last change in nanoseconds."""


@dataclass(frozen=True)
class Outcome:
    """What became of a delivery. `dataclasses.asdict` makes JSON of it."""

    dataset: str
    delivery: str
    outcome: Literal["taken", "rejected", "waiting"]
    examples: int = 0
    """new ones, that the dataset has now"""
    repetitions: int = 0
    """that were there already"""
    reason: str = ""
    """why it was rejected or waits, or what else is to be known"""


@dataclass(frozen=True)
class Delivery:
    """One file or folder directly in inbox/NAME/."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def dataset(self) -> str:
        return self.path.parent.name


class _Wait(Exception):
    """Not now."""


def take(
    root: Path,
    settings: "Settings",
    split_of: "SplitOf",
    *,
    cache: Path,
    progress: "Progress" = lambda name, done, total: None,
) -> list[Outcome]:
    """Take what lies in the inbox (``watch.inbox``, beside the data) into the datasets.

    Where nothing lies there it returns at once; else it waits ``watch.quiet`` seconds between its two looks.

    Args:
        root: of the data.
        settings: all of params.yaml.
        split_of: the side of the meta-split that a group is on.
        cache: a folder for what was learned of examples, as of `check_datasets`.
        progress: told (what, done, total).

    Returns:
        an outcome for each delivery, in the order of their names. A bad one stops no other.
    """
    inbox = root.parent / settings.watch.inbox
    outcomes, deliveries = _find(inbox)
    if not deliveries:
        return outcomes
    looks = {delivery: _look(delivery) for delivery in deliveries}
    time.sleep(settings.watch.quiet)  # by a clock that nobody sets
    with locked(root):
        complete: dict[Delivery, Look] = {}
        for delivery in _find(inbox)[1]:  # anew: another call may have taken some
            try:
                complete[delivery] = _complete(delivery, looks.get(delivery))
            except _Wait as why:
                outcomes.append(_outcome(delivery, "waiting", reason=str(why)))
            except QuickstudyError as error:
                outcomes.append(_reject(inbox, delivery, error))
        if complete:
            from quickstudy.ingest import additions  # noqa: F401 (its imports take seconds, which count for no delivery)

        journal = Journal.open(root.parent)
        outcomes += [Outcome(**known) for known in journal.outcomes]
        taker = _Taker(root, inbox, settings, split_of, cache, progress, complete, journal)
        with memory_limit(settings.watch.memory * GB):
            for dataset in sorted({delivery.dataset for delivery in complete}):
                found = taker.take(dataset)
                outcomes += found
        journal.close(taker.key(delivery) for delivery in complete if os.path.lexists(delivery.path))
    return sorted(outcomes, key=lambda outcome: (outcome.dataset, outcome.delivery))


# What lies there


def _find(inbox: Path) -> tuple[list[Outcome], list[Delivery]]:
    """What lies beside the folders, where it can be taken into nothing, and the deliveries."""
    beside, deliveries = [], []
    for path in _entries(inbox):
        if path.is_dir() and not path.is_symlink():
            deliveries += [Delivery(one) for one in _entries(path)]
        else:
            reason = f"lies in no folder with the name of a dataset. Move it to {inbox}/NAME/"
            reason = "a link, which is not followed" if path.is_symlink() else reason
            beside.append(Outcome("", _shown(path.name), "waiting", reason=reason))
    return beside, deliveries


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise QuickstudyError(f"cannot be read ({error.strerror})", where=folder, fix="Check watch.inbox") from None


def _files(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of a delivery; links are given as links. What cannot be read its reader complains of."""
    todo = [path]
    while todo:
        path = todo.pop()
        with contextlib.suppress(OSError):  # moved or renamed at this moment, too
            about = path.lstat()
            if stat.S_ISDIR(about.st_mode):
                todo += sorted(path.iterdir(), reverse=True)
            else:
                yield path, about


def _look(delivery: Delivery) -> Look:
    files = _files(delivery.path)
    return frozenset((os.fspath(path.relative_to(delivery.path)), s.st_size, s.st_mtime_ns) for path, s in files)


def _complete(delivery: Delivery, before: Look | None) -> Look:
    """What is seen of a delivery that is complete.

    Raises:
        _Wait: it is not, or not yet known to be.
        QuickstudyError: it is of a kind that is not taken.
    """
    files = list(_files(delivery.path))
    for path, about in files:
        if stat.S_ISLNK(about.st_mode):
            raise QuickstudyError("a link, which is not followed", where=path, fix="Put the file itself there")
        if not stat.S_ISREG(about.st_mode):
            raise QuickstudyError("not a regular file", where=path)
        if path.name.lower().endswith(UNFINISHED):
            raise _Wait(f"{path.name} is still being written, as its name says")
    if not files:
        raise _Wait("empty so far")
    if before is None or _look(delivery) != before:
        raise _Wait("still being written")
    if any(_is_written_to(path) for path, _ in files):
        raise _Wait("still being written: a program has it open")
    return before


def _is_written_to(path: Path) -> bool:
    """Whether a process has a file open for writing, where the system can tell.

    Linux grants a read lease only where nobody has. Elsewhere, on other people's files and on network drives it cannot
    be asked, and that nothing changes must do.
    """
    import fcntl

    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False  # whoever reads it says why it cannot be read
    try:
        # A writer that comes at this very moment makes the kernel tell us by a signal, which by default would kill.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


# Taking


@dataclass(frozen=True)
class _Taker:
    """What it takes to take."""

    root: Path
    inbox: Path
    settings: "Settings"
    split_of: "SplitOf"
    cache: Path
    progress: "Progress"
    complete: dict[Delivery, Look]
    journal: Journal

    def key(self, *deliveries: Delivery) -> str:
        """What the journal calls a delivery, or several that are read as one."""
        keys = [key_of(one.dataset, one.name, self.complete[one]) for one in deliveries]
        return keys[0] if len(keys) == 1 else key_of_several(keys)

    def take(self, dataset: str) -> list[Outcome]:
        """Take the deliveries for one dataset."""
        from quickstudy.data.dataset import check_name

        deliveries = [delivery for delivery in self.complete if delivery.dataset == dataset]
        try:
            check_name(dataset)
        except QuickstudyError as error:
            return [_reject(self.inbox, delivery, error) for delivery in deliveries]
        outcomes = []
        while deliveries:
            exists = (self.root / dataset / "dataset.yaml").exists()
            some = deliveries[:1] if exists else _together(deliveries)
            found = self._not_again(some) or self._guarded(some, self._add if exists else self._import)
            self.journal.note(asdict(outcome) for outcome in found)
            outcomes += found
            done = {outcome.delivery for outcome in outcomes}
            deliveries = [delivery for delivery in deliveries if _shown(delivery.name) not in done]
        return outcomes

    def _not_again(self, deliveries: list[Delivery]) -> list[Outcome]:
        """Set those aside that have failed too often. Where several that are read as one have failed, each is first
        read alone, so that the others need not go with it."""
        if len(deliveries) > 1 and self.key(*deliveries) in self.journal.failed:
            for delivery in deliveries:
                key = self.key(delivery)
                while not self.journal.has_failed(key):
                    with contextlib.suppress(QuickstudyError, OSError, MemoryError), self.journal.reading([key]):
                        self._alone(delivery)
                        break
        doomed = [delivery for delivery in deliveries if self.journal.has_failed(self.key(delivery))]
        if not doomed and self.journal.has_failed(self.key(*deliveries)):
            doomed = deliveries
        watch = self.settings.watch
        what = (
            f"reading it took more than the {watch.memory:g} GB or the {watch.minutes:g} minutes that a delivery may "
            f"take, or ended the process, {MOST} times"
        )
        fix = "Deliver it in parts, or raise watch.memory or watch.minutes"
        return [
            _reject(self.inbox, delivery, QuickstudyError(what, where=delivery.path, fix=fix)) for delivery in doomed
        ]

    def _alone(self, delivery: Delivery) -> None:
        from quickstudy.ingest.importers.options import ImportOptions
        from quickstudy.ingest.importers.source import import_source

        source, only = _source([delivery])
        with contextlib.suppress(QuickstudyError):  # what is wrong with it is told when it is read with the others
            import_source(source, delivery.dataset, ImportOptions(levels=_levels(delivery)), only=only)

    def _guarded(
        self, deliveries: list[Delivery], action: "Callable[[list[Delivery]], list[Outcome]]"
    ) -> list[Outcome]:
        """Outcomes of some of the deliveries, of one at least."""
        try:
            with self.journal.reading([self.key(*deliveries)]):
                return action(deliveries)
        except _Wait as why:
            return [_outcome(delivery, "waiting", reason=str(why)) for delivery in deliveries]
        except MemoryError:
            reason = (
                f"reading it takes more than watch.memory ({self.settings.watch.memory:g} GB); it is tried once more"
            )
            return self._not_again(deliveries) or [_outcome(one, "waiting", reason=reason) for one in deliveries]
        except QuickstudyError as error:
            # Of several that are read as one, the one that the error is in; the others are tried again.
            guilty = [one for one in deliveries if str(error.where).startswith(f"{one.path}/")] or deliveries
            return [_reject(self.inbox, delivery, error) for delivery in guilty]
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            reason = f"{error.filename or self.inbox} cannot be used ({error.strerror})"
            return [_outcome(delivery, "waiting", reason=reason) for delivery in deliveries]

    def _add(self, deliveries: list[Delivery]) -> list[Outcome]:
        from quickstudy.data.dataset import PLACES, read_dataset
        from quickstudy.ingest.additions import RefusedError, commit, prepare
        from quickstudy.kinds.targets import targets_of

        (delivery,) = deliveries
        folder = self.root / delivery.dataset
        self._may_be_read(lambda: targets_of(read_dataset(folder, PLACES).info.kind, folder))
        how: dict[str, Any] = {"cache": self.cache, "progress": self.progress}
        source, only = _source(deliveries)
        addition: Addition = self._reading(
            deliveries, lambda: prepare(self.root, delivery.dataset, source, only=only, **how)
        )
        try:
            commit(self.root, addition, self.settings, self.split_of, **how)
        except RefusedError:
            raise
        except QuickstudyError as error:
            raise _Wait(str(error)) from None  # not what was delivered is wrong
        return [self._taken(delivery, len(addition.new), addition.repetitions)]

    def _import(self, deliveries: list[Delivery]) -> list[Outcome]:
        from quickstudy.ingest.additions import create
        from quickstudy.ingest.importers.options import ImportOptions
        from quickstudy.ingest.importers.source import import_source

        levels = _levels(deliveries[0])
        if levels == 1 and len(deliveries) == 1:
            raise _Wait("a new dataset needs two classes, and there is one so far")
        source, only = _source(deliveries)
        name = deliveries[0].dataset
        options, told = ImportOptions(levels=levels), partial(self.progress, "reading")
        info, table = self._reading(deliveries, lambda: import_source(source, name, options, only=only, progress=told))
        how: dict[str, Any] = {"cache": self.cache, "progress": self.progress}
        create(self.root, info, table, self.settings, self.split_of, refuse=True, **how)
        if len(deliveries) == 1:
            return [self._taken(deliveries[0], len(table), 0)]
        # Several folders, which are of the plain kind: the first level is part of the name of every class.
        counts = Counter(label.split("/")[0] for label in table.column("label").to_pylist())
        return [self._taken(delivery, counts[_as_class(delivery.name)], 0) for delivery in deliveries]

    def _reading(self, deliveries: list[Delivery], read: "Callable[[], Any]") -> Any:
        """Read deliveries; where one changes meanwhile, nothing that was read counts."""
        try:
            return read()
        except (QuickstudyError, MemoryError):
            raise
        except Exception as error:  # one that no reader foresaw must not stand in the way of the others for ever
            what = f"cannot be read ({type(error).__name__}: {str(error)[:100]})"
            raise QuickstudyError(what, where=deliveries[0].path) from error
        finally:
            if any(_look(delivery) != self.complete[delivery] for delivery in deliveries):
                raise _Wait("still being written")

    def _may_be_read(self, read: "Callable[[], object]") -> None:
        try:
            read()
        except QuickstudyError as error:
            raise _Wait(str(error)) from None

    def _taken(self, delivery: Delivery, examples: int, repetitions: int) -> Outcome:
        moved = _put(self.inbox / TAKEN, delivery)
        reason = ""
        if _look(Delivery(moved)) != self.complete[delivery] and not delivery.path.exists():
            os.rename(moved, delivery.path)
            reason = "more was written to it meanwhile, which is looked at the next time"
        return _outcome(delivery, "taken", examples, repetitions, reason)


def _outcome(
    delivery: Delivery,
    outcome: Literal["taken", "rejected", "waiting"],
    examples: int = 0,
    repetitions: int = 0,
    reason: str = "",
) -> Outcome:
    named = _shown(delivery.dataset), _shown(delivery.name)
    return Outcome(*named, outcome, examples, repetitions, _shown(reason))


def _shown(text: str) -> str:
    """A text for people and JSON: a file's name may hold line breaks, and bytes that are no characters."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _together(deliveries: list[Delivery]) -> list[Delivery]:
    """The deliveries that a new dataset begins with: the first, and if it is a folder the others like it.

    A single CLASS/ or GROUP/ is no dataset, or not the one that is meant.
    """
    levels = _levels(deliveries[0])
    return [one for one in deliveries if _levels(one) == levels] if levels else deliveries[:1]


def _levels(delivery: Delivery) -> int | None:
    """Of a folder, how many folders are above its files, itself counted; None where it holds tables, or is a file."""
    if not delivery.path.is_dir():
        return None
    from quickstudy.ingest.importers.formats import READERS

    paths = [path for path, _ in _files(delivery.path) if not path.name.startswith(".")]
    if any(path.suffix.lower() in READERS for path in paths):
        return None
    levels = Counter(len(path.relative_to(delivery.path).parts) for path in paths)
    return levels.most_common(1)[0][0] if levels else None


def _source(deliveries: list[Delivery]) -> tuple[Path, set[str] | None]:
    """What an importer is to read, and which folders of it.

    A folder is read from where it lies, as its own name may say a class or a group.
    """
    if _levels(deliveries[0]) is None:
        return deliveries[0].path, None
    return deliveries[0].path.parent, {delivery.name for delivery in deliveries}


def _as_class(name: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFC", name.strip())


# Moving


def _reject(inbox: Path, delivery: Delivery, error: QuickstudyError) -> Outcome:
    _put(inbox / REJECTED, delivery, reason=str(error))
    return _outcome(delivery, "rejected", reason=str(error))


def _put(folder: Path, delivery: Delivery, reason: str | None = None) -> Path:
    """Move a delivery away, with the reason beside it, under a name that nothing has there."""
    target = folder / delivery.dataset
    for part in (folder, target):
        if part.is_symlink():
            raise QuickstudyError("a link, which is not followed", where=part, fix="Remove it")
        part.mkdir(exist_ok=True)
    path, why = _free(target, delivery)
    if reason is not None:
        why.write_text(f"{_shown(reason)}\n", encoding="utf-8")  # first: a kill leaves none without a reason
    os.rename(delivery.path, path)
    return path


def _free(target: Path, delivery: Delivery) -> tuple[Path, Path]:
    stem, suffix = (delivery.name, "") if delivery.path.is_dir() else (delivery.path.stem, delivery.path.suffix)
    number = 1
    while True:
        path = target / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
        why = target / f"{path.name}.reason.txt"
        if not os.path.lexists(path) and not os.path.lexists(why):
            return path, why
        number += 1
