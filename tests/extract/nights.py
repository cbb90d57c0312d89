"""Nightly runs of one source whose only table a test makes: extraction, transform, publish, as in a DAG."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pyarrow as pa
import pytest

from spark_jobs import transform as jobs
from tallyhouse.contracts import Column, ColumnType, PipelineContract, SourceContract, TableContract
from tallyhouse.extract.stream import SourceStream
from tallyhouse.lake import Lake, Manifest
from tallyhouse.ledger import Line
from tallyhouse.publish.postgres import publish
from tallyhouse.runs import open_run
from tallyhouse_airflow.operators.extraction import DatabaseToLakeOperator
from tallyhouse_airflow.operators.mysql_to_lake import MySqlToLakeOperator
from tallyhouse_airflow.operators.postgres_to_lake import PostgresToLakeOperator

TYPES = {
    "id": "int",
    "name": "varchar(40)",
    "amount": "decimal(12,2)",
    "note": "text",
    "updated_at": "datetime(6)",
}
NULLABLE = ("note", "extra")
OPERATORS: dict[str, type[DatabaseToLakeOperator]] = {
    "mysql": MySqlToLakeOperator,
    "postgres": PostgresToLakeOperator,
}


def things(types: dict[str, str] = TYPES, engine: str = "mysql", **more: Any) -> TableContract:
    """The contract of the table: by default with a cursor, and all rows compared in each run."""
    return TableContract(
        **{
            "source": "scratch",
            "name": "things",
            "columns": tuple(
                Column(name, ColumnType.parse(_spelled(spelled, engine), engine), name in NULLABLE)
                for name, spelled in types.items()
            ),
            "key": ("id",),
            "cursor": "updated_at",
            "pii": (),
            "control_totals": ("amount",),
            "row_digests": 1,
            **more,
        }
    )


def _spelled(spelled: str, engine: str) -> str:
    return spelled.replace("datetime(6)", "timestamptz") if engine == "postgres" else spelled


class Nights:
    """A source with the table `things`, a warehouse and a lake, and runs between them.

    Attributes:
        engine: `mysql` or `postgres`.
        source: A cursor of the source's owner; what it executes is committed.
        contract: What is promised of the source; a test may put another one in its place.
        between: What happens once a stream is open and before its rows are written.
        set_back: By how much the clock is behind that the source tells of its snapshots.
    """

    def __init__(
        self, engine: str, source: Any, warehouse: str, lake: Lake, patch: pytest.MonkeyPatch
    ) -> None:
        self.engine, self.source, self.warehouse, self.lake = engine, source, warehouse, lake
        self.contract = SourceContract("scratch", engine, "scratch", (things(engine=engine),))
        self.between: Callable[[], None] | None = None
        self.set_back = timedelta(0)
        patch.setattr(jobs, "load_pipeline", lambda _: self.pipeline)
        patch.setenv("LAKE_BASE", Path(lake.root).as_uri())
        patch.setenv("DWH_CONNINFO", warehouse)
        self.make(TYPES)
        self.make_ods()

    @property
    def table(self) -> TableContract:
        return self.contract.tables[0]

    @table.setter
    def table(self, table: TableContract) -> None:
        self.contract = replace(self.contract, tables=(table,))

    @property
    def pipeline(self) -> PipelineContract:
        return PipelineContract("scratch", (self.contract,), models=(), marts=())

    def make(self, types: dict[str, str]) -> None:
        columns = ", ".join(
            f"{name} {_spelled(spelled, self.engine)}{'' if name in NULLABLE else ' NOT NULL'}"
            for name, spelled in types.items()
        )
        self.source.execute(f"CREATE TABLE things ({columns}, PRIMARY KEY (id))")

    def make_ods(self) -> None:
        columns = [
            f"{column.name} {column.type.postgres}{'' if column.nullable else ' NOT NULL'}"
            for column in self.table.columns
        ]
        columns += ["_snapshot timestamptz NOT NULL", "_run text NOT NULL", "_deleted_at timestamptz"]
        with psycopg.connect(self.warehouse) as connection:
            connection.execute(f"CREATE TABLE ods.things ({', '.join(columns)}, PRIMARY KEY (id))".encode())

    def fill(self, rows: int, first: int = 1, at: str = "2026-01-01 10:00:00") -> None:
        values = ", ".join(
            f"({n}, 'name {n} є😀', {n}.25, NULL, '{at}.{n % 1000000:06d}{self.zone}')"
            for n in range(first, first + rows)
        )
        self.source.execute(f"INSERT INTO things VALUES {values}")

    @property
    def zone(self) -> str:
        return "" if self.engine == "mysql" else "+00"

    def extract(self, attempt: int = 1, **asked: Any) -> tuple[str, Manifest]:
        """The extraction of a run, with its id."""
        with psycopg.connect(self.warehouse) as connection:
            run_id = open_run(
                connection,
                "scratch",
                tables=["things"],
                dag_id="d",
                dag_run_id="r",
                logical_date=None,
                full_refresh=False,
            )
        return run_id, self.take(run_id, attempt, **asked)

    def take(self, run_id: str, attempt: int, **asked: Any) -> Manifest:
        """One try of a run's extraction."""
        nights = self

        class Operator(OPERATORS[self.engine]):  # type: ignore[misc]
            contract = property(lambda _: nights.contract)
            lake_hook = SimpleNamespace(get_lake=lambda: nights.lake)

            def open_stream(self, *asked: Any) -> SourceStream:
                stream = super().open_stream(*asked)
                said = replace(stream.statement, snapshot_at=stream.statement.snapshot_at - nights.set_back)
                return replace(stream, statement=said, batches=nights.stalled(stream.batches))

        operator = Operator(
            task_id="scratch", source="scratch", run_id=run_id, dwh_conn_id="pg_scratch", **asked
        )
        done = operator.execute(
            {
                "ti": SimpleNamespace(try_number=attempt, task_id="scratch", xcom_push=lambda **_: None),
                "dag": SimpleNamespace(dag_id="test", params={}),
                "dag_run": SimpleNamespace(conf={}, dag_id="test", run_id="r"),
            }
        )
        return Manifest.from_json(self.lake.read_json(done["things"]["key"]))

    def stalled(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows of a stream, with what a test does before the first of them is handed on."""
        if self.between:
            self.between()
        yield from batches

    def publish(self, run_id: str) -> list[Line]:
        """The rest of a run; publishing raises unless its ledger closes."""
        jobs.transform("scratch", run_id)
        return publish(
            lambda: psycopg.connect(self.warehouse), self.warehouse, self.lake, self.pipeline, run_id
        )

    def run(self, **asked: Any) -> Manifest:
        """A whole run."""
        run_id, manifest = self.extract(**asked)
        self.publish(run_id)
        return manifest

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.warehouse) as connection:
            return connection.execute(query.encode()).fetchall()


def connections(patch: pytest.MonkeyPatch, warehouse: str, source: dict[str, Any]) -> None:
    """The Airflow connections that the runs use."""
    parts = urlsplit(warehouse)
    postgres = {
        "conn_type": "postgres",
        "host": parts.hostname,
        "port": parts.port,
        "login": parts.username,
        "password": parts.password,
        "schema": parts.path.lstrip("/"),
    }
    patch.setenv("AIRFLOW_CONN_PG_SCRATCH", json.dumps(postgres))
    patch.setenv("AIRFLOW_CONN_SCRATCH", json.dumps(source or postgres))
