"""The page at /docs, and what all pages are made of: files without a framework, which ask this service alone.

FastAPI's own /docs has a browser fetch its scripts from elsewhere. A package with Swagger's files is a third party too,
and would need a policy that lets inline scripts run.
"""

from importlib.resources import files

from fastapi import APIRouter, Response

from quickstudy.kinds.targets import TARGETS
from quickstudy.serving.http.refusals import found

ASSETS = {
    "page.css": "text/css",
    **dict.fromkeys(("page.js", "docs.js", "element.js", *(f"kind-{kind}.js" for kind in TARGETS)), "text/javascript"),
}
# Nothing from elsewhere, and nobody's page around it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"content-security-policy": POLICY, "referrer-policy": "no-referrer", "cache-control": "no-cache"}

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs() -> Response:
    """Show the routes, to be tried."""
    return page("docs")


@router.get("/page/{name}")
async def asset(name: str) -> Response:
    """Give a file that pages ask for."""
    return _sent(name, found(ASSETS.get(name), "there is no such page"))


def page(name: str) -> Response:
    """Return a page of `serving/page`."""
    return _sent(f"{name}.html", "text/html")


def _sent(file: str, media_type: str) -> Response:
    data = (files("quickstudy.serving") / "page" / file).read_bytes()
    return Response(data, media_type=media_type, headers=HEADERS)
