"""The monitor against a real pipeline-info service and a real warehouse; Airflow's API is played."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import uvicorn
from airflow.sdk.exceptions import AirflowException

from services.pipeline_info.app import create_app
from services.pipeline_info.backends.jsonl import JsonlPipelineRepository
from services.pipeline_info.flow import lines_of
from services.pipeline_info.models import RunFilter
from services.pipeline_info.settings import Settings
from tallyhouse.settings import ROOT
from tallyhouse_airflow.operators import airflow_to_pipeline_info
from tallyhouse_airflow.operators.airflow_to_pipeline_info import AirflowToPipelineInfoOperator
from tests.proof.wire import HttpProxy, PostgresProxy, Trap
from tests.services.pipeline_info.conftest import Postgres, free_port

MIGRATIONS = Path(__file__).parents[2] / "sql" / "dwh" / "migrations"
CONTEXT: Any = {
    "dag": SimpleNamespace(params={}),
    "dag_run": SimpleNamespace(conf={}, dag_id="monitor_pipelines", run_id="manual__1"),
}
START = datetime(2026, 1, 1, tzinfo=UTC)


class Airflow:
    """The calls of Airflow's API that the monitor makes."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.tasks: list[dict[str, Any]] = []
        self.before_page: Callable[[], None] = lambda: None
        played = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, body: object) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer({"access_token": "t"})

            def do_GET(self) -> None:
                if self.headers["Authorization"] != "Bearer t":
                    self.send_error(401)
                    return
                query = parse_qs(urlsplit(self.path).query)
                if "/taskInstances" in self.path:
                    self.answer({"task_instances": played.tasks})
                    return
                played.before_page()
                since = query.get("end_date_gte", [""])[0]
                found = [run for run in played.runs if not since or run["end_date"] >= since]
                found.sort(key=lambda run: run["end_date"])
                offset, limit = int(query["offset"][0]), int(query["limit"][0])
                self.answer({"dag_runs": found[offset : offset + limit]})

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def finish(self, count: int) -> None:
        for _ in range(count):
            number = len(self.runs)
            at = START + timedelta(minutes=10 * number)
            self.runs.append(
                {
                    "dag_id": "techmarket_nightly",
                    "dag_run_id": f"scheduled__{number}",
                    "logical_date": at.isoformat(),
                    "start_date": (at + timedelta(seconds=1)).isoformat(),
                    "end_date": (at + timedelta(seconds=61)).isoformat(),
                    "state": "success",
                }
            )


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres.running("monitor") as server:
        yield server


@pytest.fixture
def warehouse(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection[Any]]:
    dsn = server.new_database()
    database = dsn.split("dbname=")[1]
    address = {"conn_type": "postgres", "host": "127.0.0.1", "port": server.port, "login": "postgres"}
    monkeypatch.setenv("AIRFLOW_CONN_PLAYED_DWH", json.dumps(address | {"password": "x", "schema": database}))
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name in (
            "0001_etl",
            "0005_position",
            "0006_promised_tables",
            "0007_failure",
            "0009_pipeline",
            "0010_run_target",
            "0013_ledger_keys",
        ):
            connection.execute((MIGRATIONS / f"{name}.sql").read_bytes())
        yield connection


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    airflow = Airflow()
    address = {"conn_type": "http", "host": "127.0.0.1", "port": airflow.server.server_port, "login": "a"}
    monkeypatch.setenv("AIRFLOW_CONN_PLAYED_AIRFLOW", json.dumps(address | {"password": "p"}))
    yield airflow
    airflow.server.shutdown()


class Service:
    """A pipeline-info that can be stopped and started."""

    def __init__(self, file: Path) -> None:
        self.store = JsonlPipelineRepository(file)
        self.port = free_port()
        self.server: uvicorn.Server | None = None

    def start(self) -> None:
        app = create_app(Settings(), self.store)
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="error", lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        if self.server is not None:
            self.server.should_exit = True
            self.thread.join(10)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service = Service(tmp_path / "runs.jsonl")
    monkeypatch.setenv(
        "AIRFLOW_CONN_PLAYED_INFO",
        json.dumps({"conn_type": "http", "host": "127.0.0.1", "port": service.port}),
    )
    yield service
    service.stop()


