"""Airflow's REST API, for whoever asks it from outside: the monitor's hook, and the stack's commands."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry


class AirflowApi:
    """Calls below `/api/v2`, with a token of an account.

    Args:
        url: The API server, without a path.
        user: The account.
        password: Its password.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url, self._login = url, {"username": user, "password": password}
        self._session = requests.Session()
        # A busy machine may let a question wait; whoever reads goes on all the same.
        patient = Retry(total=5, backoff_factor=1, allowed_methods=["GET"], status_forcelist=[502, 503, 504])
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=patient))

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """One call; logs in when the token is missing or has run out.

        Args:
            method: Such as `GET`.
            path: Such as `dags/events_curated`.
            more: Of `requests.request`: `params`, `json`.

        Returns:
            What the API answers.

        Raises:
            requests.RequestException: Airflow does not answer, or refuses; then with what it said.
        """
        answer = self._call(method, path, **more)
        if answer.status_code == 401:
            token = self._session.post(f"{self.url}/auth/token", json=self._login, timeout=30)
            token.raise_for_status()
            self._session.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
            answer = self._call(method, path, **more)
        if not answer.ok:
            raise requests.HTTPError(f"{answer.status_code}: {_detail(answer)}", response=answer)
        return answer.json()

    def _call(self, method: str, path: str, **more: Any) -> requests.Response:
        return self._session.request(method, f"{self.url}/api/v2/{path}", timeout=30, **more)


def _detail(answer: requests.Response) -> str:
    """What Airflow says of a request that it refuses."""
    try:
        return str(answer.json()["detail"])[:600]
    except (ValueError, KeyError, TypeError):
        return answer.text.strip()[:600]
