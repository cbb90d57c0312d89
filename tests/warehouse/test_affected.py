"""Which rows of a model a run touches: never fewer than those whose inputs differ afterwards.

The oracle walks the declared joins in plain Python, over the state before the run and the one after it.
That the models' functions look at nothing else is held elsewhere: they are given no other column.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import sql

from tallyhouse.contracts import TableContract, load_pipeline
from tallyhouse.models import Definition, definition, definitions
from tallyhouse.models.affected import AffectedKeys, Load, affected
from tallyhouse.models.definition import EXISTING
from tallyhouse.models.load import table_of, tables, warehouse_pipelines
from tests.warehouse.conftest import Insert
from tests.warehouse.schema import tables as described

pytestmark = pytest.mark.integration

Row = dict[str, Any]
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
PAST, FUTURE = datetime(1900, 1, 1, tzinfo=UTC), datetime(2299, 12, 31, tzinfo=UTC)
NUMBERS = st.integers(1, 3)
"""So few values that rows meet, move and miss one another."""


def value(dbml: str, number: int) -> Any:
    """One of a few values of a column's type."""
    kind = dbml.partition("(")[0]
    if kind in ("timestamptz", "date"):
        at = FIRST + timedelta(days=number)
        return at if kind == "timestamptz" else at.date()
    if kind == "boolean":
        return number % 2 == 0
    return str(number) if kind in ("char", "varchar", "text") else number


def built(pipeline: str) -> list[Definition]:
    return [model for model in definitions(pipeline) if model.is_built]


def looked_at(pipeline: str) -> dict[str, list[str]]:
    """Of each table that models are built of, the columns that joins go by or take."""
    wanted: dict[str, set[str]] = {}
    for model in built(pipeline):
        of = {name: table_of(model, name) for name in model.inputs if is_table(model, name)}
        for contract in of.values():
            wanted.setdefault(contract.name, set()).update(contract.key)
        for name, join in model.joins.items():
            if name in of:
                wanted[of[name].name] |= set(join.taken)
            for reference in (*(one for many in join.match.values() for one in many), join.at or ""):
                source, _, column = reference.partition(".")
                if source in of:
                    wanted[of[source].name].add(column)
    return {name: sorted(columns) for name, columns in wanted.items()}


def is_table(model: Definition, name: str) -> bool:
    return name != EXISTING and not (name in model.joins and model.joins[name].dimension)


@dataclass
class World:
    """A pipeline's tables and dimensions before a run, and what the run brings."""

    before: dict[str, list[Row]] = field(default_factory=dict)
    brought: dict[str, list[Row]] = field(default_factory=dict)
    versions: dict[str, list[Row]] = field(default_factory=dict)
    new_versions: dict[str, list[Row]] = field(default_factory=dict)

    def after(self, contract: TableContract) -> list[Row]:
        """The live rows afterwards: a row that is older than what is there changes nothing."""
        rows = {key(contract, row): row for row in self.before[contract.name]}
        for row in self.brought[contract.name]:
            if key(contract, row) not in rows or not row["_stale"]:
                rows[key(contract, row)] = row
        return live(rows.values())

    def versions_after(self, dimension: Definition) -> list[Row]:
        member = str(dimension.natural_key)
        replaced = {row[member] for row in self.new_versions[dimension.name]}
        kept = [row for row in self.versions[dimension.name] if row[member] not in replaced]
        return [*kept, *self.new_versions[dimension.name]]


def key(contract: TableContract, row: Row) -> tuple[Any, ...]:
    return tuple(row[column] for column in contract.key)


def live(rows: Any) -> list[Row]:
    return [row for row in rows if row.get("_deleted_at") is None]