def monitor() -> dict[str, int]:
    # Connections of their own names: the stack's file of connections comes before the environment.
    return AirflowToPipelineInfoOperator(
        task_id="post_runs",
        pipeline_info_conn_id="played_info",
        airflow_conn_id="played_airflow",
        dwh_conn_id="played_dwh",
    ).execute(CONTEXT)


def test_every_run_is_posted_once_and_days_of_outage_are_caught_up(
    warehouse: psycopg.Connection[Any], airflow: Airflow, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow.finish(5)
    with pytest.raises(AirflowException, match="cannot connect to played_info"):
        monitor()
    airflow.finish(3 * 144)
    service.start()
    assert monitor() == {"posted": 437, "refused": 0}
    assert service.store.count_pipeline_info(RunFilter()) == 437
    airflow.finish(1)
    assert monitor() == {"posted": 1, "refused": 0}  # the newest are read again, and known
    assert service.store.count_pipeline_info(RunFilter()) == 438

    # Killed between the post and the move of the position.
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    airflow.finish(2)
    with monkeypatch.context() as patch:
        patch.setattr(airflow_to_pipeline_info, "_move", die)
        with pytest.raises(KeyboardInterrupt):
            monitor()
    monitor()
    assert service.store.count_pipeline_info(RunFilter()) == 440
    (summary,) = service.store.get_pipelines_summary()
    assert (summary.pipeline_name, summary.total_runs, summary.last_state) == (
        "techmarket_nightly",
        440,
        "success",
    )


def post_write(method: str, target: str, _: bytes) -> str | None:
    return f"pipeline-info {method} {urlsplit(target).path}" if method == "POST" else None


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    "write",
    [
        "pipeline-info POST /pipelines/bulk",
        "warehouse COMMIT etl.position",
        "warehouse COMMIT etl.refused_run",
    ],
)
def test_a_monitor_that_is_killed_at_a_write_posts_each_run_once(
    warehouse: psycopg.Connection[Any], airflow: Airflow, service: Service, write: str, before: bool
) -> None:
    """Its process gets SIGKILL, at a write as it is seen on the wire; see `tests/proof`."""
    airflow.finish(3)
    airflow.runs[1]["start_date"] = "2026-01-09T00:00:00+00:00"  # after its end: it is refused
    service.start()
    started: list[subprocess.Popen[bytes]] = []
    trap = Trap()
    trap.arm(lambda: os.kill(started[0].pid, signal.SIGKILL), (write, 1), before=before)
    environment = dict(os.environ)
    with (
        closing(HttpProxy("127.0.0.1", service.port, trap, post_write)) as info,
        closing(PostgresProxy("127.0.0.1", warehouse.info.port, trap)) as dwh,
    ):
        for name, proxy in (("PLAYED_INFO", info), ("PLAYED_DWH", dwh)):
            said = json.loads(environment[f"AIRFLOW_CONN_{name}"])
            environment[f"AIRFLOW_CONN_{name}"] = json.dumps(said | {"port": proxy.port})
        code = f"from {__name__} import monitor; monitor()"
        started.append(subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment))
        assert started[0].wait(60) == -signal.SIGKILL
    assert trap.sprung.is_set()
    monitor()
    assert service.store.count_pipeline_info(RunFilter()) == 2
    assert refused_runs(warehouse) == [("techmarket_nightly", "scheduled__1", 422)]
    airflow.finish(1)
    assert monitor()["posted"] == 1  # the refused one is read and refused once more


def test_a_run_that_is_cleared_meanwhile_hides_no_other(
    warehouse: psycopg.Connection[Any], airflow: Airflow, service: Service
) -> None:
    airflow.finish(250)
    for run in airflow.runs[90:215]:  # more than a page ended at one instant
        run["end_date"] = airflow.runs[215]["end_date"]
    cleared = airflow.runs[5]
    pages = 0

    def clear() -> None:
        nonlocal pages
        pages += 1
        if pages == 2:
            airflow.runs.remove(cleared)

    airflow.before_page = clear
    service.start()
    assert monitor() == {"posted": 250, "refused": 0}
    assert pages == 3
    airflow.runs.append(cleared | {"end_date": "2026-02-01T00:00:00+00:00"})  # and it ran again
    assert monitor() == {"posted": 1, "refused": 0}
    assert service.store.count_pipeline_info(RunFilter()) == 251


