"""Who calls, and how often they may.

Open is what a service is that began on this machine alone, with a database for which nobody ever made a key; closed is
every other, and one that is closed stays so. While it is open only who sits at this machine is answered: the user whose
process it is, directly, without a proxy between.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request

from quickstudy.config import Serve
from quickstudy.serving.engine.store import LOCAL, Store, key_digest
from quickstudy.serving.http.peers import Peer

TRUSTED = 5.0
"""Seconds that a key is taken for good before the database is asked again; a removed one works so long."""
REMEMBERED = 10_000
"""Addresses that tried keys, and keys that were good, at most."""
MINUTE = 60.0
FORWARDED = frozenset({"forwarded", "via", "x-real-ip", "true-client-ip", "cf-connecting-ip", "client-ip"})
"""Headers that a proxy adds, beside those that begin with `x-forwarded-`."""
ALONE = "without keys the service answers this machine alone, and the user who started it: quickstudy serve keys add"


@dataclass
class _Bucket:
    tokens: float
    """requests that may come at once"""
    filled: float
    """when, by the monotonic clock"""

    def spend(self, rate: float, most: float) -> float:
        """Take a token; return 0, or the seconds after which there is one."""
        now = time.monotonic()
        self.tokens = min(most, self.tokens + rate * (now - self.filled))
        self.filled = now
        if self.tokens < 1:
            return (1 - self.tokens) / rate
        self.tokens -= 1
        return 0.0


class Access:
    """Knows the keys of a service. Each replica counts for itself how often a key calls.

    Args:
        settings: requests a second and at once, wrong keys a minute, and the pages elsewhere that may call.
        open: whether it may be open at all: it listens on this machine alone.
    """

    def __init__(self, settings: Serve, store: Store, open: bool = True):
        self.settings, self.store = settings, store
        self._open, self._asked = open, -TRUSTED
        self._known: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """by its digest whose each key is that was good, and until when this is taken for true"""
        self._buckets: dict[str, _Bucket] = {}
        self._tries: OrderedDict[str, _Bucket] = OrderedDict()

    async def tenant(self, request: Request) -> str:
        """Return whose tasks a request may see.

        Raises:
            HTTPException: 401 without a key that is known, 403 from elsewhere while the service is open, 429 too often.
            Unavailable: the database does not answer.
        """
        if await self._is_open():
            _check_local(request, self.settings.cors)
            tenant, bucket = LOCAL, LOCAL
        else:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            key = key.strip()
            if scheme.lower() != "bearer" or not 0 < len(key) < 200:
                raise _unknown()
            bucket = key_digest(key)
            tenant = await self._tenant_of(key, bucket, request)
        request.state.tenant = tenant
        if self.settings.rate is not None:
            own = self._buckets.setdefault(bucket, _Bucket(self.settings.burst, time.monotonic()))
            if wait := own.spend(self.settings.rate, self.settings.burst):
                raise _too_often(f"more than {self.settings.rate:g} requests a second", wait)
        return tenant

    async def _is_open(self) -> bool:
        """Return whether nobody ever made a key. Once there was one this is asked no more."""
        now = time.monotonic()
        if self._open and self._asked + TRUSTED < now:
            had = await asyncio.to_thread(self.store.had_keys)
            self._asked = now
            self._open = self._open and not had
        return self._open

    async def _tenant_of(self, key: str, digest: str, request: Request) -> str:
        """Return whose a key is.

        Who tries keys is told to wait before the database is asked; a key that was good already is not held up by what
        others try from the same address.
        """
        tenant, until = self._known.get(digest, (None, 0.0))
        if tenant is not None and time.monotonic() < until:
            return tenant
        tries = None
        if tenant is None:
            tries = self._tries_of(address_of(request, self.settings.proxies))
            if wait := tries.spend(self.settings.tries / MINUTE, self.settings.tries):
                raise _too_often(f"more than {self.settings.tries} unknown keys a minute from this address", wait)
        tenant = await asyncio.to_thread(self.store.tenant_of, key)
        if tenant is None:
            self._known.pop(digest, None)
            raise _unknown()
        if tries is not None:
            tries.tokens += 1
        self._known[digest] = (tenant, time.monotonic() + TRUSTED)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return tenant

    def _tries_of(self, address: str) -> _Bucket:
        """Return what an address may still try. The one that tried the longest ago is forgotten first."""
        found = self._tries.setdefault(address, _Bucket(self.settings.tries, time.monotonic()))
        self._tries.move_to_end(address)
        if len(self._tries) > REMEMBERED:
            self._tries.popitem(last=False)
        return found


@lru_cache(64)
def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: localhost, 127.0.0.0/8, ::1, and ::ffff:127.0.0.1, which is the same."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def network_of(host: str) -> str:
    """Return what counts as one caller: an address, of IPv6 its /64, which is what one subscriber is given."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_loopback:
        return str(address)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


def address_of(request: Request, proxies: tuple[str, ...]) -> str:
    """Return where a request comes from: the peer or, where that is a proxy of ours, who stands before it."""
    ours = {network_of(one) for one in proxies}
    peer = network_of(request.client.host) if request.client is not None else "unix"
    for said in reversed(request.headers.get("x-forwarded-for", "").split(",")):
        if peer not in ours or not said.strip():
            break
        peer = network_of(said.strip()[:50])
    return peer


def _check_local(request: Request, cors: tuple[str, ...]) -> None:
    """Refuse whoever is not this machine's own user: who calls from elsewhere, through a proxy, under another host's
    name, from a page of one, or as another user. No web page may use a visitor's browser to reach what is this
    machine's alone.

    Raises:
        HTTPException: 403.
    """
    origin = request.headers.get("origin")
    peer = request.client.host if request.client is not None else ""  # a UNIX socket: there is a proxy at it
    caller: Peer | None = request.scope.get("state", {}).get("peer")  # as protocol.py has it
    if (
        not is_loopback(peer)
        or not _is_local(f"//{request.headers.get('host', '')}")
        or (origin is not None and origin not in cors and not _is_local(origin))
        or (origin is None and request.headers.get("sec-fetch-site") == "cross-site")
        or _is_forwarded(request.scope, request.headers)
        or (caller is not None and not caller.is_own_user)
    ):
        raise HTTPException(403, ALONE)


def _is_local(address: str) -> bool:
    try:
        return is_loopback(urlsplit(address).hostname or "")
    except ValueError:
        return False


def _is_forwarded(scope: Mapping[str, object], headers: Headers) -> bool:
    """Return whether a proxy passes a request on. nginx, where nothing is said, speaks HTTP/1.0 and adds no header."""
    if scope.get("http_version") == "1.0":
        return True
    return any(name in FORWARDED or name.startswith("x-forwarded-") for name in headers)


def _unknown() -> HTTPException:
    return HTTPException(
        401, "say a key that is known: Authorization: Bearer KEY", headers={"www-authenticate": "Bearer"}
    )


def _too_often(line: str, wait: float) -> HTTPException:
    return HTTPException(429, line, headers={"retry-after": str(math.ceil(wait))})
