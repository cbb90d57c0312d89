"""Prints a first suite of a table, for a person to go on with.

    python -m tallyhouse.quality.draft shipping parcels > include/contracts/suites/shipping/parcels.json

It says what the contract says (columns, NULLs, keys) and which times the targets can hold. What makes the
data right, nobody can generate.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tallyhouse.contracts import Kind, TableContract, load_source

# Ends with \z, as every pattern of a suite does: before a line break at the end, $ matches as well.
UUID = r"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\z"

BOUNDS: dict[Kind, dict[str, Any]] = {
    Kind.TIMESTAMP: {
        "min_value": "1900-01-01 00:00:00",
        "max_value": "2299-12-31 00:00:00",
        "strict_max": True,
    },
    Kind.DATE: {"min_value": "1900-01-01", "max_value": "2299-12-31"},
}
"""Times (UTC) and days that ClickHouse holds, and their day in Kyiv too; 2299-12-31 itself marks the
version of a dimension that is in force."""


def draft(contract: TableContract) -> dict[str, Any]:
    """What a contract promises, as a suite in Great Expectations' own format."""
    key = [*contract.key, *([contract.cursor] if contract.cursor else [])]
    unique = (
        _expect("expect_compound_columns_to_be_unique", column_list=key)
        if len(key) > 1
        else _expect("expect_column_values_to_be_unique", column=key[0])
    )
    return {
        "name": contract.qualified_name,
        "expectations": [
            _expect("expect_table_columns_to_match_ordered_list", column_list=list(contract.column_names)),
            *(
                _expect("expect_column_values_to_not_be_null", column=column.name)
                for column in contract.columns
                if not column.nullable
            ),
            unique,
            *(
                _expect("expect_column_values_to_be_between", column=column.name, **BOUNDS[column.type.kind])
                for column in contract.columns
                if column.type.kind in BOUNDS
            ),
            *(
                _expect("expect_column_values_to_match_regex", column=column.name, regex=UUID)
                for column in contract.columns
                if (column.type.kind, column.type.length) == (Kind.CHAR, 36)
            ),
        ],
        "meta": {},
    }


def _expect(type_: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": type_, "kwargs": kwargs, "severity": "critical"}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tallyhouse.quality.draft <source> <table>")
    try:
        table = load_source(sys.argv[1]).table(sys.argv[2])
    except (ValueError, KeyError) as error:
        sys.exit(str(error.args[0]))
    sys.stdout.write(json.dumps(draft(table), indent=2, ensure_ascii=False) + "\n")
