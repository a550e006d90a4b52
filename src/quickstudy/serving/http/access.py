"""Who calls, and how often they may."""

import asyncio
import math
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from quickstudy.config import Serve
from quickstudy.serving.engine.store import LOCAL, Store

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
TRUSTED = 5.0
"""Seconds that a key is taken for good before the database is asked again; a removed one works so long."""
REMEMBERED = 10_000


@dataclass
class _Bucket:
    tokens: float
    """requests that may come at once"""
    filled: float
    """when, by the monotonic clock"""


class Access:
    """Knows the keys of a service. Each replica counts for itself how often a key calls.

    Args:
        settings: requests a second and at once, and the pages elsewhere that may call.
    """

    def __init__(self, settings: Serve, store: Store):
        self.settings, self.store = settings, store
        self._known: dict[str, tuple[str | None, float]] = {}
        self._open: tuple[bool, float] | None = None
        self._buckets: dict[str, _Bucket] = {}

    async def tenant(self, request: Request) -> str:
        """Return whose tasks a request may see.

        Raises:
            HTTPException: 401 without a key that is known, 403 from elsewhere while there are no keys, 429 too often.
            Unavailable: the database does not answer.
        """
        if await self._is_open():
            _check_local(request, self.settings.cors)
            tenant, bucket = LOCAL, LOCAL
        else:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            found = await self._tenant_of(key.strip()) if scheme.lower() == "bearer" and 0 < len(key) < 200 else None
            if found is None:
                raise HTTPException(
                    401, "say a key that is known: Authorization: Bearer KEY", headers={"www-authenticate": "Bearer"}
                )
            tenant, bucket = found, key
        request.state.tenant = tenant
        if (wait := self._spend(bucket)) > 0:
            raise HTTPException(
                429, f"more than {self.settings.rate:g} requests a second", headers={"retry-after": str(wait)}
            )
        return tenant

    async def _is_open(self) -> bool:
        """Return whether nobody has made a key; then only this machine is listened to."""
        now = time.monotonic()
        if self._open is None or self._open[1] < now:
            self._open = (not await asyncio.to_thread(self.store.has_keys), now + TRUSTED)
        return self._open[0]

    async def _tenant_of(self, key: str) -> str | None:
        now = time.monotonic()
        tenant, until = self._known.get(key, (None, 0.0))
        if until < now:
            tenant = await asyncio.to_thread(self.store.tenant_of, key)
            if len(self._known) >= REMEMBERED:  # somebody tries keys
                self._known.clear()
            self._known[key] = (tenant, now + TRUSTED)
        return tenant

    def _spend(self, key: str) -> int:
        """Take a token; return 0, or the whole seconds after which there is one."""
        rate = self.settings.rate
        if rate is None:
            return 0
        now = time.monotonic()
        bucket = self._buckets.setdefault(key, _Bucket(self.settings.burst, now))
        bucket.tokens = min(self.settings.burst, bucket.tokens + rate * (now - bucket.filled))
        bucket.filled = now
        if bucket.tokens < 1:
            return math.ceil((1 - bucket.tokens) / rate)
        bucket.tokens -= 1
        return 0


def _check_local(request: Request, cors: tuple[str, ...]) -> None:
    """Refuse who asks for another host, or from a page of one: no web page may use a visitor's browser to reach what is
    this machine's alone.

    Raises:
        HTTPException: 403.
    """
    origin = request.headers.get("origin")
    for address in (f"//{request.headers.get('host', '')}", origin):
        if address is None or address in cors:
            continue
        try:
            host = urlsplit(address).hostname
        except ValueError:
            host = None
        if host not in LOOPBACK:
            raise HTTPException(403, "without keys the service answers this machine alone: quickstudy serve keys add")
