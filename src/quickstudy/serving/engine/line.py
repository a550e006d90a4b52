"""Who is next, fairly: tenants take turns, whoever of them has asked for more; each has its own in order.

(Nagle 1987, "On packet switches with infinite storage", RFC 970: a queue a source, served round-robin.)
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from quickstudy.errors import QuickstudyError


class Busy(QuickstudyError):
    """So much waits already that no more is taken."""


class Waiting(Protocol):
    """Something to be done, which nobody may wait for any more."""

    @property
    def done(self) -> "asyncio.Future": ...  # type: ignore[type-arg]


_Item = TypeVar("_Item", bound=Waiting)


class Line(Generic[_Item]):
    """A bounded queue between tenants.

    Args:
        share: of one tenant that may wait. Of all together it is four times as much.
    """

    def __init__(self, share: int):
        self.share, self.most = share, 4 * share
        self._lanes: OrderedDict[str, deque[_Item]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        """Whether nobody may join."""
        return self._count >= self.most

    def put(self, who: str, item: _Item) -> None:
        """Let something wait.

        Raises:
            Busy: too much waits already, of this tenant or of all.
        """
        self.check(who)
        self.back(who, item)

    def check(self, who: str) -> None:
        """Raise Busy where nothing more of a tenant may wait."""
        if len(self._lanes.get(who, ())) >= self.share:
            raise Busy(f"{self.share} requests of yours wait already (serve.waiting)", fix="Ask again in a moment")
        if self.is_full:
            raise Busy("the service has more to do than it can", fix="Ask again in a moment")

    def back(self, who: str, item: _Item) -> None:
        """Let something wait that has waited before, however much there is."""
        self._lanes.setdefault(who, deque()).append(item)
        self._count += 1

    def take(self, may: Callable[[str, _Item], bool] = lambda who, item: True) -> tuple[str, _Item] | None:
        """Return the next, whose tenant then comes last; None where there is none.

        Args:
            may: whether a tenant's next may be taken now; else it keeps its place.
        """
        for who in list(self._lanes):
            lane = self._lanes[who]
            while lane and lane[0].done.done():  # whoever asked has gone
                lane.popleft()
                self._count -= 1
            if not lane:
                del self._lanes[who]
            elif may(who, lane[0]):
                self._count -= 1
                item = lane.popleft()
                if lane:
                    self._lanes.move_to_end(who)
                else:
                    del self._lanes[who]
                return who, item
        return None
