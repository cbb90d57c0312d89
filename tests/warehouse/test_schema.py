"""One source of truth: contracts, DBML, PostgreSQL and ClickHouse hold the same columns."""

import re
from typing import Any

import psycopg
import pytest
from clickhouse_connect.driver.client import Client

from tallyhouse.contracts import load_pipeline
from tallyhouse.models.load import warehouse_pipelines
from tests.warehouse.schema import Column, formatted, models, tables

PIPELINE_NAMES = warehouse_pipelines()


def test_ods_is_what_the_contracts_say() -> None:
    ods = {name: table for name, table in tables().items() if table.schema == "ods"}
    expected = {}
    for contract in (table for pipeline in PIPELINE_NAMES for table in load_pipeline(pipeline).tables):
        expected[f"ods.{contract.name}"] = (
            [(c.name, formatted(c.type.postgres), c.nullable) for c in contract.columns]
            + [
                ("_snapshot", "timestamp with time zone", False),
                ("_run", "text", False),
                ("_deleted_at", "timestamp with time zone", True),
            ],
            contract.key,
        )
    found = {
        name: ([(c.name, c.postgres, c.nullable) for c in table.columns], table.key)
        for name, table in ods.items()
    }
    assert found == expected


def test_pipelines_build_the_models_and_the_marts_that_there_are() -> None:
    pipelines = [load_pipeline(name) for name in PIPELINE_NAMES]
    assert sorted(model for pipeline in pipelines for model in pipeline.models) == models()


@pytest.mark.integration
def test_migrated_warehouse_is_what_the_dbml_says(warehouse: psycopg.Connection[Any]) -> None:
    columns: dict[str, list[tuple[str, str, bool]]] = {}
    for schema, table, column, type_, nullable in warehouse.execute(
        """
        SELECT c.table_schema, c.table_name, c.column_name,
               format_type(a.atttypid, a.atttypmod), c.is_nullable = 'YES'
        FROM information_schema.columns AS c
        JOIN pg_attribute AS a
          ON a.attrelid = format('%I.%I', c.table_schema, c.table_name)::regclass
          AND a.attname = c.column_name
        JOIN pg_class AS r ON r.oid = a.attrelid AND r.relkind = 'r'
        WHERE c.table_schema IN ('etl', 'ods', 'staging', 'dwh') AND c.table_name <> 'schema_version'
        ORDER BY c.table_schema, c.table_name, c.ordinal_position
        """
    ):
        columns.setdefault(f"{schema}.{table}", []).append((column, type_, nullable))
    assert columns == {
        name: [(c.name, c.postgres, c.nullable) for c in table.columns] for name, table in tables().items()
    }

    keys: dict[str, list[str]] = {}
    for table, column in warehouse.execute(
        """
        SELECT k.table_schema || '.' || k.table_name, k.column_name
        FROM information_schema.table_constraints AS t
        JOIN information_schema.key_column_usage AS k USING (constraint_schema, constraint_name)
        WHERE t.constraint_type = 'PRIMARY KEY' AND t.table_name <> 'schema_version'
        ORDER BY 1, k.ordinal_position
        """
    ):
        keys.setdefault(table, []).append(column)
    assert keys == {name: list(table.key) for name, table in tables().items()}

    indexes = {
        row[0]
        for row in warehouse.execute(
            """
            SELECT indexname FROM pg_indexes
            WHERE schemaname IN ('etl', 'ods', 'dwh') AND indexname NOT LIKE '%\\_pkey'
              AND tablename <> 'schema_version'
            """
        )
    }
    assert indexes == {index for table in tables().values() for index in table.indexes}


@pytest.mark.integration
def test_ledger_closes_by_itself(warehouse: psycopg.Connection[Any]) -> None:
    warehouse.execute(
        "INSERT INTO etl.run (run_id, pipeline, dag_id, dag_run_id, status) "
        "VALUES ('r', 's', 'd', 'm', 'running')"
    )
    warehouse.execute(
        "INSERT INTO etl.ledger (run_id, pipeline, table_name, hop, measure, left_value, right_value) "
        "VALUES ('r', 's', 't', 'source=raw', 'rows', 1.50, 1.5), ('r', 's', 't', 'source=raw', 'rows', 1, 2)"
    )
    assert warehouse.execute("SELECT closed FROM etl.ledger ORDER BY id").fetchall() == [(True,), (False,)]


CLICKHOUSE_TYPES = {
    "boolean": "Bool",
    "smallint": "Int16",
    "integer": "Int32",
    "bigint": "Int64",
    "date": "Date32",
    "timestamp with time zone": "DateTime64(6, 'UTC')",
}


@pytest.mark.integration
def test_clickhouse_has_the_star_schema_of_postgres(clickhouse: Client) -> None:
    found: dict[str, list[tuple[str, str]]] = {}
    for table, column, type_ in clickhouse.query(
        "SELECT table, name, type FROM system.columns WHERE database = 'dwh' ORDER BY table, position"
    ).result_rows:
        low = re.fullmatch(r"LowCardinality\((.*)\)", type_)
        found.setdefault(table, []).append((column, low[1] if low else type_))
    star = {table.name: table for table in tables().values() if table.schema == "dwh"}
    assert {name: found[name] for name in star} == {
        name: [(c.name, clickhouse_type(c)) for c in table.columns] for name, table in star.items()
    }
    marts = {mart for pipeline in PIPELINE_NAMES for mart in load_pipeline(pipeline).marts}
    views = (star.keys() | marts) - {"dim_date"}
    tables_of_views = {f"{name}__{slot}" for name in views for slot in "ab"}
    own = {"etl_run", "etl_slots", "schema_version"}
    assert found.keys() - star.keys() == {*marts, *tables_of_views, *own}
    assert all(found[f"{name}__{slot}"] == found[name] for name in views for slot in "ab")


def clickhouse_type(column: Column) -> str:
    if column.postgres.startswith("numeric("):
        spelled = column.postgres.replace("numeric", "Decimal").replace(",", ", ")
    else:
        spelled = CLICKHOUSE_TYPES.get(column.postgres, "String")
    return f"Nullable({spelled})" if column.nullable else spelled


@pytest.mark.integration
@pytest.mark.parametrize("table", [t.name for t in tables().values() if t.name.startswith("dim_")])
def test_both_engines_are_seeded_alike(
    warehouse: psycopg.Connection[Any], clickhouse: Client, table: str
) -> None:
    key = tables()[f"dwh.{table}"].key[0]
    left = warehouse.execute(f"SELECT * FROM dwh.{table} ORDER BY {key}").fetchall()
    right = clickhouse.query(f"SELECT * FROM dwh.{table} ORDER BY {key}").result_rows
    assert left == right
    assert left[0][0] == -1
    assert len(left) == (7671 if table == "dim_date" else 1)
