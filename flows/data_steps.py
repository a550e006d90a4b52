"""Steps of a flow that take in, version and bring the data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from flows.process import BACKOFF, RETRIES, a_retry_can_help, call
from flows.telling import listener, step
from quickstudy.data.dataset import dataset_names
from quickstudy.errors import QuickstudyError
from quickstudy.starter import STARTER as STARTER_DATA
from quickstudy.system.atomic import write_bytes
from quickstudy.versions import dvc

STARTER = ("quickstudy", "data", "build")


LAST_DATA = Path(".cache") / "data_version"
"""The version that data/ had when a run last looked, to tell a change of the data from a change of data.dvc by git."""


# What a step makes are files, of which DVC and MLflow know whether they are current: Prefect caches nothing.
@task(
    name="data",
    task_run_name="data",
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_delay_seconds=BACKOFF,
    retry_condition_fn=a_retry_can_help,
)
def take_data(root: Path, version: str) -> Any:
    """Make data/ a version that is known, whatever was there before: for a workspace, in which nobody works."""
    with step(root, "data") as done:
        same = version == _last_data(root)
        dvc.set_data(root, version)
        bring_data(root, version, listener("data"))
        _remember_data(root, version)
        done.update(outcome="up to date" if same else "ran", note=f"version {version[:8]}", version=version)
    return version


@task(
    name="data",
    task_run_name="data",
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_delay_seconds=BACKOFF,
    retry_condition_fn=a_retry_can_help,
)
def version_data(root: Path) -> Any:
    """Make sure that data/ is there and has a version; say whether that is the committed one.

    Data that is missing comes from DVC's cache, else from the DVC remote where one is configured, else it is the
    starter data, built here. A clone that never versioned its data also gets what is missing of the starter data, so
    that a build which was interrupted is completed.

    Returns:
        the DVC hash of data/.
    """
    with step(root, "data") as done:
        listen = listener("data")
        wanted = dvc.data_hash(root)
        last = _last_data(root)
        there = (root / "data").is_dir() and any((root / "data").iterdir())
        built = False
        if not there and wanted and dvc.in_cache(root, wanted):
            dvc.checkout_data(root)
        elif not there and wanted and dvc.has_remote(root):
            dvc.pull_data(root, listen)
        elif not there or (last is None and not (wanted and dvc.in_cache(root, wanted))):
            call(root, "data", STARTER, listen)
            built = True
        said = (root / "data.dvc").read_bytes() if wanted else b""
        version = dvc.add_data(root)
        if wanted not in (None, version) and version == last and _follow(root, said, listen):
            version = str(wanted)
        _remember_data(root, version)
        imported = [name for name in dataset_names(root / "data") if name not in STARTER_DATA]
        note = _about(version, wanted, dvc.committed_data_hash(root), built, imported)
        changed = version != wanted
        done.update(outcome="ran" if changed or built else "up to date", note=note, version=version)
        get_run_logger().info(note)
    create_markdown_artifact(f"Data version `{version}`: {note}", key="data", description="The version of data/")
    return version if changed or built else Completed(name="Cached", message=note, data=version)


def bring_data(root: Path, version: str, listen: Callable[[str], None]) -> None:
    """Make data/ what data.dvc names, whatever was there before.

    Raises:
        QuickstudyError: it is not to be had here.
        versions.RemoteFailed: the DVC remote does not give it.
    """
    if dvc.in_cache(root, version):
        dvc.checkout_data(root, force=True)
    elif dvc.has_remote(root):
        dvc.pull_data(root, listen)
    else:
        raise QuickstudyError(
            f"data version {version[:8]} is not in DVC's cache here, and no DVC remote is configured",
            where=root,
            fix="Configure one here and where the data was made (dvc remote add -d), and dvc push it there",
        )


def _remember_data(root: Path, version: str) -> None:
    write_bytes(root / LAST_DATA, version.encode())


def _last_data(root: Path) -> str | None:
    try:
        return (root / LAST_DATA).read_text().strip() or None
    except FileNotFoundError:
        return None


def _follow(root: Path, said: bytes, listen: Callable[[str], None]) -> bool:
    """Bring data/ to what data.dvc said before `dvc add` overwrote it: git has changed data.dvc, nobody the data."""
    kept = (root / "data.dvc").read_bytes()
    write_bytes(root / "data.dvc", said)
    wanted = dvc.data_hash(root)
    assert wanted is not None
    try:
        if dvc.in_cache(root, wanted):
            dvc.checkout_data(root)
            return True
        if dvc.has_remote(root):
            dvc.pull_data(root, listen)
            return True
    except BaseException:
        write_bytes(root / "data.dvc", said)
        raise
    write_bytes(root / "data.dvc", kept)
    listen(f"data.dvc names version {wanted[:8]}, which is neither in DVC's cache nor in a remote")
    return False


def _about(version: str, wanted: str | None, committed: str | None, built: bool, imported: list[str]) -> str:
    if version == committed:
        return f"version {version[:8]}, the committed one"
    if committed is None:
        return f"version {version[:8]}, not committed yet"
    beside = f" (beside the starter data: {', '.join(imported)})" if imported else ""
    if built and wanted == committed and not imported:
        return (
            f"version {version[:8]} is new: on this platform the starter data has other bytes than in the committed "
            f"version {committed[:8]} (or that one also holds other data)"
        )
    return f"version {version[:8]} is new{beside}; the committed one is {committed[:8]}"
