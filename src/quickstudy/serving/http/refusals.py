"""Every refusal is one line of JSON."""

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from quickstudy.errors import QuickstudyError
from quickstudy.serving.engine.allowance import Overdrawn
from quickstudy.serving.engine.line import Busy
from quickstudy.serving.engine.store import Unavailable

LONGEST = 500
"""Characters of a line."""
AWAY = "the database does not answer; ask again later"

log = logging.getLogger("quickstudy.serving")

_Thing = TypeVar("_Thing")


def found(thing: _Thing | None, otherwise: str = "there is no such task") -> _Thing:
    """Return a thing that is there.

    Raises:
        HTTPException: 404 for what is not there, and for what is somebody else's.
    """
    if thing is None:
        raise HTTPException(404, otherwise)
    return thing


def refusal(status: int, line: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer to a request that is refused."""
    return JSONResponse({"error": " ".join(line.split())[:LONGEST]}, status, headers)


async def _mistaken(request: Request, error: QuickstudyError) -> Response:
    return refusal(422, str(error))


async def _unavailable(request: Request, error: Unavailable) -> Response:
    log.warning(str(error))  # which names the database, and is not for callers
    return refusal(503, AWAY, {"retry-after": "5"})


async def _busy(request: Request, error: Busy) -> Response:
    return refusal(503, str(error), {"retry-after": "1"})


async def _overdrawn(request: Request, error: Overdrawn) -> Response:
    return refusal(429, str(error), {"retry-after": str(error.seconds), "connection": "close"})


async def _refused(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not read
    return refusal(error.status_code, str(error.detail), headers)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    if first["loc"][0] == "path":  # an id that cannot be is one that is not there
        return refusal(404, "there is no such task or example")
    return refusal(422, f"{first['loc'][-1]}: {first['msg'].lower()}")


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    Unavailable: _unavailable,
    Busy: _busy,
    Overdrawn: _overdrawn,
    QuickstudyError: _mistaken,
    HTTPException: _refused,
    RequestValidationError: _invalid,
}
"""What FastAPI does with each exception that a route may raise."""
