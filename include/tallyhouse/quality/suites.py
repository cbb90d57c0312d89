"""Suites as they are committed: one JSON file a table, in Great Expectations' own format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tallyhouse.contracts import TableContract
from tallyhouse.contracts.load import OVERLAYS
from tallyhouse.errors import TallyhouseError

SUITES = OVERLAYS / "suites"


def suite_path(contract: TableContract) -> Path:
    """Where a table's suite is."""
    return SUITES / contract.source / f"{contract.name}.json"


def read_suite(contract: TableContract) -> dict[str, Any]:
    """A table's suite.

    Returns:
        Its JSON: `name`, `expectations` (each with `type` and `kwargs`), `meta`.

    Raises:
        TallyhouseError: There is no such file, or it is not JSON.
    """
    path = suite_path(contract)
    try:
        suite: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TallyhouseError(
            f"its suite cannot be read ({error})",
            remedy=f"Write {path.relative_to(OVERLAYS.parents[1])}; docs/guides/quality.md says how",
            table=contract.qualified_name,
        ) from error
    return suite


def columns_of(expectation: dict[str, Any]) -> list[str]:
    """The columns that an expectation names; none for one about the table or in SQL."""
    kwargs = expectation["kwargs"]
    named = [kwargs[name] for name in ("column", "column_A", "column_B") if name in kwargs]
    return [*named, *kwargs.get("column_list", ())]
