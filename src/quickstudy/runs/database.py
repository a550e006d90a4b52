"""Prefect's own database, read without Prefect, for who asks what has run while no server runs.

Its tables are private. Each public way needs Prefect's server, and `quickstudy runs` is asked to take two seconds. The
last 20 of 10,000 runs cost so much processor time (benchmarks/runs.py), and would create or migrate the database, which
who only looks shall not do:

    this file                                               0.3 s
    Prefect's client with its server in the same process    3.9 s
    prefect flow-run ls, which starts a server              6.4 s

So the tables are named here and nowhere else, and only read. They are those of the version that pyproject.toml pins;
the tests build them by Prefect's own migrations, and compare each answer with that of Prefect's server.
"""

import contextlib
import json
import sqlite3
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quickstudy.errors import QuickstudyError

RUNS = """
SELECT r.id, r.name, f.name AS flow, d.name AS deployment, p.name AS pool, r.state_type, s.message, r.start_time,
       r.end_time, r.expected_start_time, r.auto_scheduled, r.created_by, r.tags, r.parameters, r.parent_task_run_id
FROM flow_run r
JOIN flow f ON f.id = r.flow_id
LEFT JOIN flow_run_state s ON s.id = r.state_id
LEFT JOIN deployment d ON d.id = r.deployment_id
LEFT JOIN work_queue q ON q.id = r.work_queue_id
LEFT JOIN work_pool p ON p.id = q.work_pool_id
"""

QUEUED = "AwaitingConcurrencySlot"
"""What Prefect calls a run that is due while the runs before it take all places; it looks again every half minute."""

JSON = ("created_by", "tags", "parameters", "data")
"""Columns that hold JSON."""


def path_of(url: str, variable: str) -> Path:
    """Return the file of a database: sqlite+aiosqlite:////srv/prefect.db → /srv/prefect.db.

    Raises:
        QuickstudyError: it is a database that only Prefect's server reads.
    """
    scheme, _, path = url.partition(":///")
    if not scheme.startswith("sqlite") or not path:
        raise QuickstudyError(
            "only Prefect's server reads this database", where=variable, fix="Set PREFECT_API_URL to the server's"
        )
    return Path(path.partition("?")[0])


