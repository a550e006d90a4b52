"""What Prefect remembers of the flows' runs: what ran, why, how it ended and what waits.

Read from Prefect's server where ``PREFECT_API_URL`` is set, else from the database that Prefect keeps without one. Both
give rows under the names of Prefect's REST API; here they become values.
"""

import json
import os
import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

from quickstudy.errors import QuickstudyError
from quickstudy.runs.database import Database, path_of
from quickstudy.runs.server import Server
from quickstudy.system.environment import find_project

SUMMARY = "run"
"""The key of the artifact in which a run says what it did."""

WATCH = "watch"
"""The flow that looks for new data every half minute: a look that found nothing is no news."""

TRIGGER = "trigger:"
"""How the tag of a run begins that says what started it."""

STATES = {
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CRASHED": "crashed",
    "CANCELLED": "cancelled",
    "CANCELLING": "cancelled",
    "RUNNING": "running",
    "PENDING": "waiting",
    "SCHEDULED": "waiting",
    "PAUSED": "suspended",
}
"""Prefect's types of state → what a person is told. Suspended is a run that waits for a person."""

ONLINE = 3
"""A worker is offline after so many heartbeats were missed, as Prefect has it."""

HEARTBEAT_S = 30

NEAR = 200
"""Among the names of so many runs one that is like an unknown name is looked for."""

LINE = 200
"""Characters of an error in a list."""


