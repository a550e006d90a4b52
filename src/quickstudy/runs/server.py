"""Prefect's server, by its REST API (https://docs.prefect.io/v3/api-ref/rest-api)."""

import urllib.error
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cached_property
from http.client import HTTPException
from typing import Any
from uuid import UUID

from quickstudy.errors import QuickstudyError
from quickstudy.runs import api
from quickstudy.runs.database import QUEUED

TIMEOUT_S = 10

PAGE = 200
"""The server gives no more rows at once."""

FIXES = {
    401: "Set PREFECT_API_AUTH_STRING to user:password",
    403: "Set PREFECT_API_AUTH_STRING to user:password",
    404: "PREFECT_API_URL ends in /api",
    405: "PREFECT_API_URL ends in /api",
}

AT_WORK = ["RUNNING", "PENDING", "CANCELLING"]


class Server:
    """The rows that a server gives; for one answer, since names of flows and deployments are read once.

    Args:
        url: of its API, as in ``PREFECT_API_URL``.
        auth: user:password, as in ``PREFECT_API_AUTH_STRING``.
        summary: the key of the runs' summaries.
    """

    def __init__(self, url: str, auth: str | None, summary: str):
        self._url, self._auth, self._summary = url.rstrip("/"), auth, summary

    def recent(self, last: int, flow: str | None, types: Collection[str], quiet: str | None) -> list[dict[str, Any]]:
        alone = {"parent_task_run_id": {"is_null_": True}}
        noisy = [id for id, name in self._flows.items() if name == quiet]
        flows = {"name": {"any_": [flow]}} if flow else {"id": {"not_any_": noisy}} if noisy else None
        rows: list[dict[str, Any]] = []
        if flow is None or flow != quiet:
            rows = self._runs(alone | _in(types), last, flows=flows)
        if noisy and flow in (None, quiet):
            # Two questions instead of thousands of looks: which failed, and which left a summary.
            of_it = {"id": {"any_": noisy}}
            if failed := [type for type in types if type in ("FAILED", "CRASHED")]:
                rows += self._runs(alone | _in(failed), last, flows=of_it)
            if others := [type for type in types if type not in ("FAILED", "CRASHED")]:
                found = self._all(
                    "artifacts/filter",
                    last,
                    sort="CREATED_DESC",
                    artifacts={"key": {"any_": [self._summary]}},
                    flows=of_it,
                    flow_runs=alone | _in(others),
                )
                ids = list(dict.fromkeys(row["flow_run_id"] for row in found))
                rows += self._runs({"id": {"any_": ids}}, len(ids)) if ids else []
        return rows

    def active(self, due: datetime) -> list[dict[str, Any]]:
        either = {"operator": "or_", **_in(AT_WORK), "next_scheduled_start_time": {"before_": due.isoformat()}}
        again = {**_in(["SCHEDULED"]), "start_time": {"is_null_": False}}
        queued = {"state": {"name": {"any_": [QUEUED]}}}
        rows = {row["id"]: row for which in (either, again, queued) for row in self._runs(which, None)}
        return [row for row in rows.values() if row["state_type"] in (*AT_WORK, "SCHEDULED")]

    def named(self, name: str) -> list[dict[str, Any]]:
        try:
            which = {"operator": "or_", "name": {"any_": [name]}, "id": {"any_": [str(UUID(name))]}}
        except ValueError:
            which = {"name": {"any_": [name]}}
        return self._runs(which, None)

    def children(self, id: str) -> list[dict[str, Any]]:
        return self._runs({"parent_flow_run_id": {"any_": [id]}}, None, sort="EXPECTED_START_TIME_ASC")

    def parent(self, row: dict[str, Any]) -> dict[str, Any] | None:
        task = row["parent_task_run_id"]
        return next(iter(self._runs(None, 1, task_runs={"id": {"any_": [task]}}) if task else ()), None)

    def summaries(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        of_them = {"key": {"any_": [self._summary]}, "flow_run_id": {"any_": list(ids)}}
        return self._all("artifacts/filter", None, sort="CREATED_DESC", artifacts=of_them)[::-1]

    def tasks(self, id: str) -> list[dict[str, Any]]:
        of_it = {"id": {"any_": [id]}}
        return self._all("task_runs/filter", None, sort="EXPECTED_START_TIME_ASC", flow_runs=of_it)

    def workers(self) -> dict[str, list[dict[str, Any]]]:
        names = [row["name"] for row in self._all("work_pools/filter", None)]
        return {name: self._all(f"work_pools/{name}/workers/filter", None) for name in names}

    def planned(self, after: datetime) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for row in self._deployments.values():
            if any(schedule["active"] for schedule in row["schedules"]):
                then = {
                    "deployment_id": {"any_": [row["id"]]},
                    "state": {"type": {"any_": ["SCHEDULED"]}, "name": {"not_any_": [QUEUED]}},
                    "next_scheduled_start_time": {"after_": after.isoformat()},
                }
                first = self._all("flow_runs/filter", 1, sort="NEXT_SCHEDULED_START_TIME_ASC", flow_runs=then)
                at = first[0]["next_scheduled_start_time"] if first else None
                found[f"{self._flows[row['flow_id']]}/{row['name']}"] = at
        return dict(sorted(found.items()))

    def page(self, id: str) -> str | None:
        return f"{self._url.removesuffix('/api')}/runs/flow-run/{id}"

    @cached_property
    def _flows(self) -> dict[str, str]:
        return {row["id"]: row["name"] for row in self._all("flows/filter", None)}

    @cached_property
    def _deployments(self) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in self._all("deployments/filter", None)}

    def _runs(
        self, which: dict[str, Any] | None, last: int | None, sort: str = "START_TIME_DESC", **more: Any
    ) -> list[dict[str, Any]]:
        rows = self._all("flow_runs/filter", last, sort=sort, flow_runs=which, **more)
        for row in rows:
            row["flow"] = self._flows.get(row["flow_id"], "")
            row["deployment"] = self._deployments.get(row["deployment_id"], {}).get("name")
            row["pool"] = row["work_pool_name"]
            row["message"] = (row["state"] or {}).get("message")
        return rows

    def _all(self, route: str, last: int | None, **body: Any) -> list[dict[str, Any]]:
        """Return the first ``last`` rows, or all there are, page by page."""
        rows: list[dict[str, Any]] = []
        asked = {name: value for name, value in body.items() if value is not None}
        while last is None or len(rows) < last:
            limit = PAGE if last is None else min(PAGE, last - len(rows))
            rows += (page := self._post(route, {**asked, "limit": limit, "offset": len(rows)}))
            if len(page) < limit:
                break
        return rows

    def _post(self, route: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            found = api.request(self._url, f"/{route}", body, self._auth, TIMEOUT_S)
            if isinstance(found, list):
                return found
            raise ValueError(route)
        except urllib.error.HTTPError as error:
            what = f"Prefect's server refuses (HTTP {error.code})"
            fix = FIXES.get(error.code)
        except (OSError, HTTPException):
            what = "Prefect's server does not answer"
            fix = "Start it, or unset PREFECT_API_URL to see what ran without one"
        except ValueError:
            what = "this is no server of Prefect's"
            fix = "PREFECT_API_URL is like http://127.0.0.1:4200/api"
        raise QuickstudyError(what, where=self._url, fix=fix)


def _in(types: Collection[str]) -> dict[str, Any]:
    return {"state": {"type": {"any_": list(types)}}}
