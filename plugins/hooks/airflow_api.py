"""Airflow's own REST API, as a client sees it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import requests
from airflow.providers.http.hooks.http import HttpHook

from hooks.failures import find_connection, refused

PAGE = 100


class AirflowApiHook(HttpHook):
    """Reads DAG runs through `/api/v2`, with a token of the connection's account.

    :param http_conn_id: connection of the API server
    """

    def __init__(self, http_conn_id: str = "airflow_api", **kwargs: Any) -> None:
        super().__init__(method="GET", http_conn_id=http_conn_id, **kwargs)

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
        if since is not None:
            parameters["end_date_gte"] = since.isoformat()
        offset = 0
        while True:
            try:
                answer = session.get(
                    f"{base}/api/v2/dags/~/dagRuns", params=parameters | {"offset": offset}, timeout=30
                )
                answer.raise_for_status()
            except requests.RequestException as error:
                raise refused(self.http_conn_id, where, error) from error
            runs = answer.json()["dag_runs"]
            yield from runs
            offset += len(runs)
            if len(runs) < PAGE:
                return

    def _session(self, where: str) -> tuple[requests.Session, str]:
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
        return session, base
