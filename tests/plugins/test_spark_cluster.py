"""A Spark job on a standalone cluster: nothing changes but the connection."""

import json
import os
import secrets
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from tallyhouse.lake import Lake
from tallyhouse.settings import Settings
from tallyhouse_airflow.operators.postgres_to_lake import PostgresToLakeOperator
from tallyhouse_airflow.operators.spark_job import SparkJobOperator

pytestmark = pytest.mark.integration

RUN = f"pancake-20260102T000000-{secrets.token_hex(2)}"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def spark_class(name: str, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [f"{os.environ['SPARK_HOME']}/bin/spark-class", f"org.apache.spark.deploy.{name}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def cluster(tmp_path: Any) -> Iterator[tuple[int, str]]:
    """A master and one worker: the master's port, and the address of its page."""
    port, page, work = free_port(), free_port(), free_port()
    url = f"http://127.0.0.1:{page}/json/"
    running = [
        spark_class("master.Master", "--host", "127.0.0.1", "--port", f"{port}", "--webui-port", f"{page}")
    ]
    try:
        running.append(
            spark_class(
                "worker.Worker", "--host", "127.0.0.1", "--cores", "2", "--memory", "1g",
                "--webui-port", f"{work}", "--work-dir", str(tmp_path), f"spark://127.0.0.1:{port}",
            )
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while state(url).get("aliveworkers") != 1:
            assert time.monotonic() < deadline, "the cluster does not start"
            time.sleep(0.5)
        yield port, url
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(60)


def state(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
    except OSError:
        return {}
    return found


def test_a_job_runs_on_the_cluster_that_the_connection_names(
    cluster: tuple[int, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, url = cluster
    values = {
        "conn_type": "spark",
        "host": "spark://127.0.0.1",
        "port": port,
        "extra": {"deploy-mode": "client"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SPARK_CLUSTER", json.dumps(values))
    context: Any = {"ti": SimpleNamespace(try_number=1, task_id="c", xcom_push=lambda **_: None)}
    taken = PostgresToLakeOperator(task_id="e", source="pancake", run_id=RUN).execute(context)
    SparkJobOperator(
        task_id="c", job="check", pipeline="pancake", run_id=RUN, conn_id="spark_cluster"
    ).execute(context)
    lake = Lake.s3(
        settings.lake_bucket,
        endpoint=settings.minio_url,
        access_key=settings.minio_root_user,
        secret_key=settings.minio_root_password,
    )
    suite = lake.read_json(f"report/pancake/run={RUN}/quality.json")["suites"]["pancake.pancakes"]
    assert suite == {"success": True, "rows": taken["pancakes"]["rows"], "failed": []}
    assert [(app["name"], app["state"]) for app in state(url)["completedapps"]] == [
        (f"check {RUN}", "FINISHED")
    ]
