"""The pages at / and /docs: files without a framework, which ask this service alone.

FastAPI's own /docs has a browser fetch its scripts from elsewhere. A package with Swagger's files is a third party too,
and would need a policy that lets inline scripts run.
"""

from importlib.resources import files

from fastapi import Response
from starlette.exceptions import HTTPException

ASSETS = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "docs.js": "text/javascript",
    "element.js": "text/javascript",
}
# Nothing from elsewhere, and nobody's page around it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"content-security-policy": POLICY, "referrer-policy": "no-referrer", "cache-control": "no-cache"}


def page(name: str) -> Response:
    return _sent(f"{name}.html", "text/html")


def asset(name: str) -> Response:
    """What a page is made of.

    Raises:
        HTTPException: 404, there is no such file.
    """
    if name not in ASSETS:
        raise HTTPException(404, "there is no such page")
    return _sent(name, ASSETS[name])


def _sent(file: str, kind: str) -> Response:
    data = (files("quickstudy.serving") / "page" / file).read_bytes()
    return Response(data, media_type=kind, headers=HEADERS)
