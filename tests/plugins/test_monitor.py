"""The monitor on the running stack: a finished run is posted once, and not lost while the service is down."""

import json
import os
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
import requests
from airflow.sdk.exceptions import AirflowException

from tallyhouse.settings import Settings
from tallyhouse_airflow.operators.airflow_to_pipeline_info import AirflowToPipelineInfoOperator

pytestmark = pytest.mark.integration

CONTEXT: Any = {
    "dag": SimpleNamespace(dag_id="test", params={}),
    "dag_run": SimpleNamespace(conf={}, dag_id="test", run_id="manual__test"),
}


@pytest.fixture
def finished_run(settings: Settings) -> Iterator[str]:
    """The id of a DAG run that has just finished; the scheduler starts no other one beside the test."""
    login = {"username": os.environ["AIRFLOW_ADMIN_USER"], "password": os.environ["AIRFLOW_ADMIN_PASSWORD"]}
    token = requests.post(f"{settings.airflow_url}/auth/token", json=login, timeout=30).json()["access_token"]
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"
    dag = f"{settings.airflow_url}/api/v2/dags/monitor_pipelines"
    session.patch(dag, json={"is_paused": False}, timeout=30).raise_for_status()
    started = session.post(f"{dag}/dagRuns", json={"logical_date": None}, timeout=30)
    started.raise_for_status()
    run_id = started.json()["dag_run_id"]
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        state = session.get(f"{dag}/dagRuns/{requests.utils.quote(run_id, safe='')}", timeout=30).json()[
            "state"
        ]
        if state in ("success", "failed"):
            assert state == "success"
            break
        time.sleep(1)
    else:
        raise AssertionError(f"{run_id} did not finish")
    session.patch(dag, json={"is_paused": True}, timeout=30).raise_for_status()
    yield run_id
    session.patch(dag, json={"is_paused": False}, timeout=30).raise_for_status()


def position(settings: Settings) -> Any:
    with psycopg.connect(
        host=settings.postgres_host,
        port=settings.postgres_port,
        dbname=settings.dwh_db,
        user=settings.dwh_user,
        password=settings.dwh_password,
    ) as connection:
        return connection.execute("SELECT at FROM etl.position WHERE name = 'monitor_pipelines'").fetchone()


def records(settings: Settings, dag_run_id: str) -> list[dict[str, Any]]:
    answer = requests.get(
        f"{settings.pipeline_info_url}/get_pipeline_info",
        params={"pipeline_name": "monitor_pipelines", "limit": 10000},
        timeout=30,
    )
    answer.raise_for_status()
    return [record for record in answer.json()["items"] if record["extra"].get("dag_run_id") == dag_run_id]


def test_each_run_is_posted_once_though_the_service_was_down(
    settings: Settings, finished_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = position(settings)
    down = {"conn_type": "http", "host": "127.0.0.1", "port": 9, "schema": "http"}
    monkeypatch.setenv("AIRFLOW_CONN_INFO_DOWN", json.dumps(down))
    with pytest.raises(AirflowException, match="monitor_pipelines: cannot connect to info_down"):
        AirflowToPipelineInfoOperator(task_id="m", pipeline_info_conn_id="info_down").execute(CONTEXT)
    assert position(settings) == before

    operator = AirflowToPipelineInfoOperator(task_id="m")
    operator.execute(CONTEXT)
    assert len(records(settings, finished_run)) == 1
    after = position(settings)
    assert before is None or after > before
    operator.execute(CONTEXT)
    assert len(records(settings, finished_run)) == 1
    assert position(settings) >= after
