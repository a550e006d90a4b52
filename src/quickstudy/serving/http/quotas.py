"""What tenants may fill: bytes of a task, and of all their tasks."""

from starlette.exceptions import HTTPException

from quickstudy.config import Serve
from quickstudy.serving.engine.store import Fits, Room

MEGABYTE = 1_000_000


def quotas(settings: Serve) -> Fits:
    """Return what refuses a change after which there would be too much, with 413 for a task, 507 for a tenant."""

    def fits(room: Room) -> None:
        if room.task > settings.task * MEGABYTE:
            raise HTTPException(413, f"the task would have more than the {settings.task} MB allowed (serve.task)")
        if room.tenant > settings.tenant * MEGABYTE:
            what = f"all your tasks together would have more than the {settings.tenant} MB allowed (serve.tenant)"
            raise HTTPException(507, f"{what}: delete some")

    return fits
