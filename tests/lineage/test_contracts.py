"""The contracts' lineage: whole, true to the marts' SQL, and accepted by the service as OpenLineage."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlglot
from fastapi.testclient import TestClient
from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
from openlineage.client.serde import Serde
from sqlglot import exp
from sqlglot.lineage import lineage as follow

from services.pipeline_info.app import create_app
from services.pipeline_info.settings import Settings
from tallyhouse import declared_lineage
from tallyhouse.contracts import load_pipeline
from tallyhouse.models import ModelKind, all_definitions, column_origins
from tallyhouse.models.load import warehouse_pipelines
from tallyhouse_airflow.operators.lake_to_postgres import LakeToPostgresOperator
from tallyhouse_airflow.operators.openlineage_facets import as_openlineage
from tallyhouse_airflow.operators.spark_job import (
    CheckBatchOperator,
    CurateEventsOperator,
    TransformBatchOperator,
)

ROOT = Path(__file__).parents[2]
PIPELINE_NAMES = warehouse_pipelines()
MARTS = [model.name for model in all_definitions() if model.kind is ModelKind.MART]
MODELS = [model.name for model in all_definitions() if model.is_built]


def select_of(mart: str) -> exp.Expression:
    text = (ROOT / "sql" / "clickhouse" / "models" / mart / "build.sql").read_text()
    text = text.replace("INSERT INTO {{ staging }}", "").replace("SETTINGS join_use_nulls = 1", "")
    return sqlglot.parse_one(text, dialect="clickhouse")


@pytest.mark.parametrize("mart", MARTS)
def test_a_mart_is_made_of_the_columns_that_its_definition_says(mart: str) -> None:
    schema = {"dwh": {model: dict.fromkeys(column_origins(model), "text") for model in MODELS}}
    select = select_of(mart)
    found = {}
    for column in select.named_selects:
        leaves = follow(column, select, schema=schema, dialect="clickhouse").walk()
        tables = [node for node in leaves if isinstance(node.expression, exp.Table)]
        found[column] = sorted({f"{n.expression.name}.{n.name.rpartition('.')[2]}" for n in tables})
    declared = column_origins(mart)
    assert {column: sorted(names) for column, names in declared.items()} == found


@pytest.mark.parametrize("mart", MARTS)
def test_every_table_that_a_mart_reads_is_named_by_its_columns_and_no_other(mart: str) -> None:
    """So the edges between data sets can be had of the columns: a job reads and writes many of them."""
    read = {table.name for table in select_of(mart).find_all(exp.Table)} & set(MODELS)
    pipeline = next(name for name in PIPELINE_NAMES if mart in load_pipeline(name).marts)
    (shown,) = (
        dataset
        for dataset in declared_lineage.show(load_pipeline(pipeline), STORES).outputs
        if dataset.place == STORES.shown(mart)
    )
    told = as_openlineage(declared_lineage.TaskLineage(outputs=(shown,))).outputs[0].facets["columnLineage"]
    named = {origin.name for column in told.fields.values() for origin in column.inputFields}
    assert named == {f"dwh.{model}" for model in read}


STORES = declared_lineage.Stores("s3://lake", "postgres://p:5432", "dwh_db", "clickhouse://c:8123", "dwh")


def hops(pipeline: str) -> list[declared_lineage.TaskLineage]:
    contract = load_pipeline(pipeline)
    found = [
        declared_lineage.extraction(
            source, source.tables, f"{source.engine}://s:1", f"{source.name}_db", STORES
        )
        for source in contract.sources
    ]
    steps = (
        declared_lineage.check,
        declared_lineage.transform,
        declared_lineage.publish,
        declared_lineage.show,
    )
    return [*found, *(step(contract, STORES) for step in steps)]


def run_events(pipeline: str) -> Iterator[str]:
    """What Airflow's provider tells of a run: one event per task."""
    extracts = [f"extract.{source.name}" for source in load_pipeline(pipeline).sources]
    tasks = (*extracts, "check", "transform", "publish.warehouse", "publish.clickhouse")
    for number, (task, hop) in enumerate(zip(tasks, hops(pipeline), strict=True)):
        told = as_openlineage(hop)
        event = RunEvent(
            eventType=RunState.COMPLETE,
            eventTime="2026-01-02T00:00:00Z",
            run=Run(runId=str(UUID(int=number))),
            job=Job(namespace="tallyhouse", name=f"{pipeline}_nightly.{task}"),
            inputs=told.inputs,
            outputs=told.outputs,
        )
        yield Serde.to_json(event)