@st.composite
def worlds(draw: st.DrawFn, pipeline: str) -> World:
    world = World()
    wanted = looked_at(pipeline)
    # Few tables change: what is found through one must not come along with another one.
    changing = draw(st.sets(st.sampled_from(sorted(wanted)), min_size=1, max_size=2))
    for name, columns in wanted.items():
        contract = tables(pipeline)[name]
        types = {column.name: column.dbml for column in described()[f"ods.{name}"].columns}
        brought = 3 if name in changing else 0
        for rows, least, most in ((world.before, 3, 4), (world.brought, min(2, brought), brought)):
            one_row = st.fixed_dictionaries(dict.fromkeys(columns, NUMBERS))
            drawn = draw(st.lists(one_row, min_size=least, max_size=most))
            unique = {
                key(contract, row): row
                for row in ({n: value(types[n], number) for n, number in one.items()} for one in drawn)
            }
            rows[name] = list(unique.values())
        for row in world.before[name]:
            row["_deleted_at"] = draw(st.sampled_from([None, None, None, FIRST]))
        for row in world.brought[name]:
            row["_stale"] = draw(st.sampled_from([False, False, True]))
    for model in built(pipeline):
        if model.history:
            world.versions[model.name] = draw(histories(model, 100))
            world.new_versions[model.name] = draw(histories(model, 200))
    return world


@st.composite
def histories(draw: st.DrawFn, model: Definition, keys: int) -> list[Row]:
    """Versions of some members, from the open past to the open future without a gap."""
    types = {column.name: column.dbml for column in described()[f"dwh.{model.name}"].columns}
    member = str(model.natural_key)
    others = [name for name in types if name.endswith(("_key", "_id")) and name not in (member, *model.key)]
    rows: list[Row] = []
    for number in draw(st.sets(NUMBERS, min_size=1)):
        cuts = sorted(draw(st.sets(NUMBERS, min_size=1, max_size=2)))
        bounds = [PAST, *(FIRST + timedelta(days=cut) for cut in cuts), FUTURE]
        for place, (begins, ends) in enumerate(pairwise(bounds)):
            row = {member: value(types[member], number), "valid_from": begins, "valid_to": ends}
            row |= {name: value(types[name], draw(NUMBERS)) for name in others}
            # A version keeps its key where nothing of it changed.
            row[model.key[0]] = draw(st.sampled_from([keys, 0])) + number * 10 + place
            rows.append(row)
    return rows


class Joined:
    """What each row of a model is made of, in one state: a walk along the joins in plain Python."""

    def __init__(self, model: Definition, world: World, *, after: bool) -> None:
        self.model = model
        self.world = world
        self.is_after = after

    def rows(self, name: str) -> list[Row]:
        contract = table_of(self.model, name)
        return self.world.after(contract) if self.is_after else live(self.world.before[contract.name])

    def members(self, dimension: Definition) -> list[Row]:
        return self.world.versions_after(dimension) if self.is_after else self.world.versions[dimension.name]

    def of(self, driver: Row) -> dict[str, list[Row]]:
        """The rows of every input that belong to a row of the model."""
        found: dict[str, list[Row]] = {self.model.driver: [driver]}
        if self.model.history:
            (own,) = table_of(self.model, self.model.driver).key
            versions = self.world.versions[self.model.name]
            found[EXISTING] = [row for row in versions if row[str(self.model.natural_key)] == driver[own]]
        for name, join in self.model.joins.items():
            candidates = self.members(definition(join.dimension)) if join.dimension else self.rows(name)
            for column, references in join.match.items():
                there = {
                    row[ref.partition(".")[2]] for ref in references for row in found[ref.partition(".")[0]]
                }
                candidates = [row for row in candidates if row[column] in there]
            if join.at:
                source, _, column = join.at.partition(".")
                times = [row[column] for row in found[source]]
                candidates = [
                    row
                    for row in candidates
                    if any(row["valid_from"] <= at < row["valid_to"] for at in times)
                ]
            found[name] = candidates
        return found

    def fingerprints(self) -> dict[tuple[Any, ...], Any]:
        """By the driver's key, everything that the model's function sees of it."""
        contract = table_of(self.model, self.model.driver)
        return {key(contract, row): self.seen(row) for row in self.rows(self.model.driver)}

    def seen(self, driver: Row) -> Any:
        found = self.of(driver)
        own = {name: content for name, content in driver.items() if not name.startswith("_")}
        joins = {
            name: sorted({repr([row[column] for column in join.taken]) for row in found[name]})
            for name, join in self.model.joins.items()
        }
        return own, joins


