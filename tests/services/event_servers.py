"""The servers of the event tests: private ones, on ports of their own, that can be killed and started again.

PostgreSQL, MinIO, Kafka and the embedded ClickHouse of the stack's set-up; and the services themselves as
processes, as they run in the stack.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import clickhouse_connect
import httpx
import psycopg
import pytest
import requests
from clickhouse_connect.driver.client import Client
from confluent_kafka.admin import AdminClient

from scripts.stack.context import Stack
from services.consumer.settings import Settings as ConsumerSettings
from services.ingest.settings import Settings
from tallyhouse.settings import ROOT
from tests.services.pipeline_info.conftest import Postgres, free_port
from tools.reconcile_events import Held, reconcile

PATIENCE = 90.0
CLICKHOUSE_PASSWORD = "of the events' server"


def eventually(question: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Ask until the answer is true."""
    deadline, last = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            if answer := question():
                return answer
            last = None
        except Exception as error:
            last = error
        time.sleep(0.1)
    raise AssertionError(f"not in {seconds:.0f} s: {last or question}")


class Process:
    """A program that is started, killed and started again."""

    def __init__(
        self, name: str, command: list[str], folder: Path, ready: Callable[[], Any], **environment: str
    ) -> None:
        self.name, self._command, self._ready = name, command, ready
        self.log = folder / f"{name}.log"
        self._environment = os.environ | environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.launch()
        try:
            eventually(self._answers)
        except AssertionError as error:
            raise AssertionError(f"{self.name}: {error}: {self.log.read_text()[-2000:]}") from error

    def launch(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"{self.name} ended: {self.log.read_text()[-2000:]}")
        self._ready()
        return True

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(10)


def _get(url: str) -> None:
    requests.get(url, timeout=2).raise_for_status()


