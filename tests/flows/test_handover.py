"""Handing the training over to a pool: what happens while no worker of it is online. The rest is in tests/deployed."""

import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from flows import handover
from quickstudy.errors import QuickstudyError


class Pool:
    """Answers for Prefect's client: the workers of a pool, one look after the other; the last answer stays."""

    def __init__(self, *looks: list[tuple[str, float | None]]) -> None:
        self.looks = list(looks)
        self.asked = 0

    def read_workers_for_work_pool(self, name: str) -> list[Any]:
        self.asked += 1
        look = self.looks[min(self.asked, len(self.looks)) - 1]
        now = datetime.now(UTC)
        return [
            SimpleNamespace(status=status, last_heartbeat_time=None if age is None else now - timedelta(seconds=age))
            for status, age in look
        ]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(handover, "get_run_logger", lambda: logging.getLogger("handover"))


def test_a_worker_is_online(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool([("OFFLINE", 9000.0), ("ONLINE", 1.0)])
    handover._await_worker(pool, "gpu", "meta_train")  # type: ignore[arg-type]
    assert pool.asked == 1 and caplog.messages == []


def test_a_worker_that_was_there_a_moment_ago_is_told_once_and_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pool = Pool([("OFFLINE", 40.0)], [("OFFLINE", 42.0)], [("OFFLINE", 44.0)], [("OFFLINE", 46.0), ("ONLINE", 0.5)])
    handover._await_worker(pool, "gpu", "meta_train")  # type: ignore[arg-type]
    assert pool.asked == 4
    (line,) = caplog.messages
    assert line.startswith("no worker of the pool gpu is online; waits until ") and "quickstudy worker gpu" in line


def test_one_that_does_not_come_back_is_not_waited_for_any_longer() -> None:
    limit = handover.COMES_BACK.total_seconds()
    pool = Pool([("OFFLINE", limit - 1)], [("OFFLINE", limit + 1)])
    with pytest.raises(QuickstudyError, match="no worker of the pool gpu is online") as told:
        handover._await_worker(pool, "gpu", "meta_train")  # type: ignore[arg-type]
    assert pool.asked == 2 and "quickstudy worker gpu" in (told.value.fix or "")


@pytest.mark.parametrize("workers", [[], [("OFFLINE", None)], [("OFFLINE", 86400.0)]])
def test_a_pool_that_nobody_serves_is_refused_at_once(workers: list[tuple[str, float | None]]) -> None:
    pool = Pool(workers)
    with pytest.raises(QuickstudyError, match="no worker of the pool gpu is online"):
        handover._await_worker(pool, "gpu", "meta_train")  # type: ignore[arg-type]
    assert pool.asked == 1
