"""Requests to Prefect's REST API without Prefect, whose import takes two seconds."""

import base64
import json
import urllib.error
import urllib.request
import uuid
from http.client import HTTPException
from typing import Any

CLIENT = str(uuid.uuid4())
"""This process, to a server that protects against forged requests (https://docs.prefect.io/v3/api-ref/python)."""

_tokens: dict[str, str] = {}
"""Address → the token that its server has given this process against forged requests."""


def request(url: str, path: str, body: Any = None, auth: str | None = None, timeout: float = 10) -> Any:
    """Return what the API answers: to a GET, or to a POST where there is a body.

    Args:
        url: of the API, as in ``PREFECT_API_URL``.
        path: from there, with a slash first.
        auth: user:password.
        timeout: in seconds.

    Raises:
        urllib.error.HTTPError: it refuses.
        OSError, HTTPException: it does not answer.
        ValueError: the answer is no JSON, or the address none.
    """
    url = url.rstrip("/")
    try:
        return _send(url, path, body, auth, timeout)
    except urllib.error.HTTPError as error:
        if error.code != 403 or body is None:
            raise
        refusal = error
    try:
        _tokens[url] = _send(url, f"/csrf-token?client={CLIENT}", None, auth, timeout)["token"]
    except (OSError, HTTPException, ValueError, KeyError, TypeError):  # it has no such tokens
        raise refusal from None
    return _send(url, path, body, auth, timeout)


def _send(url: str, path: str, body: Any, auth: str | None, timeout: float) -> Any:
    headers = {"Content-Type": "application/json"}
    if auth:
        headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
    if body is not None and url in _tokens:
        headers |= {"Prefect-Csrf-Token": _tokens[url], "Prefect-Csrf-Client": CLIENT}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}{path}", data, headers), timeout=timeout) as answer:
        return json.load(answer)
