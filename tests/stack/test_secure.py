"""Nothing listens beyond this machine, when idle and during a run, and no run writes a secret down."""

import ipaddress
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from scripts.stack.context import Stack
from scripts.stack.dag_runs import DagRuns, StackAirflow, run_dags
from scripts.stack.services import services
from tallyhouse.settings import Settings
from tests.stack.sockets import Listening, decoded, listening_sockets


@dataclass(frozen=True)
class Watched:
    """A nightly run, and the sockets that listened while it ran."""

    runs: DagRuns
    sockets: frozenset[Listening]


@pytest.fixture(scope="module")
def watched(settings: Settings) -> Watched:
    seen: set[Listening] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.3):
            seen.update(listening_sockets(settings))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        runs = run_dags(StackAirflow(Stack(settings)), ["pancake_nightly"])
    finally:
        over.set()
        watcher.join()
    assert runs.succeeded, runs.states
    return Watched(runs, frozenset(seen))


def test_addresses_of_proc_are_read_right() -> None:
    assert decoded("0100007F") == ipaddress.ip_address("127.0.0.1")
    assert decoded("00000000000000000000000001000000") == ipaddress.ip_address("::1")
    mapped = Listening(decoded("0000000000000000FFFF00000100007F"), 1, "java")
    assert mapped.is_local
    assert not Listening(decoded("00000000"), 1, "").is_local


@pytest.mark.integration
def test_every_service_listens_on_loopback_only(settings: Settings) -> None:
    found = listening_sockets(settings)
    assert [one for one in found if not one.is_local] == []
    wanted = {port for service in services(Stack(settings)) for port in service.ports.values()}
    assert wanted <= {one.port for one in found}


@pytest.mark.integration
def test_a_run_opens_nothing_beyond_loopback(watched: Watched) -> None:
    assert any("java" in one.command for one in watched.sockets), "no JVM was seen: the run was not watched"
    assert [one for one in watched.sockets if not one.is_local] == []


@pytest.fixture(scope="module")
def passwords() -> dict[str, str]:
    found = {
        name: value
        for name, value in os.environ.items()
        if name.endswith(("_PASSWORD", "_SECRET", "_SECRET_KEY", "_FERNET_KEY")) and value
    }
    assert {"MINIO_ROOT_PASSWORD", "ETL_READER_PASSWORD", "DWH_PASSWORD"} <= set(found)
    users = {value for name, value in os.environ.items() if name.endswith("_USER")}
    if same := users & set(found.values()):
        pytest.skip(f"{', '.join(same)} is a user's name as well and cannot be looked for; `make test` can")
    return found


@pytest.mark.integration
def test_no_log_holds_a_secret(watched: Watched, passwords: dict[str, str]) -> None:
    folder = Path(os.environ["TALLYHOUSE_LOCAL"]) / "log"
    logs = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    dag_run_id = watched.runs.dag_run_ids["pancake_nightly"]
    for task in ("extract.pancake", "transform", "publish.warehouse", "publish.clickhouse"):
        assert any(f"run_id={dag_run_id}/task_id={task}/" in str(path) for path in logs), task
    found = [
        f"{path}: {name}"
        for path, text in logs.items()
        for name, value in passwords.items()
        if value.encode() in text
    ]
    assert not found


@pytest.mark.integration
def test_airflow_keeps_no_secret(watched: Watched, passwords: dict[str, str]) -> None:
    """Not in XCom, nor in rendered fields, nor in any other table."""
    found = []
    with psycopg.connect(
        host=os.environ["POSTGRES_HOST"],
        port=os.environ["POSTGRES_PORT"],
        dbname=os.environ["AIRFLOW_DB"],
        user=os.environ["AIRFLOW_DB_USER"],
        password=os.environ["AIRFLOW_DB_PASSWORD"],
    ) as airflow:
        dag_run_id = watched.runs.dag_run_ids["pancake_nightly"]
        for kept in ("xcom", "rendered_task_instance_fields"):
            rows = airflow.execute(f"SELECT count(*) FROM {kept} WHERE run_id = %s", (dag_run_id,)).fetchone()
            assert rows != (0,), kept
        tables = airflow.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            query = f'SELECT count(*) FROM "{table}" AS t WHERE strpos(t::text, %s) > 0'
            found += [
                f"{table}: {name}"
                for name, value in passwords.items()
                if airflow.execute(query, (value,)).fetchone() != (0,)
            ]
    assert not found
