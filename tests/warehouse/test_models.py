"""Each model's merge and law against PostgreSQL: rows in and rows out are in models/<model>.yaml."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row

from tallyhouse.publish import sql as statements
from tests.warehouse.conftest import Insert
from tests.warehouse.schema import models, tables

CASES = {
    file.stem: yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506 - no objects
    for file in (Path(__file__).parent / "models").glob("*.yaml")
}
BROKEN = [(model, broken) for model, case in sorted(CASES.items()) for broken in case["law"]["broken"]]


def nulls(row: dict[str, str]) -> dict[str, str | None]:
    """The rows are read as text, which PostgreSQL types; only null is more than text."""
    return {name: None if value == "null" else value for name, value in row.items()}


def law(warehouse: psycopg.Connection[Any], model: str) -> dict[str, tuple[Decimal, Decimal]]:
    rows = warehouse.execute(statements.render(f"dwh/models/{model}/law.sql")).fetchall()
    assert len({measure for measure, _, _ in rows}) == len(rows)
    return {measure: (left, right) for measure, left, right in rows}


def test_every_model_has_a_case() -> None:
    assert sorted(CASES) == models()


@pytest.mark.integration
@pytest.mark.parametrize("model", sorted(CASES))
def test_merge_touches_what_differs_and_nothing_twice(
    warehouse: psycopg.Connection[Any], insert: Insert, model: str
) -> None:
    case = CASES[model]["merge"]
    table = f"dwh.{model}"
    warehouse.execute(f"CREATE TABLE staging.increment (LIKE {table})")
    insert(table, [nulls(row) for row in case["before"]])
    insert(table, [nulls(row) for row in case["increment"]], "staging.increment")
    merge = statements.render(f"dwh/models/{model}/merge.sql", staging='staging."increment"')

    assert warehouse.execute(merge).rowcount == int(case["touched"])
    key = tables()[table].key[0]
    with warehouse.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(f"SELECT * FROM {table} ORDER BY {key}").fetchall()
    as_text = [{name: None if v is None else str(v).rstrip() for name, v in row.items()} for row in found]
    expected = [nulls(row) for row in case["after"]]
    spelled = {"true": "True", "false": "False"}
    assert len(found) == len(expected)
    for row, wanted in zip(as_text, expected, strict=True):
        assert {name: row[name] for name in wanted} == {n: spelled.get(v or "", v) for n, v in wanted.items()}

    where = f"(SELECT {key}, xmin, ctid FROM {table} ORDER BY 1)"
    before = warehouse.execute(where).fetchall()
    assert warehouse.execute(merge).rowcount == 0
    assert warehouse.execute(where).fetchall() == before


@pytest.mark.integration
@pytest.mark.parametrize("model", sorted(CASES))
def test_merge_carries_every_column(warehouse: psycopg.Connection[Any], insert: Insert, model: str) -> None:
    table = tables()[f"dwh.{model}"]
    warehouse.execute(f"CREATE TABLE staging.increment (LIKE dwh.{model})")
    merge = statements.render(f"dwh/models/{model}/merge.sql", staging='staging."increment"')
    for index, column in enumerate(table.columns[1:]):
        other = {
            "boolean": False,
            "date": "2026-05-06",
            "timestamptz": "2026-05-06 07:08:09+00",
        }.get(column.dbml, index + 5)
        warehouse.execute(f"TRUNCATE staging.increment, dwh.{model}")
        insert(table.qualified_name, [{}])
        insert(table.qualified_name, [{column.name: other}], "staging.increment")
        assert warehouse.execute(merge).rowcount == 1, column.name
        assert (
            warehouse.execute(
                f"SELECT * FROM staging.increment EXCEPT ALL SELECT * FROM dwh.{model}"
            ).fetchall()
            == []
        ), column.name


@pytest.mark.integration
@pytest.mark.parametrize("model", sorted(CASES))
def test_law_holds(warehouse: psycopg.Connection[Any], insert: Insert, model: str) -> None:
    case = CASES[model]["law"]
    assert all(left == right == 0 for left, right in law(warehouse, model).values())  # an empty warehouse
    for table, rows in case["given"].items():
        insert(table, [nulls(row) for row in rows])
    assert law(warehouse, model) == {
        measure: (Decimal(value), Decimal(value)) for measure, value in case["holds"].items()
    }


@pytest.mark.integration
@pytest.mark.parametrize(("model", "broken"), BROKEN, ids=[f"{m}: {b['by']}" for m, b in BROKEN])
def test_law_breaks(
    warehouse: psycopg.Connection[Any], insert: Insert, model: str, broken: dict[str, Any]
) -> None:
    for table, rows in CASES[model]["law"]["given"].items():
        insert(table, [nulls(row) for row in rows])
    warehouse.execute(broken["by"])
    failed = {measure for measure, (left, right) in law(warehouse, model).items() if left != right}
    assert failed == set(broken["fails"])
