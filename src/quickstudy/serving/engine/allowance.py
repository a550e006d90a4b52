"""How much work a tenant may ask for: so many units a second, and some ahead (a token bucket).

A unit is about a millisecond of two cores; cost.py counts them before the work is begun. What files have cost more than
was counted is taken afterwards.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from quickstudy.errors import QuickstudyError

REMEMBERED = 10_000
MEGABYTE = 1_000_000


class Overdrawn(QuickstudyError):
    """A tenant has asked for more than it may for now."""

    def __init__(self, what: str, seconds: int, fix: str | None = None):
        super().__init__(what, fix=fix)
        self.seconds = seconds
        """until there is some again"""


@dataclass
class _Account:
    units: float
    filled: float
    """when"""
    held: int = 0
    """bytes of bodies"""


class Allowance:
    """What each tenant has left. Each replica counts for itself.

    Args:
        budget: units a second; None: any number. credit: units ahead, at most. held: megabytes of bodies at once.
        clock: seconds.
    """

    def __init__(
        self, budget: float | None, credit: float, held: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.budget, self.credit, self.held = budget, credit, held * MEGABYTE
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def spend(self, who: str, units: float) -> None:
        """Take units for work that is to be done; the last ones may be more than there are.

        Raises:
            QuickstudyError: no tenant may have so many at once.
            Overdrawn: there are none left.
        """
        if self.budget is None:
            return
        if units > self.credit:
            raise QuickstudyError(
                f"would cost {units:,.0f} units of work, more than the {self.credit:,.0f} allowed (serve.credit)",
                fix="Ask for less at once",
            )
        account = self._account(who)
        if account.units <= 0:
            raise Overdrawn(
                f"more than {self.budget:g} units of work a second (serve.budget)",
                math.ceil((1 - account.units) / self.budget),
            )
        account.units -= units

    def settle(self, who: str, units: float) -> None:
        """Take units for work that was done."""
        if self.budget is not None and units > 0:
            account = self._account(who)
            account.units = max(account.units - units, -self.credit)

    @contextmanager
    def holding(self, who: str) -> "Iterator[Callable[[int], None]]":
        """While a body is worked on: yields what is told of bytes that have come.

        Raises:
            Overdrawn: the tenant's bodies are too many bytes together, from what is yielded.
        """
        own = 0

        def more(count: int) -> None:
            nonlocal own
            account = self._account(who)
            if account.held + count > self.held and account.held > own:
                what = f"your requests hold more than {self.held // MEGABYTE} MB together (serve.held)"
                raise Overdrawn(what, 1)
            own += count
            account.held += count

        try:
            yield more
        finally:
            if own:
                self._account(who).held -= own

    def _account(self, who: str) -> _Account:
        now = self._clock()
        account = self._accounts.get(who)
        if account is None:
            if len(self._accounts) >= REMEMBERED:
                self._forget_full()
            account = self._accounts[who] = _Account(self.credit, now)
        elif self.budget is not None:
            account.units = min(self.credit, account.units + self.budget * (now - account.filled))
        account.filled = now
        return account

    def _forget_full(self) -> None:
        """A new account has as much as one that was forgotten."""
        for who, account in list(self._accounts.items()):
            if not account.held and account.units >= self.credit:
                del self._accounts[who]
