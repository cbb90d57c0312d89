"""What happens when the store does not answer: retries, the breaker, a database that is killed."""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from services.common.resilience import Breaker, CircuitOpenError, UnavailableError, again
from services.pipeline_info.app import create_app
from services.pipeline_info.backends.jsonl import JsonlPipelineRepository
from services.pipeline_info.backends.postgres import PostgresPipelineRepository
from services.pipeline_info.models import PipelineInfo, RunFilter
from services.pipeline_info.repository import StoreUnavailableError
from services.pipeline_info.settings import Settings
from tests.services.pipeline_info.conftest import Postgres, client_of, free_port

RUN = {"start_utc": "2026-01-02T00:00:00Z"}
START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fail() -> None:
    raise UnavailableError("x")


def answer() -> str:
    return "done"


def call(breaker: Breaker, work: Callable[[], Any]) -> Any:
    with breaker.calling():
        return work()


def test_a_breaker_opens_waits_tries_once_and_closes():
    clock = Clock()
    breaker = Breaker("it", failures=2, seconds=10, clock=clock)
    for _ in range(2):
        assert not breaker.open
        with pytest.raises(UnavailableError, match="x"):
            call(breaker, fail)
    assert breaker.open
    clock.now = 9
    with pytest.raises(CircuitOpenError) as refused:
        call(breaker, answer)
    assert refused.value.retry_after == 1
    clock.now = 10

    def try_while_trying() -> None:
        with pytest.raises(CircuitOpenError):
            call(breaker, answer)
        fail()

    with pytest.raises(UnavailableError, match="x"):
        call(breaker, try_while_trying)
    with pytest.raises(CircuitOpenError):
        call(breaker, answer)
    clock.now = 20
    assert call(breaker, answer) == "done"
    assert not breaker.open
    assert call(breaker, answer) == "done"


def test_an_error_of_the_callers_does_not_open_a_breaker():
    breaker = Breaker("it", failures=2, seconds=10)

    def refuse() -> None:
        raise KeyError("x")

    for work in (fail, refuse, fail, refuse):
        with pytest.raises((UnavailableError, KeyError)):
            call(breaker, work)
    assert not breaker.open


def test_a_breaker_lets_calls_go_on_side_by_side():
    breaker, together = Breaker("it", failures=2, seconds=10), threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        waited = [pool.submit(call, breaker, lambda: together.wait(10)) for _ in range(4)]
        assert sorted(one.result() for one in waited) == [0, 1, 2, 3]


def test_only_what_may_pass_is_tried_again():
    tried, waits = [], []

    def work(error: Exception, succeed_at: int) -> str:
        tried.append(1)
        if len(tried) < succeed_at:
            raise error
        return "done"

    def run(error: Exception, succeed_at: int) -> str:
        tried.clear()
        return again(3, sleep=waits.append)(work, error, succeed_at)

    assert run(UnavailableError("x"), 3) == "done"
    assert len(waits) == 2
    assert 0.04 <= waits[0] <= 0.08 <= waits[1] <= 0.12
    with pytest.raises(UnavailableError):
        run(UnavailableError("x"), 4)
    assert len(tried) == 3
    with pytest.raises(UnavailableError):
        run(UnavailableError("x", transient=False), 2)
    assert len(tried) == 1
    with pytest.raises(KeyError):
        run(KeyError("x"), 2)
    assert len(tried) == 1


class Flaky(JsonlPipelineRepository):
    """Really stores, and then says a few times that it did not: an answer that was lost."""

    fail = 0

    def _insert(self, pending):
        landed = super()._insert(pending)
        if self.fail:
            self.fail -= 1
            raise StoreUnavailableError("the answer was lost")
        return landed

    def get_pipeline_info(self, wanted, **page):
        if self.fail:
            self.fail -= 1
            raise StoreUnavailableError("gone")
        return super().get_pipeline_info(wanted, **page)


def test_a_lost_answer_stores_no_run_twice(file: Path):
    store = Flaky(file)
    client = client_of(create_app(Settings(), store))
    store.fail = 2
    answer = client.post("/pipelines", json=RUN)
    assert answer.status_code == 201
    assert store.count_pipeline_info(RunFilter()) == 1


def test_a_store_that_keeps_failing_is_left_alone(file: Path):
    store = Flaky(file)
    client = client_of(create_app(Settings(breaker_failures=4, breaker_seconds=30), store))
    store.fail = 1000
    statuses = [client.get("/get_pipeline_info").status_code for _ in range(3)]
    assert statuses == [503, 503, 503]
    assert store.fail == 1000 - 4
    answer = client.get("/get_pipeline_info")
    assert 25 <= int(answer.headers["retry-after"]) <= 30
    assert client.get("/health").status_code == 200
    assert "store_breaker_open 1.0" in client.get("/metrics").text
    assert client.get("/download/pipeline_info?format=csv").status_code == 503
    assert client.get("/get_pipeline_info?all_data=true").status_code == 503


