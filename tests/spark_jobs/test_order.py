"""The warehouse is a function of the set of raw batches: in any order, any grouping, however often.

Of dimensions with history that is true of what is current: a state that was seen after a later one, or
together with it, makes no version (docs/decisions/0030).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from spark_jobs.transform import transform
from tallyhouse.contracts import load_pipeline
from tallyhouse.migrate import migrate_warehouse
from tallyhouse.models import definition
from tallyhouse.publish.postgres import publish
from tallyhouse.runs import open_run
from tallyhouse.settings import Settings
from tests.conftest import scratch_postgres
from tests.spark_jobs.raw_batches import techmarket, write_batch
from tests.spark_jobs.test_runs import (
    FIRST,
    House,
    Rows,
    changed,
    house,  # noqa: F401 - a fixture
)

pytestmark = pytest.mark.integration

Batch = tuple[str, int]
"""A table, and the number of the snapshot that its rows are of."""
PIPELINE = load_pipeline("techmarket")
HISTORY = [model for model in PIPELINE.models if definition(model).history]
SOME = hypothesis_settings(
    max_examples=20 if os.environ.get("PROOF") == "1" else 2,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[*HealthCheck],
)
"""Each takes half a minute; `PROOF=1` takes more."""


def snapshots() -> list[Rows]:
    """Three states of a shop, each without what did not change."""
    rows = techmarket(6)
    later = FIRST + timedelta(hours=3)

    def again(table: str, number: int, days: int, **values: Any) -> dict[str, Any]:
        return changed(rows[table][number], later + timedelta(days=days), **values)

    late = rows["orders"].pop()
    return [
        rows,
        {
            "orders": [late, again("orders", 0, 1, status="cancelled")],
            "customers": [again("customers", 0, 1, first_name="Нове")],
            "products": [again("products", 1, 1, name="another")],
            "categories": [
                again("categories", 5, 1, name="moved", parent_category_id=rows["categories"][2]["id"])
            ],
        },
        {
            "orders": [again("orders", 0, 2, status="paid")],
            "customers": [again("customers", 0, 2, first_name="Ще")],
            "addresses": [again("addresses", 1, 2, city="Львів")],
            "payments": [again("payments", 0, 2, status="refunded")],
        },
    ]


SNAPSHOTS = snapshots()
BATCHES: list[Batch] = [
    (table, number) for number, rows in enumerate(SNAPSHOTS) for table, those in rows.items() if those
]


def taken_at(number: int) -> datetime:
    return FIRST + timedelta(days=number)


class Ordered(House):
    """A warehouse that batches are published into one group after the other."""

    def group(self, batches: list[Batch]) -> None:
        tables = {table.name: table for table in PIPELINE.tables}
        with self.connect() as connection:
            run_id = open_run(
                connection,
                PIPELINE.name,
                tables=[table for table, _ in batches],
                dag_id="d",
                dag_run_id="r",
                logical_date=None,
                full_refresh=False,
            )
        for table, number in batches:
            rows = SNAPSHOTS[number][table]
            write_batch(self.lake, tables[table], run_id, rows, snapshot_at=taken_at(number))
        transform(PIPELINE.name, run_id)
        publish(self.connect, self.address, self.lake, PIPELINE, run_id)

    def state(self) -> dict[str, list[str]]:
        """What may not depend on the order: `ods`, and of the models all but which version it is."""
        queries = {
            f"ods.{table.name}": f"SELECT {', '.join(table.column_names)} FROM ods.{table.name}"
            for table in PIPELINE.tables
        }
        versions = {definition(model).key[0] for model in HISTORY}
        for model in PIPELINE.models:
            columns = [column for column in definition(model).columns if column not in versions]
            which = ""
            if model in HISTORY:
                columns = [one for one in columns if one not in ("valid_from", "valid_to")]
                which = " WHERE is_current"
            queries[model] = f"SELECT {', '.join(columns)} FROM dwh.{model}{which}"
        return {name: sorted(map(str, self.ask(query))) for name, query in queries.items()}


@contextmanager
def another(like: House, settings: Settings, patch: pytest.MonkeyPatch) -> Iterator[Ordered]:
    """An empty warehouse over the same lake."""
    with scratch_postgres(settings) as address, patch.context() as environment:
        migrate_warehouse(settings.model_copy(update={"dwh_db": urlsplit(address).path.lstrip("/")}))
        environment.setenv("DWH_CONNINFO", address)
        yield Ordered(address, like.lake)


@st.composite
def orders(draw: st.DrawFn) -> list[list[Batch]]:
    """All batches, some of them twice, in any order and grouping; a run takes a table once."""
    again = draw(st.lists(st.sampled_from(BATCHES), max_size=3))
    groups: list[list[Batch]] = [[]]
    for batch in draw(st.permutations([*BATCHES, *again])):
        if len(groups[-1]) >= 6 or batch[0] in {table for table, _ in groups[-1]}:
            groups.append([])
        groups[-1].append(batch)
    return groups


def test_any_order_and_grouping_give_the_same_warehouse(
    house: House,  # noqa: F811
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with another(house, settings, monkeypatch) as ordered:
        for number, rows in enumerate(SNAPSHOTS):
            ordered.group([(table, number) for table, those in rows.items() if those])
        expected, image = ordered.state(), ordered.image()
        # Each of them once more, in their order: not even the history becomes another one.
        for number, rows in enumerate(SNAPSHOTS):
            ordered.group([(table, number) for table, those in rows.items() if those])
        assert (ordered.state(), ordered.image()) == (expected, image)

    @given(orders())
    @SOME
    def same(groups: list[list[Batch]]) -> None:
        with another(house, settings, monkeypatch) as shuffled:
            for group in groups:
                shuffled.group(group)
            assert shuffled.state() == expected

    same()