def load_rows(connection: psycopg.Connection[Any], rows: list[Row]) -> Load:
    def load(name: str, schema: pa.Schema) -> None:
        with connection.cursor() as cursor:
            cursor.executemany(
                sql.SQL("INSERT INTO staging.{} VALUES ({})").format(
                    sql.Identifier(name), sql.SQL(", ").join(sql.Placeholder() * len(schema.names))
                ),
                [[row[column] for column in schema.names] for row in rows],
            )

    return load


def put(warehouse: psycopg.Connection[Any], insert: Insert, world: World) -> None:
    for name, rows in world.before.items():
        warehouse.execute(f"TRUNCATE ods.{name}")
        insert(f"ods.{name}", rows)
    for name, rows in world.versions.items():
        warehouse.execute(f"TRUNCATE dwh.{name}")
        insert(f"dwh.{name}", [{**row, "version_at": row["valid_from"]} for row in rows])


def touched(warehouse: psycopg.Connection[Any], keys: AffectedKeys, model: Definition) -> set[Any] | None:
    """The driver's keys that are found; None for all."""
    if (count := keys.of(model)) is None:
        return None
    if count == 0:
        return set()
    rows = warehouse.execute(f'SELECT * FROM staging."{keys.prefix}m_{model.name}"').fetchall()
    assert len(rows) == count
    return {tuple(text(one) for one in row) for row in rows}


def text(one: Any) -> Any:
    """PostgreSQL hands CHAR(n) out padded."""
    return one.strip() if isinstance(one, str) else one


@pytest.mark.parametrize("pipeline", [name for name in warehouse_pipelines() if built(name)])
@given(data=st.data())
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_row_that_changes_is_missed(
    warehouse: psycopg.Connection[Any], insert: Insert, pipeline: str, data: st.DataObject
) -> None:
    world = data.draw(worlds(pipeline))
    with warehouse.transaction(force_rollback=True):
        put(warehouse, insert, world)
        with affected(warehouse, load_pipeline(pipeline), "run") as keys:
            counts = {name: len(rows) for name, rows in world.brought.items()}
            keys.stage(counts, lambda contract: load_rows(warehouse, world.brought[contract.name]))
            for model in sorted(built(pipeline), key=lambda model: bool(model.dimensions)):
                found = touched(warehouse, keys, model)
                missed_nothing(model, world, found)
                if found is None or found:
                    reads_enough(warehouse, keys, model, world, found)
                if model.history and world.new_versions[model.name]:
                    keys.compare(model, load_rows(warehouse, world.new_versions[model.name]))


def missed_nothing(model: Definition, world: World, found: set[Any] | None) -> None:
    before = Joined(model, world, after=False).fingerprints()
    after = Joined(model, world, after=True).fingerprints()
    changed = {one for one in before.keys() | after.keys() if before.get(one) != after.get(one)}
    if found is not None:
        assert changed <= found, model.name


