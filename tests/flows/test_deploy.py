"""What a Prefect server is told by flows/deploy.py."""

from pathlib import Path

import pytest
import yaml

from flows import deploy
from quickstudy.config import load_settings
from quickstudy.errors import QuickstudyError


def test_schedules_come_from_the_settings(with_flows: Path) -> None:
    def wanted(schedule: str | None, second: str = "wait") -> dict[str, object]:
        values = yaml.safe_load((with_flows / "params.yaml").read_text())
        values["runs"] |= {"schedule": schedule, "timezone": "Europe/Berlin", "second": second}
        (with_flows / "params.yaml").write_text(yaml.safe_dump(values))
        said = deploy._with_schedules(with_flows / "prefect.yaml", load_settings(with_flows / "params.yaml"))
        return next(found for found in said["deployments"] if found["name"] == "retrain")

    retrain = wanted("30 4 * * 1")
    assert retrain["schedules"] == [{"cron": "30 4 * * 1", "timezone": "Europe/Berlin"}]
    assert wanted(None, "skip")["schedules"] == []
    assert retrain["concurrency_limit"]["collision_strategy"] == "ENQUEUE"  # type: ignore[index]
    assert wanted(None, "skip")["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"  # type: ignore[index]
    with pytest.raises(QuickstudyError, match=r"runs.schedule = 'every night' is not what cron understands"):
        wanted("every night")
    (with_flows / "prefect.yaml").write_text("deployments: [retrain]\n")
    with pytest.raises(QuickstudyError, match=r"prefect.yaml: cannot be read"):
        wanted(None)