@pytest.mark.parametrize("pipeline", PIPELINE_NAMES)
def test_every_column_that_is_shown_can_be_followed_to_its_source(pipeline: str) -> None:
    written = {dataset.place: dataset for hop in hops(pipeline) for dataset in hop.outputs}

    def sources(place: declared_lineage.Place, column: str) -> set[str]:
        if place not in written:
            return {f"{place.name}.{column}"}
        origins = written[place].origins[column]
        return set().union(*(sources(origin.place, origin.column) for origin in origins))

    contract = load_pipeline(pipeline)
    for name in (*contract.models, *contract.marts):
        columns = column_origins(name)
        assert written[STORES.shown(name)].columns == tuple(columns)
        for column, origins in columns.items():
            found = sources(STORES.shown(name), column)
            assert bool(found) == bool(origins)
            assert all(re.match(r"\w+_db\.", one) for one in found), found
    read = {dataset.place for hop in hops(pipeline) for dataset in hop.inputs}
    assert {place.namespace for place in read - set(written)} == {
        f"{source.engine}://s:1" for source in contract.sources
    }


def test_the_service_takes_the_events_and_serves_their_graph(tmp_path: Path) -> None:
    client = TestClient(
        create_app(Settings(backend="jsonl", file=tmp_path / "runs.jsonl")), base_url="http://127.0.0.1"
    )
    for event in run_events("techmarket"):
        headers = {"Content-Type": "application/json"}
        answer = client.post("/api/v1/lineage", content=event, headers=headers)
        assert answer.status_code == 201, answer.text
    revenue = "dataset:clickhouse://c:8123:dwh.mart_revenue_daily"
    nodes = client.get("/api/v1/lineage", params={"nodeId": revenue}).json()["graph"]
    assert "dataset:mysql://s:1:orders_db.order_items" in {node["id"] for node in nodes}
    columns = client.get("/api/v1/column-lineage", params={"nodeId": revenue}).json()["items"]
    assert ("revenue", "dataset:clickhouse://c:8123:dwh.fact_order_line", "line_total", "aggregation") in {
        (one["target_field"], one["source"], one["source_field"], one["how"]) for one in columns
    }
    page = client.get("/lineage", params={"node": revenue})
    assert "line_total" in page.text


@pytest.mark.parametrize(
    ("operator", "reads", "writes"),
    [
        (CheckBatchOperator, {"raw"}, set()),
        (TransformBatchOperator, {"raw"}, {"accepted", "increment"}),
        (CurateEventsOperator, {"raw"}, {"curated"}),
        (LakeToPostgresOperator, {"accepted", "increment"}, {"dwh_db.ods", "dwh_db.dwh"}),
    ],
)
def test_each_task_names_its_own_hop(
    operator: type[Any], reads: set[str], writes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_S3_EVENTS", '{"conn_type": "aws", "extra": {"bucket": "raw-data"}}')
    pipeline = "events" if operator is CurateEventsOperator else "techmarket"
    hop = operator(task_id="t", pipeline=pipeline, run_id="r").reads_and_writes(STORES)

    def places(found: tuple[declared_lineage.Dataset, ...]) -> set[str]:
        return {re.split(r"/|\.(?=[a-z_]+$)", dataset.place.name)[0] for dataset in found}

    assert (places(hop.inputs), places(hop.outputs)) == (reads, writes)
