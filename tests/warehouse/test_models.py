"""What is derived of each definition, against PostgreSQL: merges, and checks by the cases in tests/cases."""

from decimal import Decimal
from typing import Any

import psycopg
import pytest
import yaml

from tallyhouse.models import all_definitions, definition
from tallyhouse.models.load import own_key, table_of
from tallyhouse.models.postgres import checks, merge
from tallyhouse.publish.differing import unlike_ods
from tallyhouse.settings import ROOT
from tests.warehouse.conftest import Insert
from tests.warehouse.schema import tables

MODELS = [model.name for model in all_definitions() if model.is_built]
CASES = {
    file.stem: yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader)["checks"]  # noqa: S506 - no objects
    for file in (ROOT / "tests" / "cases").glob("*.yaml")
}
BROKEN = [(model, broken) for model, case in sorted(CASES.items()) for broken in case["broken"]]
OTHER = {"boolean": False, "date": "2026-05-06", "timestamptz": "2026-05-06 07:08:09+00"}


def nulls(row: dict[str, str]) -> dict[str, str | None]:
    """The rows are read as text, which PostgreSQL types; only null is more than text."""
    return {name: None if value == "null" else value for name, value in row.items()}


def touched(warehouse: psycopg.Connection[Any], model: str, where: str = "TRUE") -> str:
    """A table of keys as a run leaves them: all that `ods` or the model has, or none."""
    defined = definition(model)
    driver = table_of(defined, defined.driver)
    own, keys = (", ".join(names) for names in (own_key(defined), driver.key))
    missing = " AND ".join(f"{name} IS NOT NULL" for name in own_key(defined))
    warehouse.execute("DROP TABLE IF EXISTS touched")
    warehouse.execute(
        f"CREATE TEMP TABLE touched AS SELECT {keys} FROM ods.{driver.name} WHERE {where} "
        f"UNION SELECT {own} FROM dwh.{model} WHERE {missing} AND {where}"
    )
    return "touched"


def checked(
    warehouse: psycopg.Connection[Any], model: str, only: str | None = None
) -> dict[str, tuple[Decimal, Decimal]]:
    statements = checks(definition(model), only)
    rows = [row for statement in statements for row in warehouse.execute(statement.encode())]
    assert len({measure for measure, _, _ in rows}) == len(rows)
    return {measure: (left, right) for measure, left, right in rows}


def test_every_model_has_cases() -> None:
    assert sorted(CASES) == sorted(MODELS)


@pytest.mark.integration
@pytest.mark.parametrize("model", MODELS)
def test_a_merge_touches_what_differs_and_nothing_twice(
    warehouse: psycopg.Connection[Any], insert: Insert, model: str
) -> None:
    table = tables()[f"dwh.{model}"]
    key = table.key[0]
    warehouse.execute(f"TRUNCATE {table.qualified_name}")
    warehouse.execute(f"CREATE TABLE staging.increment (LIKE {table.qualified_name})")
    other = next(column for column in table.columns[2:] if not column.nullable)
    unique = table.columns[1].name  # of a dimension, the natural key
    insert(table.qualified_name, [{key: number, unique: number} for number in (1, 2)])
    same, differs, new = (
        {key: 1, unique: 1},
        {key: 2, unique: 2, other.name: OTHER.get(other.dbml, 5)},
        {key: 3, unique: 3},
    )
    insert(table.qualified_name, [same, differs, new], "staging.increment")
    statement = merge(definition(model), 'staging."increment"').encode()
    assert warehouse.execute(statement).rowcount == 2
    where = f"(SELECT {key}, xmin, ctid FROM {table.qualified_name} ORDER BY 1)"
    before = warehouse.execute(where).fetchall()
    assert len(before) == 3
    assert warehouse.execute(statement).rowcount == 0
    assert warehouse.execute(where).fetchall() == before


@pytest.mark.integration
@pytest.mark.parametrize("model", MODELS)
def test_a_merge_carries_every_column(warehouse: psycopg.Connection[Any], insert: Insert, model: str) -> None:
    table = tables()[f"dwh.{model}"]
    warehouse.execute(f"CREATE TABLE staging.increment (LIKE dwh.{model})")
    statement = merge(definition(model), 'staging."increment"').encode()
    for index, column in enumerate(table.columns[1:]):
        other = OTHER.get(column.dbml, index + 5)
        warehouse.execute(f"TRUNCATE staging.increment, dwh.{model}")
        insert(table.qualified_name, [{}])
        insert(table.qualified_name, [{column.name: other}], "staging.increment")
        assert warehouse.execute(statement).rowcount == 1, column.name
        assert (
            warehouse.execute(
                f"SELECT * FROM staging.increment EXCEPT ALL SELECT * FROM dwh.{model}"
            ).fetchall()
            == []
        ), column.name


@pytest.mark.integration
@pytest.mark.parametrize("model", sorted(CASES))
def test_checks_hold(warehouse: psycopg.Connection[Any], insert: Insert, model: str) -> None:
    case = CASES[model]
    assert all(left == right == 0 for left, right in checked(warehouse, model).values())  # nothing there yet
    for table, rows in case["given"].items():
        insert(table, [nulls(row) for row in rows])
    assert checked(warehouse, model) == {
        measure: (Decimal(value), Decimal(value)) for measure, value in case["holds"].items()
    }
    assert checked(warehouse, model, touched(warehouse, model)) == checked(warehouse, model)
    assert list(unlike_ods(warehouse, model)) == []


@pytest.mark.integration
@pytest.mark.parametrize(("model", "broken"), BROKEN, ids=[f"{m}: {b['by']}" for m, b in BROKEN])
def test_checks_find_what_is_wrong(
    warehouse: psycopg.Connection[Any], insert: Insert, model: str, broken: dict[str, Any]
) -> None:
    for table, rows in CASES[model]["given"].items():
        insert(table, [nulls(row) for row in rows])
    warehouse.execute(broken["by"])
    failed = {measure for measure, (left, right) in checked(warehouse, model).items() if left != right}
    assert failed == set(broken["fails"])
    found = checked(warehouse, model, touched(warehouse, model))
    assert {measure for measure, (left, right) in found.items() if left != right} == failed
    # Rows are named of what every model has to keep, not of what only its own SQL checks.
    of_every = {measure for measure, *_ in warehouse.execute(checks(definition(model))[0].encode())}
    named = [str(one) for one in unlike_ods(warehouse, model)]
    assert bool(named) == bool(failed & of_every), (named, failed)


@pytest.mark.integration
@pytest.mark.parametrize("model", sorted(CASES))
def test_checks_leave_out_what_no_run_touched(
    warehouse: psycopg.Connection[Any], insert: Insert, model: str
) -> None:
    for table, rows in CASES[model]["given"].items():
        insert(table, [nulls(row) for row in rows])
    only = touched(warehouse, model, "FALSE")
    scoped = [statement for statement in checks(definition(model), only) if only in statement]
    rows = [row for statement in scoped for row in warehouse.execute(statement.encode())]
    assert rows
    assert all(left == right == 0 for _, left, right in rows)
