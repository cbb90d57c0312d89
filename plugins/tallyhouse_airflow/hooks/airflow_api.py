"""Airflow's own REST API, as a client sees it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

import requests
from airflow.providers.http.hooks.http import HttpHook

from tallyhouse.airflow_api import AirflowApi
from tallyhouse_airflow.hooks.failures import find_connection, refused

PAGE = 100


class AirflowApiHook(HttpHook):
    """Reads DAG runs through `/api/v2`, with a token of the connection's account.

    :param http_conn_id: connection of the API server
    """

    def __init__(self, http_conn_id: str = "airflow_api", **kwargs: Any) -> None:
        super().__init__(method="GET", http_conn_id=http_conn_id, **kwargs)
        self._api: AirflowApi | None = None

    def finished_runs(self, since: datetime | None) -> Iterator[dict[str, Any]]:
        """DAG runs that ended at or after an instant, oldest end first.

        Args:
            since: The instant; None for all.

        Yields:
            Runs as the API describes them.

        Raises:
            TallyhouseError: The API does not answer, or refuses the account.
        """
        parameters: dict[str, Any] = {"state": ["success", "failed"], "order_by": "end_date", "limit": PAGE}
        after = since.isoformat() if since else None
        offset = 0
        seen: set[tuple[str, str]] = set()
        while True:
            if after is not None:
                parameters["end_date_gte"] = after
            runs = self._ask("dags/~/dagRuns", **parameters, offset=offset)["dag_runs"]
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

    def told_by(self, dag_id: str, dag_run_id: str) -> dict[str, Any] | None:
        """The task whose log tells how a run ended: the first that failed, else the last to end.

        Raises:
            TallyhouseError: The API does not answer.
        """
        path = f"dags/{quote(dag_id, safe='')}/dagRuns/{quote(dag_run_id, safe='')}/taskInstances"
        tasks = self._ask(path, limit=PAGE)["task_instances"]
        ended = sorted((task for task in tasks if task["end_date"]), key=lambda task: task["end_date"])
        failed = [task for task in ended if task["state"] == "failed"]
        return failed[0] if failed else ended[-1] if ended else None

    def _ask(self, path: str, **parameters: Any) -> dict[str, Any]:
        if self._api is None:
            conn = find_connection(self.http_conn_id)
            url = f"{conn.schema or 'http'}://{conn.host}:{conn.port}"
            self._api = AirflowApi(url, conn.login or "", conn.password or "")
        try:
            found: dict[str, Any] = self._api.ask("GET", path, params=parameters)
        except requests.RequestException as error:
            raise refused(self.http_conn_id, error) from error
        return found
