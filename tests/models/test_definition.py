"""Definitions: what they must say, and what is told where they are wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tallyhouse.models import all_definitions, load
from tallyhouse.models.definition import Definition, ModelKind
from tallyhouse.models.load import definition, definitions, source_tables
from tallyhouse.models.paths import only_presence, paths
from tallyhouse.models.postgres import ods_table

FACT: dict[str, Any] = {
    "kind": "fact",
    "description": "Sessions",
    "grain": "one row per session",
    "rows_of": "sessions",
    "key": "session_id",
    "joins": {"users": {"match": {"id": "sessions.user_id"}, "columns": ["customer_id"]}},
    "clickhouse": {"order_by": ["session_id"]},
    "columns": {
        "session_id": {"type": "char(36)", "of": "sessions.id"},
        "customer_id": {"type": "char(36)", "nullable": True, "of": "users.customer_id"},
        "pages": {"type": "integer", "of": "sessions.pages_viewed"},
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The definition with one value put elsewhere; keys by dots."""
    content: dict[str, Any] = yaml.safe_load(yaml.safe_dump(FACT))
    *folders, last = path.split(".")
    place = content
    for name in folders:
        place = place[name]
    place[last] = value
    return content


def read(folder: Path, content: dict[str, Any]) -> Definition:
    """Reads a definition as it is read from a file of the pipeline TechMarket."""
    path = folder / "techmarket" / "fact_session.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    found = load._parse(path)
    for problem in load._problems(found):
        raise ValueError(problem)
    return found


def test_a_definition_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, FACT)
    assert found.inputs == ("sessions", "users")
    assert found.spark_schema == "`session_id` string, `customer_id` string, `pages` int"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("measure", {"sum": ["pages"]}, "unknown key 'measure'; did you mean 'measures'?"),
        ("columns.pages.nulable", True, "unknown key 'nulable'; did you mean 'nullable'?"),
        ("joins.users.colums", [], "joins.users: unknown key 'colums'; did you mean 'columns'?"),
        ("kind", "dimension", "a dimension needs `natural_key`"),
        ("key", "session", "key names 'session', which is not a column; did you mean 'session_id'?"),
        ("columns.pages.type", "number", "column pages: type 'number' is not supported"),
        (
            "columns.pages.of",
            "sessions.pages",
            "column pages: sessions has no column 'pages'",
        ),
        ("columns.pages.of", "session.pages_viewed", "is of no input; did you mean 'sessions'?"),
        ("rows_of", "session", "is of no input before it; did you mean 'session'?"),
        ("joins.users.match", {"id": "sessions.usr_id"}, "no column 'usr_id'; did you mean 'user_id'?"),
        ("joins.users.match", {"ident": "sessions.user_id"}, "it has no column 'ident'"),
        ("joins.users.columns", [], "'users.customer_id' is not among the `columns` of its join"),
        ("joins.users.table", "uzers", "join users: no table of this name in the pipeline"),
        ("joins.users.at", "sessions.started_at", "`at` picks the version of a dimension"),
        ("joins.customers", {"match": {"id": "addresses.customer_id"}}, "is of no input before it"),
        (
            "joins.customers",
            {"dimension": "dim_customer", "match": {"customer_id": "users.customer_id"}},
            "dim_customer has versions; say the time that picks one",
        ),
        ("history", True, "only a dimension keeps history"),
        (
            "measures",
            {"sum": ["page"]},
            "measures names 'page', which is not a column; did you mean 'pages'?",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, path: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        read(tmp_path, changed(path, value))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_that_is_not_there_is_named_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match="'fact_payments'; did you mean 'fact_payment'"):
        definition("fact_payments")


def test_models_stand_after_the_dimensions_that_they_join() -> None:
    for model in all_definitions():
        order = [one.name for one in definitions(model.pipeline)] if model.is_built else []
        for dimension in model.dimensions:
            assert order.index(dimension) < order.index(model.name)


def test_every_join_leads_to_the_rows_of_the_model() -> None:
    for model in (model for model in all_definitions() if model.is_built):
        for name in model.inputs:
            for path in paths(model, name):
                assert model.driver in path.inputs
                linked = {end.partition(".")[0] for link in path.links for end in (link.left, link.right)}
                assert linked == set(path.inputs) or path.inputs == (model.driver,)


def test_a_table_of_which_nothing_is_taken_matters_by_its_presence() -> None:
    assert only_presence(definition("dim_product"), "categories")
    assert not only_presence(definition("dim_product"), "product_prices")


def test_columns_that_joins_go_by_have_an_index() -> None:
    tables = source_tables()
    assert [*ods_table(tables["payments"]).indexes] == [
        "ix_ods_payments_order_id",
        "ix_ods_payments_method_id",
    ]
    assert ods_table(tables["inventory"]).indexes == {}


def test_the_unknown_member_of_a_dimension_fills_every_column() -> None:
    for model in all_definitions():
        if model.kind is ModelKind.DIMENSION:
            empty = [name for name, value in model.unknown_member.items() if value is None]
            assert all(model.columns[name].nullable for name in empty)
            assert model.unknown_member[model.key[0]] == -1