def test_a_run_brings_links_to_where_its_end_is_told(
    warehouse: psycopg.Connection[Any],
    airflow: Airflow,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow.example/a/")
    airflow.finish(1)
    ends = ("2026-01-01T00:00:10Z", "2026-01-01T00:00:20Z", "2026-01-01T00:00:30Z", None)
    states = ("success", "failed", "upstream_failed", None)
    names = ("open_run", "extract.orders", "check", "close_run")
    airflow.tasks = [
        {"task_id": name, "state": state, "end_date": end}
        for name, state, end in zip(names, states, ends, strict=True)
    ]
    service.start()
    assert monitor() == {"posted": 1, "refused": 0}
    (stored,) = service.store.get_pipeline_info(RunFilter(), limit=2)
    page = "dags/techmarket_nightly/runs/scheduled__0/tasks/extract.orders"
    assert stored.run().extra["links"] == {"log of extract.orders": f"http://airflow.example/a/{page}"}


def test_a_run_brings_its_ledger(
    warehouse: psycopg.Connection[Any], airflow: Airflow, service: Service
) -> None:
    airflow.finish(1)
    warehouse.execute(
        "INSERT INTO etl.run (run_id, pipeline, dag_id, dag_run_id, status) VALUES"
        " ('techmarket-1', 'techmarket', 'techmarket_nightly', 'scheduled__0', 'published')"
    )
    warehouse.execute(
        "INSERT INTO etl.ledger (run_id, pipeline, table_name, hop, measure, left_value, right_value, parts)"
        " VALUES ('techmarket-1', 'techmarket', 'orders.orders', 'source=raw', 'rows', 9, 9, NULL),"
        " ('techmarket-1', 'techmarket', 'orders.orders', 'raw=accepted', 'rows', 9, 9,"
        ' \'{"accepted": "8", "superseded": "1"}\'),'
        " ('techmarket-1', 'techmarket', 'mart_revenue_daily', 'model=mart', 'rows', 9, 9, NULL)"
    )
    service.start()
    assert monitor() == {"posted": 1, "refused": 0}
    (stored,) = service.store.get_pipeline_info(RunFilter(), limit=2)
    run = stored.run()
    assert (run.rowcount, run.pipeline_type, run.extra["dag_run_id"]) == (9, "etl", "scheduled__0")
    lines = lines_of(run.extra)
    assert [(line.hop, int(line.left), line.closed) for line in lines] == [
        ("source=raw", 9, True),
        ("raw=accepted", 9, True),
        ("model=mart", 9, True),
    ]
    assert lines[1].parts == {"accepted": 8, "superseded": 1}


def refused_runs(warehouse: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return warehouse.execute("SELECT dag_id, dag_run_id, status FROM etl.refused_run ORDER BY 2").fetchall()


def test_a_refused_run_is_set_aside_and_the_later_ones_are_posted(
    warehouse: psycopg.Connection[Any], airflow: Airflow, service: Service
) -> None:
    airflow.finish(4)
    airflow.runs[1]["start_date"] = "2026-01-09T00:00:00+00:00"  # after its end
    service.start()
    assert monitor() == {"posted": 3, "refused": 1}
    assert refused_runs(warehouse) == [("techmarket_nightly", "scheduled__1", 422)]
    (reason,) = warehouse.execute("SELECT reason FROM etl.refused_run").fetchone() or ()
    assert "elapsed_seconds" in reason
    (position,) = warehouse.execute("SELECT at FROM etl.position").fetchone() or ()
    assert position == datetime.fromisoformat(airflow.runs[3]["end_date"])
    airflow.finish(2)
    assert monitor() == {"posted": 2, "refused": 0}, "it is not tried for ever"
    # Once it is right and read again, nothing is set aside any more.
    airflow.runs[1]["start_date"] = airflow.runs[1]["logical_date"]
    warehouse.execute("DELETE FROM etl.position")
    assert monitor() == {"posted": 1, "refused": 0}
    assert refused_runs(warehouse) == []
    assert service.store.count_pipeline_info(RunFilter()) == 6


def test_ids_of_every_kind_that_airflow_permits_are_posted_once(
    warehouse: psycopg.Connection[Any], airflow: Airflow, service: Service
) -> None:
    airflow.finish(5)
    airflow.runs[0]["dag_run_id"] = "r" * 240
    airflow.runs[1] |= {"dag_run_id": "r" * 250, "dag_id": "d" * 250}
    airflow.runs[2]["dag_id"] = "млинці_щоночі"
    airflow.runs[3] |= {"dag_id": "é" * 250, "dag_run_id": "r\n"}
    service.start()
    assert monitor() == {"posted": 5, "refused": 0}
    assert monitor() == {"posted": 0, "refused": 0}
    stored = service.store.get_pipeline_info(RunFilter(), limit=9)
    assert {(one.run().pipeline_name, one.run().extra["dag_run_id"]) for one in stored} == {
        (run["dag_id"], run["dag_run_id"]) for run in airflow.runs
    }


class Refusing:
    """A service that answers every post of more than `most` runs, or of a certain run, with a status."""

    def __init__(self, status: int, bad: str) -> None:
        self.posts: list[int] = []
        played = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                items = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["items"]
                played.posts.append(len(items))
                refuses = any(item["run"]["extra"]["dag_run_id"] == bad for item in items)
                body = {
                    "items": [{"index": n, "result": "created", "status": 201} for n in range(len(items))]
                }
                self.send_response(status if refuses else 200)
                self.end_headers()
                self.wfile.write(json.dumps({"detail": "too large"} if refuses else body).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_a_batch_that_is_refused_whole_is_halved_down_to_the_run(
    warehouse: psycopg.Connection[Any], airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow.finish(40)
    service = Refusing(413, "scheduled__7")
    address = {"conn_type": "http", "host": "127.0.0.1", "port": service.server.server_port}
    monkeypatch.setenv("AIRFLOW_CONN_PLAYED_INFO", json.dumps(address))
    assert monitor() == {"posted": 39, "refused": 1}
    assert refused_runs(warehouse) == [("techmarket_nightly", "scheduled__7", 413)]
    assert len(service.posts) < 15
    service.server.shutdown()


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_what_is_not_about_a_run_sets_none_aside_and_the_position_stays(
    warehouse: psycopg.Connection[Any], airflow: Airflow, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    airflow.finish(3)
    service = Refusing(status, "scheduled__1")
    address = {"conn_type": "http", "host": "127.0.0.1", "port": service.server.server_port}
    monkeypatch.setenv("AIRFLOW_CONN_PLAYED_INFO", json.dumps(address))
    with pytest.raises(AirflowException, match=f"refused 3 runs with {status}"):
        monitor()
    assert refused_runs(warehouse) == []
    assert warehouse.execute("SELECT count(*) FROM etl.position").fetchone() == (0,)
    service.server.shutdown()


def test_a_failed_run_brings_why_it_failed(
    warehouse: psycopg.Connection[Any], airflow: Airflow, service: Service
) -> None:
    airflow.finish(1)
    failure = {
        "task": "check",
        "table": "orders.orders",
        "rule": "expect_column_values_to_be_in_set(status)",
        "count": 1,
        "sample": ["id 7"],
        "message": "orders.orders in run techmarket-1: failed",
        "remedy": "Fix the source and run again.",
    }
    warehouse.execute(
        "INSERT INTO etl.run (run_id, pipeline, dag_id, dag_run_id, status, failure) VALUES"
        " ('techmarket-1', 'techmarket', 'techmarket_nightly', 'scheduled__0', 'failed', %s)",
        (json.dumps(failure),),
    )
    service.start()
    monitor()
    (stored,) = service.store.get_pipeline_info(RunFilter(), limit=2)
    assert stored.run().extra["failure"] == failure