class Database:
    """The rows of one database file, read-only; none where it does not exist yet.

    Args:
        path: of Prefect's SQLite file.
        summary: the key of the runs' summaries.
    """

    def __init__(self, path: Path, summary: str):
        self._path, self._summary = path, summary

    def recent(self, last: int, flow: str | None, types: Collection[str], quiet: str | None) -> list[dict[str, Any]]:
        # The latest are chosen before the other tables are joined to them. The plus keeps SQLite from looking up each
        # run among all summaries instead of among its own artifacts, which took half a minute with 10,000 runs.
        chosen = f"""
            SELECT r.id FROM flow_run r JOIN flow f ON f.id = r.flow_id
            WHERE r.parent_task_run_id IS NULL AND r.state_type IN ({_marks(types)})
              AND (:flow IS NULL OR f.name = :flow)
              AND (:quiet IS NULL OR f.name != :quiet OR r.state_type IN ('FAILED', 'CRASHED')
                   OR EXISTS (SELECT 1 FROM artifact a WHERE a.flow_run_id = r.id AND +a.key = :key))
            ORDER BY coalesce(r.start_time, r.expected_start_time) DESC LIMIT :last"""
        values = {"flow": flow, "quiet": quiet, "key": self._summary, "last": last, **_named(types)}
        return self._rows(f"{RUNS} WHERE r.id IN ({chosen})", values)

    def active(self, due: datetime) -> list[dict[str, Any]]:
        at_work = "r.state_type IN ('RUNNING', 'PENDING', 'CANCELLING')"
        waits = """r.state_type = 'SCHEDULED' AND
            (r.next_scheduled_start_time <= :due OR r.start_time IS NOT NULL OR r.state_name = :queued)"""
        return self._rows(f"{RUNS} WHERE {at_work} OR {waits}", {"due": _text(due), "queued": QUEUED})

    def named(self, name: str) -> list[dict[str, Any]]:
        newest = "ORDER BY coalesce(r.start_time, r.expected_start_time) DESC"
        return self._rows(f"{RUNS} WHERE r.name = :name OR r.id = :name {newest}", {"name": name})

    def children(self, id: str) -> list[dict[str, Any]]:
        tasks = "SELECT t.id FROM task_run t WHERE t.flow_run_id = :id"
        return self._rows(f"{RUNS} WHERE r.parent_task_run_id IN ({tasks}) ORDER BY r.expected_start_time", {"id": id})

    def parent(self, row: dict[str, Any]) -> dict[str, Any] | None:
        task = "SELECT t.flow_run_id FROM task_run t WHERE t.id = :task"
        return next(iter(self._rows(f"{RUNS} WHERE r.id IN ({task})", {"task": row["parent_task_run_id"]})), None)

    def summaries(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        sql = f"""SELECT flow_run_id, description, data FROM artifact
            WHERE key = :key AND flow_run_id IN ({_marks(ids)}) ORDER BY created"""
        return self._rows(sql, {"key": self._summary, **_named(ids)})

    def tasks(self, id: str) -> list[dict[str, Any]]:
        sql = """SELECT name, state_type, start_time, end_time FROM task_run
            WHERE flow_run_id = :id ORDER BY expected_start_time"""
        return self._rows(sql, {"id": id})

    def workers(self) -> dict[str, list[dict[str, Any]]]:
        pools: dict[str, list[dict[str, Any]]] = {}
        sql = """SELECT p.name AS pool, w.last_heartbeat_time, w.heartbeat_interval_seconds
            FROM work_pool p LEFT JOIN worker w ON w.work_pool_id = p.id"""
        for row in self._rows(sql, {}):
            those = pools.setdefault(row["pool"], [])
            if row["last_heartbeat_time"]:
                those.append(row)
        return pools

    def planned(self, after: datetime) -> dict[str, Any]:
        sql = """SELECT f.name || '/' || d.name AS name, min(r.next_scheduled_start_time) AS at
            FROM deployment d JOIN flow f ON f.id = d.flow_id
            LEFT JOIN flow_run r ON r.deployment_id = d.id AND r.state_type = 'SCHEDULED'
                AND r.next_scheduled_start_time > :after AND r.state_name != :queued
            WHERE EXISTS (SELECT 1 FROM deployment_schedule s WHERE s.deployment_id = d.id AND s.active)
            GROUP BY d.id ORDER BY name"""
        return {row["name"]: row["at"] for row in self._rows(sql, {"after": _text(after), "queued": QUEUED})}

    def page(self, id: str) -> str | None:
        return None

    def _rows(self, sql: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        try:
            try:
                rows = self._fetch("ro", sql, values)
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):  # a process was killed while it created the database
                    return []
                if "readonly" not in str(error):
                    raise
                rows = self._fetch("rw", sql, values)  # one was killed while it wrote: only who may write can undo that
        except sqlite3.Error as error:
            raise QuickstudyError(
                f"Prefect's database cannot be read ({error})",
                where=self._path,
                fix="Let Prefect's server read it: quickstudy up",
            ) from None
        for row in rows:
            row.update({name: json.loads(row[name]) for name in JSON if row.get(name)})
        return rows

    def _fetch(self, mode: str, sql: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        uri = f"{self._path.resolve().as_uri()}?mode={mode}"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, values)]


def _text(moment: datetime) -> str:
    """As Prefect writes it into SQLite."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _marks(values: Collection[str]) -> str:
    return ", ".join(f":v{index}" for index in range(len(values)))


def _named(values: Collection[str]) -> dict[str, str]:
    return {f"v{index}": value for index, value in enumerate(values)}
