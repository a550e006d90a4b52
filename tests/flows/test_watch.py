"""What flows/watch.py starts, and what not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

from flows import process, watch
from quickstudy import registry
from quickstudy.config import load_settings

VERSIONS = iter(f"{number:012x}{0:020x}.dir" for number in range(1, 100))


@pytest.fixture
def retrainings(prefect: None) -> Callable[[], list[Any]]:
    """A deployment retrain/retrain on the test's server; gives its runs."""
    with get_client(sync_client=True) as client:
        deployment: UUID = client.create_deployment(client.create_flow_from_name("retrain"), "retrain")
    before = {run.id for run in _runs(deployment)}
    return lambda: [run for run in _runs(deployment) if run.id not in before]


def _runs(deployment: UUID) -> list[Any]:
    of_it = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    with get_client(sync_client=True) as client:
        return list(client.read_flow_runs(deployment_filter=of_it))


@pytest.mark.parametrize(
    ("policy", "champion", "drift", "starts"),
    [
        ("changed", 1, None, True),
        ("never", 1, None, False),
        ("drift", None, None, True),  # the first model waits for no drift
        ("drift", 1, 0, False),
        ("drift", 1, 3, True),
    ],
)
def test_the_policy_says_what_new_data_starts(
    policy: str,
    champion: int | None,
    drift: int | None,
    starts: bool,
    project: Path,
    retrainings: Callable[[], list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["watch"]["retrain"] = policy
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    asked: list[Any] = []

    def call(root: Path, name: str, command: Any, listen: Any, fine: Any = (0,)) -> int:
        asked.append(name)
        assert drift in fine
        return drift

    monkeypatch.setattr(process, "call", call)
    monkeypatch.setattr(registry, "aliases", lambda _: {"champion": champion} if champion else {})
    version = next(VERSIONS)
    got = flow(watch.start, name="start")(project, load_settings(project / "params.yaml"), version)
    assert asked == (["drift"] if drift is not None else [])
    assert got == (version if starts else None)
    runs = retrainings()
    assert len(runs) == starts
    with get_client(sync_client=True) as client:
        assert watch.started_with(client, version) is starts  # so that the next look does not start it again
        assert not watch.started_with(client, "f" * 32 + ".dir")
    if starts:
        assert runs[0].parameters == {"data": version} and "trigger:data" in runs[0].tags
