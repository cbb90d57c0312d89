"""Any set of changed rows gives the same models as building them whole from all rows.

The oracle is a run that brings every current row again: it touches every row of every model, so what the
incremental run before it got wrong, or did not touch, would change.
"""

import secrets
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tallyhouse.contracts import Kind, load_pipeline
from tallyhouse.models import definitions
from tests.spark_jobs.raw_batches import techmarket
from tests.spark_jobs.test_runs import House, Rows, house  # noqa: F401 - a fixture

pytestmark = pytest.mark.integration

FIRST = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
CONTRACTS = {table.name: table for table in load_pipeline("techmarket").tables}
EVERYTHING = techmarket(8)
MODELLED = sorted(
    {
        table
        for model in definitions("techmarket")
        if model.is_built
        for table in model.tables
        if EVERYTHING[table]
    }
)


@st.composite
def changes(draw: st.DrawFn) -> tuple[Rows, Rows]:
    """What the stores have at first, and what changes: some rows come only after their children."""
    first = deepcopy(EVERYTHING)
    changed: Rows = {}
    for name in draw(st.lists(st.sampled_from(MODELLED), min_size=1, max_size=5, unique=True)):
        late = draw(st.integers(0, min(2, len(first[name]) - 1)))
        changed[name] = [first[name].pop() for _ in range(late)]
        for number in draw(st.lists(st.integers(0, len(first[name]) - 1), max_size=3, unique=True)):
            changed[name].append(draw(moved(name, first[name][number])))
    return first, changed


@st.composite
def moved(draw: st.DrawFn, table: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row with values of others in some of its columns, or a copy of it under a key of its own."""
    contract = CONTRACTS[table]
    other = draw(st.sampled_from(EVERYTHING[table]))
    names = [name for name in contract.column_names if name not in (*contract.key, "parent_category_id")]
    columns = draw(st.lists(st.sampled_from(names), max_size=4, unique=True))
    fresh = {name: other.get(name) for name in columns}
    if draw(st.booleans()):
        is_text = contract.column("id").type.kind is Kind.CHAR
        fresh["id"] = f"new-{secrets.token_hex(8)}".ljust(36, "x") if is_text else 90 + len(columns)
    at = FIRST + timedelta(minutes=draw(st.integers(-90, 90)))
    return {**row, **fresh, "updated_at": at}


def merged(first: Rows, changed: Rows) -> Rows:
    """The current rows of every table: of a key, the one that changed last."""
    rows: Rows = {}
    for name, contract in CONTRACTS.items():
        found: dict[Any, dict[str, Any]] = {}
        for row in (*first.get(name, []), *changed.get(name, [])):
            key = tuple(row[column] for column in contract.key)
            if key not in found or row["updated_at"] >= found[key]["updated_at"]:
                found[key] = row
        rows[name] = list(found.values())
    return rows


@given(change=changes())
@hypothesis_settings(
    max_examples=3,  # three runs each
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_changed_rows_give_what_all_rows_give(
    house: House,  # noqa: F811
    change: tuple[Rows, Rows],
) -> None:
    first, changed = change
    with house.connect() as connection:
        connection.execute(
            "TRUNCATE etl.run_target, etl.run, etl.ledger, etl.watermark, etl.compared, "
            + ", ".join(f"ods.{name}" for name in CONTRACTS)
            + ", "
            + ", ".join(f"dwh.{model}" for model in load_pipeline("techmarket").models)
        )
    house.run(first)
    house.run(changed)
    incremental = house.image()
    house.run(merged(first, changed))
    assert house.image() == incremental