class Servers:
    """One of each."""

    def __init__(self, folder: Path) -> None:
        stack = Stack()
        if not (stack.minio.exists() and stack.kafka_jars.exists()):
            pytest.fail("MinIO or Kafka is not in the cache: run `make setup`")
        folder.chmod(0o755)
        self.folder = folder
        (folder / "postgres").mkdir(mode=0o755)
        self.postgres = Postgres(folder / "postgres")
        port, console = free_port(), free_port()
        self.minio_url = f"http://127.0.0.1:{port}"
        self.minio = Process(
            "minio",
            [
                *(str(stack.minio), "server", "--quiet", "--address", f"127.0.0.1:{port}"),
                *("--console-address", f"127.0.0.1:{console}", str(folder / "minio")),
            ],
            folder,
            lambda: _get(f"{self.minio_url}/minio/health/ready"),
            MINIO_ROOT_USER="minioadmin",
            MINIO_ROOT_PASSWORD="minioadmin",
        )
        self.clickhouse_port = free_port()
        self.clickhouse = Process(
            "clickhouse",
            [
                *(sys.executable, "-m", "services.embedded_clickhouse", "--path", str(folder / "clickhouse")),
                *("--port", str(self.clickhouse_port)),
            ],
            folder,
            lambda: _get(f"http://127.0.0.1:{self.clickhouse_port}/ping"),
            CLICKHOUSE_PASSWORD=CLICKHOUSE_PASSWORD,
        )
        self.bootstrap = f"127.0.0.1:{free_port()}"
        self.kafka = self._kafka(stack, f"127.0.0.1:{free_port()}")

    def _kafka(self, stack: Stack, controller: str) -> Process:
        properties = self.folder / "kafka.properties"
        options = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"BROKER://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"BROKER://{self.bootstrap}",
            "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "BROKER",
            "log.dirs": self.folder / "kafka",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
        }
        properties.write_text("".join(f"{key}={value}\n" for key, value in options.items()))
        java = [
            *(str((stack.java_home or Path("/usr")) / "bin/java"), "-Xmx256m", "-XX:+UseSerialGC"),
            *("-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"),
            *("-cp", f"{stack.kafka_jars}/*"),
        ]
        subprocess.run(
            [
                *java,
                "kafka.tools.StorageTool",
                "format",
                "-t",
                "c3RhY2stb2YtdGVzdHM_AA",
                "-c",
                str(properties),
            ],
            check=True,
            capture_output=True,
        )
        return Process("kafka", [*java, "kafka.Kafka", str(properties)], self.folder, self._ask_kafka)

    def _ask_kafka(self) -> None:
        AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0}).list_topics(timeout=2)

    def start(self) -> None:
        for process in (self.minio, self.clickhouse, self.kafka):
            process.launch()
        self.postgres.start()
        for process in (self.minio, self.clickhouse, self.kafka):
            eventually(process._answers)

    def stop(self) -> None:
        for process in (self.kafka, self.clickhouse, self.minio):
            process.kill()
        self.postgres.stop()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    # Not under pytest's own folder, whose parents are closed to PostgreSQL's account.
    folder = Path(f"/tmp/tallyhouse-events-{uuid.uuid4().hex[:8]}")  # noqa: S108
    folder.mkdir()
    servers = Servers(folder)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Space:
    """A database, a bucket, a topic of their own, and the services that use them."""

    servers: Servers
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    started: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        name = uuid.uuid4().hex[:12]
        servers = self.servers
        dsn = psycopg.conninfo.conninfo_to_dict(servers.postgres.new_database())
        self.environment |= {
            "MINIO_ENDPOINT": servers.minio_url,
            "MINIO_BUCKET": f"raw-{name}",
            "MINIO_ACCESS_KEY": "minioadmin",
            "MINIO_SECRET_KEY": "minioadmin",
            "KAFKA_BOOTSTRAP": servers.bootstrap,
            "KAFKA_TOPIC": f"events-{name}",
            "KAFKA_GROUP": f"group-{name}",
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(dsn["port"]),
            "POSTGRES_USER": "postgres",
            "POSTGRES_PASSWORD": "",
            "POSTGRES_DB": str(dsn["dbname"]),
            "CLICKHOUSE_HOST": "127.0.0.1",
            "CLICKHOUSE_PORT": str(servers.clickhouse_port),
            "CLICKHOUSE_PASSWORD": CLICKHOUSE_PASSWORD,
            "CLICKHOUSE_DB": f"events_{name}",
        }

    @property
    def settings(self) -> Settings:
        with self._in_environment():
            return Settings()

    @property
    def consumer_settings(self) -> ConsumerSettings:
        with self._in_environment():
            return ConsumerSettings()

    @contextmanager
    def _in_environment(self) -> Iterator[None]:
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def _process(self, name: str, *command: str, port: int, **environment: str) -> Process:
        process = Process(
            name,
            [sys.executable, *command],
            self.folder,
            lambda: _get(f"http://127.0.0.1:{port}/health"),
            **(self.environment | environment),
        )
        self.started.append(process)
        process.start()
        return process

    def ingest(self, **environment: str) -> tuple[Process, httpx.Client]:
        port = free_port()
        process = self._process(
            f"ingest-{port}",
            *("-m", "services.ingest", "--port", str(port)),
            port=port,
            **environment,
        )
        return process, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def relay(self) -> Process:
        port = free_port()
        return self._process(
            f"relay-{port}", "-m", "services.ingest.relay", port=port, INGEST_RELAY_PORT=str(port)
        )

    def consumer(self, **environment: str) -> tuple[Process, httpx.Client]:
        port = free_port()
        process = self._process(
            f"consumer-{port}",
            *("-m", "services.consumer.consumer"),
            port=port,
            CONSUMER_PORT=str(port),
            **environment,
        )
        return process, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def stop(self) -> None:
        for process in self.started:
            process.stop()

    # -- what the stores hold ---------------------------------------------------------------------

    @property
    def clickhouse(self) -> Client:
        return clickhouse_connect.get_client(
            host="127.0.0.1",
            port=self.servers.clickhouse_port,
            username="default",
            password=CLICKHOUSE_PASSWORD,
            database=self.environment["CLICKHOUSE_DB"],
            compress=False,
        )

    def rows(self) -> list[tuple[Any, ...]]:
        query = "SELECT toString(id), event_type, schema_version, payload, created_at FROM ingested_data"
        return list(self.clickhouse.query(query).result_rows)

    def objects(self) -> dict[str, bytes]:
        client = boto3.client(
            "s3",
            endpoint_url=self.servers.minio_url,
            region_name="us-east-1",
            aws_access_key_id="minioadmin",
            aws_secret_access_key="minioadmin",
        )
        bucket = self.environment["MINIO_BUCKET"]
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def agree(self, events: int) -> list[Held]:
        """What the stores hold, once all of them hold so many events."""
        held: list[Held] = []

        def ask() -> bool:
            nonlocal held
            held, same = reconcile(self.settings, self.consumer_settings)
            return same and held[0].events == events

        try:
            eventually(ask)
        except AssertionError as error:
            raise AssertionError(f"{events} events were acknowledged; the stores hold {held}") from error
        return held