def reads_enough(
    warehouse: psycopg.Connection[Any], keys: AffectedKeys, model: Definition, world: World, found: Any
) -> None:
    """What a touched row is made of comes with the run or is read from the warehouse."""
    state = Joined(model, world, after=True)
    driver = table_of(model, model.driver)
    whole = [state.of(row) for row in state.rows(model.driver) if found is None or key(driver, row) in found]
    for name in model.inputs:
        read = warehouse.execute(keys.rows(model, name).encode())
        columns = [column.name for column in read.description or ()]
        rows = [dict(zip(columns, map(text, row), strict=True)) for row in read]
        if is_table(model, name):
            contract = table_of(model, name)
            brought = {key(contract, row) for row in world.brought[contract.name]}
            there = {key(contract, row) for row in rows} | brought
            assert all(key(contract, row) in there for joined in whole for row in joined[name]), (
                model.name,
                name,
            )
            # Of a row that the run brings, the older one must be seen too: it may be the newer one.
            old = {key(contract, row) for row in world.before[contract.name]} & brought
            assert old <= {key(contract, row) for row in rows}, (model.name, name)
        else:
            dimension = model if name == EXISTING else definition(str(model.joins[name].dimension))
            new = world.new_versions[dimension.name] if name != EXISTING else []
            there = {row[dimension.key[0]] for row in (*rows, *new)}
            needed = {row[dimension.key[0]] for joined in whole for row in joined[name]}
            assert needed <= there, (model.name, name)


def test_the_tables_of_keys_go_whatever_happens_and_no_others(warehouse: psycopg.Connection[Any]) -> None:
    def left() -> set[str]:
        rows = warehouse.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'staging'")
        return {name for (name,) in rows}

    pipeline = load_pipeline("pancake")
    longer = type(pipeline)(f"{pipeline.name}_eu", pipeline.sources, pipeline.models, pipeline.marts)
    nothing: dict[str, int] = {}
    with affected(warehouse, longer, "run") as other:
        other.stage(nothing, lambda _: load_rows(warehouse, []))
        theirs = left()
        assert theirs
        with pytest.raises(RuntimeError, match="killed"), affected(warehouse, pipeline, "a") as keys:
            keys.stage(nothing, lambda _: load_rows(warehouse, []))
            assert len(left()) == 2 * len(theirs)
            raise RuntimeError("killed")
        assert left() == theirs
        # What a killed run leaves behind, the next one of the same pipeline drops.
        killed = affected(warehouse, pipeline, "b")
        killed.__enter__().stage(nothing, lambda _: load_rows(warehouse, []))
        with affected(warehouse, pipeline, "c"):
            assert left() == theirs
    assert left() == set()


def found_by(
    warehouse: psycopg.Connection[Any],
    insert: Insert,
    model: str,
    *,
    before: dict[str, list[Row]],
    brought: dict[str, list[Row]],
    versions: dict[str, tuple[list[Row], list[Row]]] | None = None,
) -> set[Any]:
    """The keys of a model's rows that a run touches; versions before, and those that the run wrote."""
    for table, rows in before.items():
        insert(f"ods.{table}", rows)
    pipeline = load_pipeline(definition(model).pipeline)
    with affected(warehouse, pipeline, "run") as keys:
        counts = {name: len(rows) for name, rows in brought.items()}
        keys.stage(counts, lambda contract: load_rows(warehouse, brought[contract.name]))
        for dimension, (known, written) in (versions or {}).items():
            insert(f"dwh.{dimension}", known)
            keys.compare(definition(dimension), load_rows(warehouse, written))
        found = touched(warehouse, keys, definition(model))
        assert found is not None
        return {key for (key,) in found}


BY_DAY: dict[str, list[Row]] = {
    "orders": [{"id": "o", "customer_id": "c"}],
    "payments": [
        {"id": f"day {day}", "order_id": "o", "attempted_at": FIRST + timedelta(days=day)} for day in range(4)
    ],
}
"""An order of the customer c, with an attempt to pay it on each of four days."""


def by_versions(
    warehouse: psycopg.Connection[Any], insert: Insert, known: list[Row], written: list[Row]
) -> set[Any]:
    """The payments that a customer's versions touch: those that are known, and those that the run wrote."""
    versions = {"dim_customer": (known, written)}
    return found_by(warehouse, insert, "fact_payment", before=BY_DAY, brought={}, versions=versions)


