"""Airflow's own REST API, as a client sees it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

import requests
from airflow.providers.http.hooks.http import HttpHook

from tallyhouse_airflow.hooks.failures import find_connection, refused

PAGE = 100


class AirflowApiHook(HttpHook):
    """Reads DAG runs through `/api/v2`, with a token of the connection's account.

    :param http_conn_id: connection of the API server
    """

    def __init__(self, http_conn_id: str = "airflow_api", **kwargs: Any) -> None:
        super().__init__(method="GET", http_conn_id=http_conn_id, **kwargs)
        self._opened: tuple[requests.Session, str] | None = None

    def finished_runs(self, since: datetime | None, where: str) -> Iterator[dict[str, Any]]:
        """DAG runs that ended at or after an instant, oldest end first.

        Args:
            since: The instant; None for all.
            where: The task on whose behalf, for messages.

        Yields:
            Runs as the API describes them.

        Raises:
            TallyhouseError: The API does not answer, or refuses the account.
        """
        session, base = self._session(where)
        parameters: dict[str, Any] = {"state": ["success", "failed"], "order_by": "end_date", "limit": PAGE}
        after = since.isoformat() if since else None
        offset = 0
        seen: set[tuple[str, str]] = set()
        while True:
            if after is not None:
                parameters["end_date_gte"] = after
            runs = self._get(session, base, "/dags/~/dagRuns", where, **parameters, offset=offset)["dag_runs"]
            new = [run for run in runs if (run["dag_id"], run["dag_run_id"]) not in seen]
            seen.update((run["dag_id"], run["dag_run_id"]) for run in new)
            yield from new
            if len(runs) < PAGE:
                return
            # From the last end on, not by offset: a run that is cleared meanwhile would move the others
            # up, and one of them would be passed over. Only runs of one instant are told apart by it.
            last = runs[-1]["end_date"]
            offset = offset + len(runs) if last == after else 0
            after = last

    def told_by(self, dag_id: str, dag_run_id: str, where: str) -> dict[str, Any] | None:
        """The task whose log tells how a run ended: the first that failed, else the last to end.

        Raises:
            TallyhouseError: The API does not answer.
        """
        session, base = self._session(where)
        path = f"/dags/{quote(dag_id, safe='')}/dagRuns/{quote(dag_run_id, safe='')}/taskInstances"
        tasks = self._get(session, base, path, where, limit=PAGE)["task_instances"]
        ended = sorted((task for task in tasks if task["end_date"]), key=lambda task: task["end_date"])
        failed = [task for task in ended if task["state"] == "failed"]
        return failed[0] if failed else ended[-1] if ended else None

    def _get(
        self, session: requests.Session, base: str, path: str, where: str, **parameters: Any
    ) -> dict[str, Any]:
        try:
            answer = session.get(f"{base}/api/v2{path}", params=parameters, timeout=30)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise refused(self.http_conn_id, where, error) from error
        found: dict[str, Any] = answer.json()
        return found

    def _session(self, where: str) -> tuple[requests.Session, str]:
        if self._opened is not None:
            return self._opened
        conn = find_connection(self.http_conn_id, where)
        base = f"{conn.schema or 'http'}://{conn.host}:{conn.port}"
        session = requests.Session()
        try:
            answer = session.post(
                f"{base}/auth/token", json={"username": conn.login, "password": conn.password}, timeout=30
            )
            answer.raise_for_status()
        except requests.RequestException as error:
            raise refused(self.http_conn_id, where, error) from error
        session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        self._opened = session, base
        return self._opened
