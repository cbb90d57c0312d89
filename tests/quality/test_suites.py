"""The suites as files: one for every table, about columns that exist."""

import json

import pytest

from tallyhouse.contracts import TableContract, load_source
from tallyhouse.contracts.load import OVERLAYS
from tallyhouse.errors import TallyhouseError
from tallyhouse.quality.draft import BOUNDS, draft
from tallyhouse.quality.suites import SUITES, columns_of, read_suite, suite_path

TABLES = [table for path in sorted(OVERLAYS.glob("*.yaml")) for table in load_source(path.stem).tables]
every_table = pytest.mark.parametrize("contract", TABLES, ids=lambda contract: contract.qualified_name)


def test_a_suite_for_every_table_and_no_other() -> None:
    assert sorted(SUITES.glob("*/*.json")) == sorted(suite_path(contract) for contract in TABLES)


@every_table
def test_a_suite_names_its_table_and_columns_of_it(contract: TableContract) -> None:
    suite = read_suite(contract)
    assert suite["name"] == contract.qualified_name
    for expectation in suite["expectations"]:
        unknown = set(columns_of(expectation)) - set(contract.column_names)
        assert not unknown, f"{expectation['type']} names {unknown}: fix the suite or the DBML"


@every_table
def test_a_suite_holds_what_the_contract_promises(contract: TableContract) -> None:
    expectations = read_suite(contract)["expectations"]
    (columns,) = (e for e in expectations if e["type"] == "expect_table_columns_to_match_ordered_list")
    assert columns["kwargs"]["column_list"] == list(contract.column_names)
    filled = {e["kwargs"]["column"] for e in expectations if e["type"].endswith("to_not_be_null")}
    promised = {column.name for column in contract.columns if not column.nullable}
    assert filled >= promised, f"expect {promised - filled} to be not null, as the DBML says"


@every_table
def test_a_suite_bounds_every_time_by_what_the_targets_hold(contract: TableContract) -> None:
    for column in contract.columns:
        held = BOUNDS.get(column.type.kind)
        if held is not None:
            bounds = [
                e["kwargs"]
                for e in read_suite(contract)["expectations"]
                if e["type"] == "expect_column_values_to_be_between" and e["kwargs"]["column"] == column.name
            ]
            # As text, which sorts as the times do; a suite may be stricter.
            assert [
                b
                for b in bounds
                if b["min_value"] >= held["min_value"]
                and (b["max_value"] < held["max_value"] or b.items() >= held.items())
            ], f"{column.name}: copy its bounds from a draft of the suite"


@every_table
def test_a_query_shows_no_personal_data(contract: TableContract) -> None:
    for expectation in read_suite(contract)["expectations"]:
        query = expectation["kwargs"].get("unexpected_rows_query", "")
        assert "*" not in query.partition(" FROM ")[0], "name the columns: they come into messages"
        assert not [column for column in contract.pii if column in query]


def test_a_suite_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallyhouse.quality.suites.suite_path", lambda _: SUITES / "no" / "such.json")
    with pytest.raises(
        TallyhouseError, match=r"auth\.sessions: its suite cannot be read .*suites/no/such\.json"
    ):
        read_suite(TABLES[0])


def test_a_draft_says_what_the_contract_says() -> None:
    for contract in TABLES:
        types = [expectation["type"] for expectation in draft(contract)["expectations"]]
        assert types.count("expect_column_values_to_not_be_null") == sum(
            not column.nullable for column in contract.columns
        )
        assert sum("unique" in type_ for type_ in types) == 1


def test_suites_are_formatted_like_the_rest() -> None:
    for path in SUITES.glob("*/*.json"):
        text = path.read_text("utf-8")
        assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n", path