class RunRecords(Protocol):
    """What Prefect has recorded of runs: `Database` or `Server`. A row of a run has the fields of Prefect's flow run,
    and the names of its flow, deployment and pool."""

    def recent(self, last: int, flow: str | None, types: Collection[str], quiet: str | None) -> list[dict[str, Any]]:
        """Return the latest runs that have left the schedule and are part of no other; of the flow ``quiet`` only those
        with a summary, failed or crashed."""

    def active(self, due: datetime) -> list[dict[str, Any]]:
        """Return the runs at work, starting, waiting to be tried again, or on the schedule for no later than ``due``,
        parts of others as well."""

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the runs of that name or identifier, the newest first."""

    def children(self, id: str) -> list[dict[str, Any]]:
        """Return the runs that a run has handed over, in order."""

    def parent(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return the run that has handed over this one."""

    def summaries(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return flow_run_id, description and data of the runs' summaries, the oldest first."""

    def tasks(self, id: str) -> list[dict[str, Any]]:
        """Return the task runs of a run in order: name, state_type, start_time, end_time."""

    def workers(self) -> dict[str, list[dict[str, Any]]]:
        """Return pool → its workers: last_heartbeat_time, heartbeat_interval_seconds."""

    def planned(self, after: datetime) -> dict[str, Any]:
        """Return FLOW/DEPLOYMENT → when its schedule starts it next, None where nothing is planned."""

    def page(self, id: str) -> str | None:
        """Return the address of a run's page, where a server is known."""


@dataclass(frozen=True)
class Step:
    """One step of a run: how it ended ("ran", "up to date", "failed" …), seconds, and a word on it."""

    step: str
    outcome: str
    seconds: float | None
    note: str


@dataclass(frozen=True)
class FlowRun:
    """One flow run.

    Attributes:
        name: as Prefect called it.
        deployment: its name where one started it.
        state: one of the values of `STATES`.
        started_by: "schedule", the word of its trigger tag, "automation", "another run" or "by hand".
        when: it started, or should have; UTC.
        seconds: it took, or has taken so far; None where it has not started, or waits for a person.
        what: one sentence: what was done, or why it failed.
        error: the whole message of a run that failed, crashed or was cancelled.
        page: its address in Prefect, where a server is known.
        parent: the name of the run that has handed it over.
        children: the runs that it has handed over, in its details alone.
    """

    id: str
    name: str
    flow: str
    deployment: str | None
    pool: str | None
    state: str
    started_by: str
    when: datetime | None
    ended: datetime | None
    seconds: float | None
    what: str
    error: str
    steps: tuple[Step, ...]
    parameters: dict[str, Any]
    tags: tuple[str, ...]
    page: str | None
    parent: str | None = None
    children: tuple["FlowRun", ...] = ()


@dataclass(frozen=True)
class WorkPool:
    """What is at work and what waits in a pool, and how many of its workers are there."""

    name: str
    running: int
    waiting: int
    online: int


@dataclass(frozen=True)
class Overview:
    """The latest runs, the pools, and deployment → when its schedule starts it next (None: nothing is planned)."""

    runs: tuple[FlowRun, ...]
    pools: tuple[WorkPool, ...]
    planned: dict[str, datetime | None]


def open_records() -> RunRecords:
    """Return Prefect's server where the environment names one, else the database of this project.

    Raises:
        QuickstudyError: neither, as outside of a project.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        return Server(url, os.environ.get("PREFECT_API_AUTH_STRING"), SUMMARY)
    for name in ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL"):
        if url := os.environ.get(name):
            return Database(path_of(url, name), SUMMARY)
    home = os.environ.get("PREFECT_HOME")
    return Database((Path(home) if home else find_project() / ".prefect") / "prefect.db", SUMMARY)


def overview(
    records: RunRecords,
    last: int = 20,
    flow: str | None = None,
    state: str | None = None,
    everything: bool = False,
    now: datetime | None = None,
) -> Overview:
    """Return the latest runs that are part of no other, the newest first, and what comes next.

    Args:
        last: how many.
        flow: only its runs.
        state: only runs in it, one of the values of `STATES`.
        everything: looks of `WATCH` that found nothing as well.
        now: the time, by default the clock's.
    """
    now = now or datetime.now(UTC)
    types = [type for type, told in STATES.items() if state in (None, told)]
    quiet = None if everything else WATCH
    active = records.active(now)
    rows = records.recent(last, flow, [type for type in types if type != "SCHEDULED"], quiet)
    if "SCHEDULED" in types:
        rows += [
            row
            for row in active
            if row["state_type"] == "SCHEDULED"
            and row["parent_task_run_id"] is None
            and flow in (None, row["flow"])
            and row["flow"] != quiet
        ]
    once = {row["id"]: row for row in reversed(rows)}.values()  # a run may have started between two questions
    rows = sorted(once, key=lambda row: (_moment(_start(row)) or now, row["id"]), reverse=True)[:last]
    return Overview(
        _runs(records, rows, now),
        _pools(active, records.workers(), now),
        {name: _moment(when) for name, when in records.planned(now).items()},
    )


def details(records: RunRecords, name: str, now: datetime | None = None) -> tuple[FlowRun, ...]:
    """Return the runs of that name (or the one of that identifier), the newest first: Prefect's names may repeat. The
    first has its children, its parent and, where it left no summary, its task runs as steps.

    Raises:
        QuickstudyError: there is none.
    """
    now = now or datetime.now(UTC)
    rows = records.named(name)
    if not rows:
        known = [
            row["name"] for row in records.recent(NEAR, None, [type for type in STATES if type != "SCHEDULED"], WATCH)
        ]
        near = [text for text in known if name in text] or get_close_matches(name, known)
        raise QuickstudyError(
            "no run is called so",
            where=name,
            fix=f"Near: {', '.join(dict.fromkeys(near[:3]))}" if near else "See quickstudy runs",
        )
    newest, *others = _runs(records, rows, now)
    parent = records.parent(rows[0])
    steps = newest.steps or tuple(_step_of_task(row, now) for row in records.tasks(newest.id))
    children = _runs(records, records.children(newest.id), now)
    newest = replace(newest, steps=steps, children=children, parent=parent["name"] if parent else None)
    return newest, *others


def _runs(records: RunRecords, rows: Sequence[dict[str, Any]], now: datetime) -> tuple[FlowRun, ...]:
    # A run that was suspended or retried may leave several: the last one counts.
    said = {row["flow_run_id"]: row for row in records.summaries([row["id"] for row in rows])} if rows else {}
    return tuple(_run(row, said.get(row["id"]), records.page(row["id"]), now) for row in rows)


def _run(row: dict[str, Any], summary: dict[str, Any] | None, page: str | None, now: datetime) -> FlowRun:
    state = STATES[row["state_type"]] if row["state_type"] else "waiting"
    started, ended = _moment(row["start_time"]), _moment(row["end_time"])
    message = _message(row["message"]) if state in ("failed", "crashed", "cancelled") else ""
    if state in ("running", "waiting", "suspended"):  # a sentence there is by now is that of an attempt before
        what = "waits for a person's word" if state == "suspended" else ""
    else:
        what = (summary and summary["description"]) or textwrap.shorten(message, LINE, placeholder=" …")
    until = ended or (now if state == "running" else None)
    return FlowRun(
        id=row["id"],
        name=row["name"],
        flow=row["flow"],
        deployment=row["deployment"],
        pool=row["pool"],
        state=state,
        started_by=_started_by(row),
        when=_moment(_start(row)),
        ended=ended,
        seconds=(until - started).total_seconds() if started and until else None,
        what=" ".join(what.split()),
        error=message,
        steps=_steps(summary["data"]) if summary else (),
        parameters=row["parameters"],
        tags=tuple(row["tags"]),
        page=page,
    )


def _started_by(row: dict[str, Any]) -> str:
    triggers = [tag.removeprefix(TRIGGER) for tag in row["tags"] if tag.startswith(TRIGGER)]
    if triggers:
        return ", ".join(triggers)
    if row["parent_task_run_id"]:
        return "another run"
    by = "SCHEDULE" if row["auto_scheduled"] else str((row["created_by"] or {}).get("type"))
    return {"SCHEDULE": "schedule", "AUTOMATION": "automation"}.get(by, "by hand")


def _steps(data: Any) -> tuple[Step, ...]:
    """Return the rows of a table artifact, which Prefect keeps as JSON in a text."""
    try:
        rows = json.loads(data) if isinstance(data, str) else data
        return tuple(
            Step(str(row["step"]), str(row["outcome"]), row.get("seconds"), str(row.get("note") or "")) for row in rows
        )
    except (ValueError, TypeError, KeyError, AttributeError):  # another tool's artifact has this key
        return ()


def _step_of_task(row: dict[str, Any], now: datetime) -> Step:
    started, ended = _moment(row["start_time"]), _moment(row["end_time"])
    state = STATES.get(row["state_type"] or "", "waiting")
    until = ended or (now if state == "running" else None)
    return Step(row["name"], state, (until - started).total_seconds() if started and until else None, "")


def _message(text: str | None) -> str:
    """Return a message without Prefect's words and the exception's name where it is a mistake of the user's."""
    text = (text or "").removeprefix("Flow run encountered an exception: ")
    return text.removeprefix("QuickstudyError: ").strip()


def _pools(
    active: Iterable[dict[str, Any]], workers: dict[str, list[dict[str, Any]]], now: datetime
) -> tuple[WorkPool, ...]:
    states = [(row["pool"], STATES[row["state_type"]]) for row in active]

    def count(pool: str, state: str) -> int:
        return sum(found == (pool, state) for found in states)

    return tuple(
        WorkPool(name, count(name, "running"), count(name, "waiting"), sum(_online(worker, now) for worker in those))
        for name, those in sorted(workers.items())
    )


def _online(worker: dict[str, Any], now: datetime) -> bool:
    seen = _moment(worker["last_heartbeat_time"])
    silence = timedelta(seconds=ONLINE * (worker["heartbeat_interval_seconds"] or HEARTBEAT_S))
    return seen is not None and now - seen < silence


def _start(row: dict[str, Any]) -> str | None:
    return row["start_time"] or row["expected_start_time"]


def _moment(text: str | None) -> datetime | None:
    """Prefect's database keeps UTC without saying so."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