def test_summaries_are_kept_for_a_moment_and_fresh_after_an_insert(repository):
    client = client_of(create_app(Settings(summary_seconds=60), repository))
    client.post("/pipelines", json=RUN)
    assert client.get("/pipelines").json()["items"][0]["total_runs"] == 1
    repository.insert_pipeline_info(PipelineInfo.model_validate(RUN))
    assert client.get("/pipelines").json()["items"][0]["total_runs"] == 1
    client.post("/pipelines", json=RUN)
    assert client.get("/pipelines").json()["items"][0]["total_runs"] == 3


def test_a_service_starts_without_its_database_and_finds_it_later():
    with tempfile.TemporaryDirectory(prefix="pipeline-info-pg-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder))
        store = PostgresPipelineRepository(server.dsn("postgres"), timeout=1)
        client = client_of(create_app(Settings(breaker_seconds=0.1, retry_attempts=1), store))
        answer = client.post("/pipelines", json=RUN)
        assert answer.status_code == 503
        assert "PostgreSQL does not answer" in answer.json()["detail"]
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
        server.start()
        try:
            wait_for(lambda: client.get("/ready").status_code == 200)
            assert client.post("/pipelines", json=RUN).status_code == 201
            server.kill()
            assert client.get("/get_pipeline_info").status_code == 503
            server.start()
            wait_for(lambda: client.get("/get_pipeline_info").status_code == 200)
            assert client.get("/get_pipeline_info").json()["total"] == 1
        finally:
            store.close()
            server.stop()


def wait_for(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.1)


def serve(environment: dict[str, str], port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "services.pipeline_info.app:app"),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        cwd=Path(__file__).parents[3],
        env={"PATH": "/usr/bin:/bin", "PIPELINE_INFO_RATE_PER_SECOND": "0", **environment},
        stderr=subprocess.DEVNULL,
    )

    def lives() -> bool:
        assert process.poll() is None
        try:
            return httpx.get(f"http://127.0.0.1:{port}/ready", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(lives, 40)
    return process


def environment_of(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    if backend == "postgres":
        dsn = request.getfixturevalue("postgres").new_database()
        return {"PIPELINE_INFO_BACKEND": backend, "PIPELINE_INFO_DSN": dsn}
    file = tmp_path / f"runs.{backend}"
    return {"PIPELINE_INFO_BACKEND": backend, "PIPELINE_INFO_FILE": str(file)}


@pytest.mark.parametrize("backend", ["jsonl", "postgres", "duckdb"])
def test_no_acknowledged_run_is_lost_by_kill_9(backend: str, tmp_path: Path, request):
    """The service is killed in the middle of inserts, three times, and asked afterwards what it has."""
    environment, port = environment_of(backend, tmp_path, request), free_port()
    url = f"http://127.0.0.1:{port}"
    acknowledged: dict[str, str] = {}
    number = 0

    def post(worker: int, stop: threading.Event) -> None:
        nonlocal number
        with httpx.Client(base_url=url, timeout=5) as client:
            while not stop.is_set():
                number += 1
                mine = f"{worker}-{number}"
                start = (START + timedelta(seconds=number)).isoformat()
                body = {
                    "items": [
                        {
                            "run": {
                                "start_utc": start,
                                "rowcount": n,
                            },
                            "idempotency_key": f"{mine}-{n}",
                        }
                        for n in range(20)
                    ]
                }
                try:
                    answer = client.post("/pipelines/bulk", json=body)
                except httpx.HTTPError:
                    return
                if answer.status_code == 200:
                    for n, item in enumerate(answer.json()["items"]):
                        acknowledged[f"{mine}-{n}"] = item["id"]

    for _ in range(3):
        process = serve(environment, port)
        stop = threading.Event()
        threads = [threading.Thread(target=post, args=(worker, stop)) for worker in range(3)]
        for thread in threads:
            thread.start()
        before = len(acknowledged)
        wait_for(lambda at=before: len(acknowledged) > at + 200)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        stop.set()
        for thread in threads:
            thread.join(20)
    process = serve(environment, port)
    try:
        answer = httpx.get(f"{url}/download/pipeline_info?format=jsonl", timeout=60)
        stored = [orjson.loads(line)["id"] for line in answer.text.splitlines()]
        assert len(stored) == len(set(stored))
        assert set(acknowledged.values()) <= set(stored)
        summary = httpx.get(f"{url}/pipelines", timeout=60).json()["items"][0]
        assert summary["total_runs"] == len(stored)
    finally:
        process.terminate()
        assert process.wait(20) in {0, -signal.SIGTERM}
