"""A table's first suite: what its contract promises, and what its data has kept so far.

Whatever is proposed was counted on the whole table and holds today. Whether it has to hold tomorrow, who
knows the data decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

from tallyhouse.contracts import Column, TableContract
from tallyhouse.extract.statement import build, carried, plain
from tallyhouse.quality.draft import BOUNDS, UUID, draft
from tallyhouse.source.catalogue import CatalogueTable
from tallyhouse.source.profile import TableProfile

MOST_CODES = 12
"""Different values of a column at most for it to be taken for a code."""
_FEWEST_ROWS = 100
"""Rows from which on a table's values say something of those to come."""
_LONGEST_CODE = 32
_UUID_OF_A_SERVER = UUID.replace(r"\A", "^").replace(r"\z", "$")


def first_suite(
    connection: Any, engine: str, contract: TableContract, table: CatalogueTable, profile: TableProfile
) -> dict[str, Any]:
    """The suite in Great Expectations' own format.

    Args:
        connection: An open DB-API connection to the source.
        engine: `mysql` or `postgres`.
        contract: What will be promised of the table.
        table: The table.
        profile: What it holds.
    """
    suite = draft(contract)
    kept = [one for one in suite["expectations"] if _holds(connection, engine, contract, one, profile)]
    for column in contract.source_columns:
        if column.name not in contract.pii:
            kept += _of_values(connection, engine, contract, column, table, profile)
    return {**suite, "expectations": kept}


def _holds(
    connection: Any, engine: str, contract: TableContract, expectation: dict[str, Any], profile: TableProfile
) -> bool:
    """Whether what the draft asks of a column's values is so."""
    kind = expectation["type"]
    if kind not in ("expect_column_values_to_be_between", "expect_column_values_to_match_regex"):
        return True
    column = contract.column(expectation["kwargs"]["column"])
    found = profile.columns[column.in_source]
    if column.type.kind in BOUNDS:
        bounds = BOUNDS[column.type.kind]
        if found.least is None:
            return True
        return str(bounds["min_value"]) <= str(found.least) and str(found.greatest) < str(bounds["max_value"])
    value = plain(engine, contract, column.name)
    if engine == "mysql":
        lower = f"CAST(LOWER({value}) AS BINARY) = CAST({value} AS BINARY)"
        broken = f"NOT ({value} REGEXP '{_UUID_OF_A_SERVER}' AND {lower})"
    else:
        broken = f"{value} !~ '{_UUID_OF_A_SERVER}'"
    return not _rows(
        connection, f"SELECT 1 FROM {build(engine, contract, None).table} AS w WHERE {broken} LIMIT 1"
    )


def _of_values(
    connection: Any,
    engine: str,
    contract: TableContract,
    column: Column,
    table: CatalogueTable,
    profile: TableProfile,
) -> Iterator[dict[str, Any]]:
    """What the values of a column are like: a code of few values, a number that is never negative."""
    found = profile.columns[column.in_source]
    declared = table.column(column.in_source)
    if declared.values:
        values = [*declared.values]
        if engine == "mysql" and _has_error_value(connection, engine, contract, column):
            values.append("")
        yield _expect(column, "be_in_set", "The database knows no others.", value_set=values)
        return
    if profile.rows < _FEWEST_ROWS or column.name in contract.key:
        return
    kind, length = column.type.kind, column.type.length or 0
    if kind.is_numeric and isinstance(found.least, Decimal) and not declared.counts_up:
        if found.least.is_finite() and found.least >= 0:
            yield _expect(column, "be_between", "No row has a negative one today.", min_value=0)
    elif 0 < length <= _LONGEST_CODE and len(set(found.sample)) <= MOST_CODES:
        codes = _codes(connection, engine, contract, column)
        if codes and len(codes) <= MOST_CODES:
            yield _expect(column, "be_in_set", "All that there are today.", value_set=codes)


def _has_error_value(connection: Any, engine: str, contract: TableContract, column: Column) -> bool:
    """Whether an enum holds '', which MySQL keeps in the place of what is no member."""
    empty = f"{plain(engine, contract, column.name)} = ''"
    return bool(
        _rows(connection, f"SELECT 1 FROM {build(engine, contract, None).table} AS w WHERE {empty} LIMIT 1")
    )


def _codes(connection: Any, engine: str, contract: TableContract, column: Column) -> list[str]:
    """The different values of a column, one more than a code may have at most."""
    value = carried(engine, contract, column)
    exact = f"CAST({value} AS BINARY)" if engine == "mysql" else value
    found = _rows(
        connection,
        f"SELECT MIN({value}) FROM {build(engine, contract, None).table} AS w WHERE {value} IS NOT NULL "
        f"GROUP BY {exact} LIMIT {MOST_CODES + 1}",
    )
    return sorted(str(code) for (code,) in found)


def _expect(column: Column, what: str, note: str, **kwargs: Any) -> dict[str, Any]:
    return {
        "type": f"expect_column_values_to_{what}",
        "kwargs": {"column": column.name, **kwargs},
        "meta": {"notes": {"format": "markdown", "content": [note]}},
        "severity": "critical",
    }


def _rows(connection: Any, query: str) -> list[tuple[Any, ...]]:
    with closing(connection.cursor()) as cursor:
        cursor.execute(query)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        connection.rollback()
        return found


def updated_suite(there: dict[str, Any], now: dict[str, Any], contract: TableContract) -> dict[str, Any]:
    """A suite that is there already, brought to a changed contract.

    What a person wrote stays: rules about columns that are gone are dropped, rules about new columns come.

    Args:
        there: As the file has it.
        now: What would be drafted now.
        contract: The contract as it will be.
    """
    listed = "expect_table_columns_to_match_ordered_list"
    columns = set(contract.column_names)
    before = {
        name
        for one in there["expectations"]
        if one["type"] == listed
        for name in one["kwargs"]["column_list"]
    }
    keeps = []
    for one in there["expectations"]:
        kwargs = one["kwargs"]
        if one["type"] == listed:
            keeps.append({**one, "kwargs": {**kwargs, "column_list": list(contract.column_names)}})
            continue
        named = {kwargs[name] for name in ("column", "column_A", "column_B") if name in kwargs}
        if named | set(kwargs.get("column_list", ())) <= columns:
            keeps.append(one)
    new = [one for one in now["expectations"] if one["kwargs"].get("column") in columns - before]
    return {**there, "expectations": [*keeps, *new]}
