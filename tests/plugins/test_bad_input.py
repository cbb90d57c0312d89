"""What bad input gets: one line that names table or pipeline, run and remedy, and nothing half-done."""

import json
import re
import secrets
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from tallyhouse.contracts import load_source
from tallyhouse.contracts.load import REPOSITORY
from tallyhouse.lake import Lake
from tallyhouse.settings import Settings
from tallyhouse_airflow.operators.airflow_to_pipeline_info import AirflowToPipelineInfoOperator
from tallyhouse_airflow.operators.events import EventObjectsToLakeOperator, EventsToCuratedOperator
from tallyhouse_airflow.operators.lake_to_postgres import LakeToPostgresOperator
from tallyhouse_airflow.operators.mysql_to_lake import MySqlToLakeOperator
from tallyhouse_airflow.operators.postgres_to_lake import PostgresToLakeOperator
from tallyhouse_airflow.operators.run import OpenRunOperator
from tallyhouse_airflow.operators.spark_job import CheckBatchOperator, CurateEventsOperator, SparkJobOperator
from tallyhouse_airflow.operators.warehouse_to_target import WarehouseToTargetOperator

pytestmark = pytest.mark.integration

RUN = f"orders-20260102T000000-{secrets.token_hex(2)}"


def connection(monkeypatch: pytest.MonkeyPatch, conn_id: str, **values: Any) -> None:
    """Defines an Airflow connection for one test."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(values))


@pytest.fixture
def context() -> dict[str, Any]:
    return {
        "ti": SimpleNamespace(try_number=1, task_id="t", xcom_push=lambda **_: None),
        "dag": SimpleNamespace(dag_id="test", params={}),
        "dag_run": SimpleNamespace(conf={}, dag_id="test", run_id="manual__test"),
        "run_id": "manual__test",
        "logical_date": None,
    }


@pytest.fixture
def mysql_values(settings: Settings) -> dict[str, Any]:
    return {
        "conn_type": "mysql",
        "host": settings.mysql_orders_host,
        "port": settings.mysql_orders_port,
        "schema": settings.mysql_orders_db,
        "login": settings.etl_reader_user,
        "password": settings.etl_reader_password,
        "extra": {"client": "mysql-connector-python"},
    }


@pytest.fixture
def lake_values(settings: Settings) -> dict[str, Any]:
    return {
        "conn_type": "aws",
        "login": settings.minio_root_user,
        "password": settings.minio_root_password,
        "extra": {
            "endpoint_url": settings.minio_url,
            "region_name": "us-east-1",
            "bucket": settings.lake_bucket,
        },
    }


def raw_of(settings: Settings, run_id: str) -> list[str]:
    lake = Lake.s3(
        settings.lake_bucket,
        endpoint=settings.minio_url,
        access_key=settings.minio_root_user,
        secret_key=settings.minio_root_password,
    )
    return [
        key
        for table in load_source("orders").tables
        for key in lake.keys(f"raw/orders/{table.name}/run={run_id}")
    ]


def fails(operator: Any, context: dict[str, Any], *, permanent: bool) -> str:
    """Executes an operator that must fail, and gives its message."""
    with pytest.raises(AirflowException) as caught:
        operator.execute(context)
    message = str(caught.value)
    assert isinstance(caught.value, AirflowFailException) == permanent, message
    assert "\n" not in message, message
    return message


def test_an_unknown_connection(context: dict[str, Any], settings: Settings) -> None:
    operator = MySqlToLakeOperator(task_id="t", source="orders", run_id=RUN, source_conn_id="mysql_nowhere")
    message = fails(operator, context, permanent=True)
    assert message.startswith(f"source orders in run {RUN}: there is no connection 'mysql_nowhere'")
    assert "config/connections.yaml" in message
    assert raw_of(settings, RUN) == []


def test_a_wrong_password(
    context: dict[str, Any], monkeypatch: pytest.MonkeyPatch, mysql_values: dict[str, Any], settings: Settings
) -> None:
    connection(monkeypatch, "mysql_wrong", **mysql_values | {"password": "not-the-password"})
    operator = MySqlToLakeOperator(task_id="t", source="orders", run_id=RUN, source_conn_id="mysql_wrong")
    message = fails(operator, context, permanent=False)
    assert message.startswith(f"source orders in run {RUN}: cannot connect to mysql_wrong")
    assert "Access denied" in message
    assert "not-the-password" not in message
    assert raw_of(settings, RUN) == []


def test_a_source_that_is_down(
    context: dict[str, Any], monkeypatch: pytest.MonkeyPatch, mysql_values: dict[str, Any]
) -> None:
    connection(monkeypatch, "mysql_down", **mysql_values | {"port": 9})
    operator = MySqlToLakeOperator(task_id="t", source="orders", run_id=RUN, source_conn_id="mysql_down")
    message = fails(operator, context, permanent=False)
    assert message.startswith(f"source orders in run {RUN}: cannot connect to mysql_down")
    assert "make status" in message


def test_a_table_without_its_contracts_columns(
    context: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    mysql_values: dict[str, Any],
    mysql_scratch: Any,
    settings: Settings,
) -> None:
    schema = (REPOSITORY / "sql/oltp/03_orders_schema.sql").read_text(encoding="utf-8")
    mysql_scratch.create(schema)
    mysql_scratch.cursor.execute("ALTER TABLE orders RENAME COLUMN channel TO sales_channel")
    connection(monkeypatch, "mysql_scratch", **mysql_values | {"schema": mysql_scratch.name})
    operator = MySqlToLakeOperator(task_id="t", source="orders", run_id=RUN, source_conn_id="mysql_scratch")
    message = fails(operator, context, permanent=True)
    # Against its contract, or, where an earlier run took it, against what it was then.
    assert message.startswith(f"orders.orders in run {RUN}: the ")
    assert re.search(r"lacks channel\. Add|channel .*Correct its DBML and contract", message), message
    # order_items comes first in the contract and is as it should be; nothing of it was taken either.
    assert raw_of(settings, RUN) == []
    mysql_scratch.cursor.execute("ALTER TABLE orders RENAME COLUMN sales_channel TO channel")
    operator.run_id = f"{RUN}-fixed"
    operator.allow_deletes = True  # other tests' rows are in `ods`, and this store is empty
    result = operator.execute(context)
    assert {name: batch["rows"] for name, batch in result.items()} == {
        "order_items": 0,
        "orders": 0,
        "addresses": 0,
        "customers": 0,
    }


def test_a_bucket_that_is_not_there(
    context: dict[str, Any], monkeypatch: pytest.MonkeyPatch, lake_values: dict[str, Any]
) -> None:
    lake_values["extra"]["bucket"] = "no-such-bucket"
    connection(monkeypatch, "s3_gone", **lake_values)
    for operator in (
        OpenRunOperator(task_id="o", pipeline="pancake", lake_conn_id="s3_gone"),
        MySqlToLakeOperator(task_id="m", source="orders", run_id=RUN, lake_conn_id="s3_gone"),
        SparkJobOperator(
            task_id="s", job="transform", pipeline="pancake", run_id=RUN, lake_conn_id="s3_gone"
        ),
        EventObjectsToLakeOperator(task_id="e", run_id=RUN, events_conn_id="s3_gone"),
        EventsToCuratedOperator(task_id="p", run_id=RUN, events_conn_id="s3_gone"),
    ):
        message = fails(operator, context, permanent=True)
        assert "bucket 'no-such-bucket' is not there. Create it" in message


@pytest.mark.parametrize("extra", [{"endpoint_url": "http://127.0.0.1:9"}, {"secret": True}])
def test_a_lake_that_is_down_or_refuses(
    context: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    lake_values: dict[str, Any],
    extra: dict[str, Any],
) -> None:
    if "secret" in extra:
        lake_values["password"] = "not-the-secret"
    else:
        lake_values["extra"] |= extra
    connection(monkeypatch, "s3_down", **lake_values)
    operator = MySqlToLakeOperator(task_id="m", source="orders", run_id=RUN, lake_conn_id="s3_down")
    message = fails(operator, context, permanent=False)
    assert "the lake does not answer or refuses the account" in message
    assert "not-the-secret" not in message


def test_a_warehouse_that_is_down(
    context: dict[str, Any], monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    connection(
        monkeypatch, "pg_down", conn_type="postgres", host="127.0.0.1", port=9, login="x", password="y"
    )
    for operator in (
        OpenRunOperator(task_id="o", pipeline="pancake", dwh_conn_id="pg_down"),
        MySqlToLakeOperator(task_id="m", source="orders", run_id=RUN, dwh_conn_id="pg_down"),
        LakeToPostgresOperator(task_id="p", pipeline="pancake", run_id=RUN, dwh_conn_id="pg_down"),
    ):
        assert "cannot connect to pg_down" in fails(operator, context, permanent=False)
    operator = PostgresToLakeOperator(task_id="s", source="pancake", run_id=RUN, source_conn_id="pg_down")
    assert "cannot connect to pg_down" in fails(operator, context, permanent=False)


def test_a_clickhouse_that_is_down(context: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    connection(monkeypatch, "ch_down", conn_type="clickhouse", host="127.0.0.1", port=9, schema="dwh")
    operator = WarehouseToTargetOperator(
        task_id="c", pipeline="pancake", run_id=RUN, target="clickhouse", target_conn_id="ch_down"
    )
    assert "cannot connect to ch_down" in fails(operator, context, permanent=False)


def test_a_run_that_nobody_opened_is_not_published(context: dict[str, Any]) -> None:
    message = fails(
        LakeToPostgresOperator(task_id="p", pipeline="pancake", run_id=RUN), context, permanent=True
    )
    assert message.startswith(f"pipeline pancake in run {RUN}: the run is not known. Start a new run")
    message = fails(
        WarehouseToTargetOperator(task_id="c", pipeline="pancake", run_id=RUN, target="clickhouse"),
        context,
        permanent=True,
    )
    assert "the warehouse does not show this run" in message


def test_a_run_of_events_that_nobody_opened_is_neither_taken_nor_curated(context: dict[str, Any]) -> None:
    for operator in (
        EventObjectsToLakeOperator(task_id="e", run_id=RUN),
        CurateEventsOperator(task_id="c", pipeline="events", run_id=RUN),
        EventsToCuratedOperator(task_id="p", run_id=RUN),
    ):
        message = fails(operator, context, permanent=True)
        assert message.startswith(f"pipeline events in run {RUN}: the run is not known. Start a new run")


def test_an_unknown_spark_connection(context: dict[str, Any]) -> None:
    operator = SparkJobOperator(
        task_id="s", job="transform", pipeline="pancake", run_id=RUN, conn_id="spark_x"
    )
    assert "there is no connection 'spark_x'" in fails(operator, context, permanent=True)


def test_a_gate_that_nobody_knows(context: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    connection(monkeypatch, "spark_odd", conn_type="spark", host="local[*]", extra={"gate": "polars"})
    operator = CheckBatchOperator(task_id="c", pipeline="pancake", run_id=RUN, conn_id="spark_odd")
    message = fails(operator, context, permanent=True)
    assert message.startswith(
        f"pipeline pancake in run {RUN}: the connection spark_odd asks for the gate 'polars'"
    )
    assert "GATE_ENGINE" in message


def test_a_gate_without_batches_starts_no_spark(
    context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_spark(*_: Any) -> None:
        raise AssertionError("the gate started Spark")

    monkeypatch.setattr(SparkJobOperator, "carry_out", no_spark)
    operator = CheckBatchOperator(task_id="c", pipeline="pancake", run_id=RUN)
    message = fails(operator, context, permanent=True)
    assert message.startswith(f"pipeline pancake in run {RUN}: no raw batch has a _manifest.json")


def test_a_spark_job_says_in_one_line_why_it_failed(context: dict[str, Any]) -> None:
    operator = SparkJobOperator(task_id="s", job="transform", pipeline="pancake", run_id=RUN)
    message = fails(operator, context, permanent=True)
    assert RUN in message


def test_an_airflow_that_does_not_answer(context: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    connection(monkeypatch, "api_down", conn_type="http", host="127.0.0.1", port=9, schema="http")
    operator = AirflowToPipelineInfoOperator(task_id="m", airflow_conn_id="api_down")
    assert "cannot connect to api_down" in fails(operator, context, permanent=False)


def test_no_secret_is_rendered() -> None:
    for operator in (
        MySqlToLakeOperator,
        LakeToPostgresOperator,
        WarehouseToTargetOperator,
        SparkJobOperator,
    ):
        assert not {"env_vars", "conf", "jars", "application_args"} & set(operator.template_fields)


def test_an_option_that_a_path_would_drop_is_named(
    context: dict[str, Any], monkeypatch: pytest.MonkeyPatch, mysql_values: dict[str, Any]
) -> None:
    connection(monkeypatch, "mysql_odd", **mysql_values | {"extra": {"compress": "zstd"}})
    operator = MySqlToLakeOperator(task_id="t", source="orders", run_id=RUN, source_conn_id="mysql_odd")
    message = fails(operator, context, permanent=True)
    assert "the connection mysql_odd cannot be used: the extra has compress" in message