def version(member: str, key: int, begins: int | None, ends: int | None) -> Row:
    """A version of a customer; days count from the first."""
    bounds = [FIRST + timedelta(days=day) if day is not None else None for day in (begins, ends)]
    return {
        "customer_id": member,
        "customer_key": key,
        "valid_from": bounds[0] or PAST,
        "valid_to": bounds[1] or FUTURE,
    }


def test_a_row_that_moved_touches_where_it_was_and_where_it_is(
    warehouse: psycopg.Connection[Any], insert: Insert
) -> None:
    customers = [{"id": name} for name in ("a", "b", "c")]
    before = {"customers": customers, "users": [{"id": "u", "customer_id": "a"}]}
    brought = {"users": [{"id": "u", "customer_id": "b"}]}
    assert found_by(warehouse, insert, "dim_customer", before=before, brought=brought) == {"a", "b"}


def test_a_parent_that_comes_late_touches_its_children(
    warehouse: psycopg.Connection[Any], insert: Insert
) -> None:
    before = {
        "payments": [{"id": "p", "order_id": "late"}, {"id": "q", "order_id": "other"}],
        "refunds": [{"id": "r", "payment_id": "p"}, {"id": "s", "payment_id": "q"}],
    }
    brought = {
        "orders": [{"id": "late", "customer_id": "c", "shipping_address_id": "a", "ordered_at": FIRST}]
    }
    assert found_by(warehouse, insert, "fact_refund", before=before, brought=brought) == {"r"}


def test_a_new_version_touches_what_happened_from_its_beginning_on(
    warehouse: psycopg.Connection[Any], insert: Insert
) -> None:
    known = [version("c", 1, None, None)]
    written = [version("c", 1, None, 2), version("c", 2, 2, None)]
    found = by_versions(warehouse, insert, known, written)
    assert found == {"day 2", "day 3"}


def test_versions_that_are_what_they_were_touch_nothing(
    warehouse: psycopg.Connection[Any], insert: Insert
) -> None:
    known = [version("c", 1, None, 2), version("c", 2, 2, None)]
    found = by_versions(warehouse, insert, known, known)
    assert found == set()


def test_a_version_that_gives_way_touches_what_it_was_in_force_for(
    warehouse: psycopg.Connection[Any], insert: Insert
) -> None:
    known = [version("c", 1, None, 1), version("c", 2, 1, 3), version("c", 3, 3, None)]
    written = [version("c", 1, None, 3), version("c", 3, 3, None)]
    found = by_versions(warehouse, insert, known, written)
    assert {"day 1", "day 2"} <= found <= {"day 1", "day 2", "day 3"}


@pytest.mark.parametrize(("there", "touched_ones"), [(True, set()), (False, {"now", "once"})])
def test_a_category_matters_where_it_was_not_there(
    warehouse: psycopg.Connection[Any], insert: Insert, there: bool, touched_ones: set[str]
) -> None:
    before = {
        "products": [
            {"id": "now", "category_id": "a"},
            {"id": "once", "category_id": "b"},
            {"id": "never", "category_id": "b"},
        ],
        "categories": [{"id": "a"}] if there else [],
    }
    insert(
        "dwh.dim_product",
        [{"product_id": "once", "category_id": "a"}, {"product_id": "never", "product_key": 2}],
    )
    brought = {"categories": [{"id": "a", "name": "Renamed"}]}
    assert found_by(warehouse, insert, "dim_product", before=before, brought=brought) == touched_ones


def test_a_deleted_row_that_comes_back_is_new(warehouse: psycopg.Connection[Any], insert: Insert) -> None:
    before = {
        "products": [{"id": "p", "category_id": "a"}],
        "categories": [{"id": "a", "_deleted_at": FIRST}],
    }
    brought = {"categories": [{"id": "a"}]}
    assert found_by(warehouse, insert, "dim_product", before=before, brought=brought) == {"p"}
