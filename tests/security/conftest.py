"""A service on a small model is as in the tests of its routes."""

from tests.unit.conftest import png, wav
from tests.unit.serving.conftest import (
    alias,
    client,
    database,
    folders,
    make_engine,
    open_client,
    settings,
    store,
    tickets,
)

__all__ = [
    "alias",
    "client",
    "database",
    "folders",
    "make_engine",
    "open_client",
    "png",
    "settings",
    "store",
    "tickets",
    "wav",
]
