"""What ClickHouse gets of a definition, against what it has, and the statements between the two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from clickhouse_connect.driver.client import Client

from tallyhouse.contracts import Kind
from tallyhouse.models.definition import Definition, ModelColumn, ModelKind
from tallyhouse.models.drift import Change
from tallyhouse.models.load import all_definitions

_TYPES = {
    Kind.BOOLEAN: "Bool",
    Kind.SMALLINT: "Int16",
    Kind.INTEGER: "Int32",
    Kind.BIGINT: "Int64",
    Kind.DATE: "Date32",
    Kind.DOUBLE: "Float64",
    Kind.TIMESTAMP: "DateTime64(6, 'UTC')",
}
_COUNTS = {"ubigint": "UInt64", "usmallint": "UInt16"}
DATABASE = "dwh"
OWN_TABLES = ("etl_run", "etl_slots", "schema_version")
"""Tables and views in the star schema's database that hand-written migrations make."""
SLOTS = ("a", "b")
"""A model or mart is a view over two tables, `<name>__a` and `<name>__b`; the calendar is a table."""
SLOTS_SHOWN = f"(SELECT slots FROM {DATABASE}.etl_slots)"
"""Which of its tables each view shows. The same words in every view: the engine then asks once a query."""


@dataclass(frozen=True)
class Table:
    """A table as it should be, or as the server has it.

    Attributes:
        name: In the star schema's database.
        columns: Types by column, in order.
        order_by: The sorting key.
        partition_by: The partition's expression; empty for none.
        is_view: Whether it is a view over two tables of this shape.
    """

    name: str
    columns: dict[str, str]
    order_by: tuple[str, ...]
    partition_by: str
    is_view: bool = False

    @property
    def stored(self) -> tuple[str, ...]:
        """The tables that hold its rows."""
        return tuple(of_slot(self.name, slot) for slot in SLOTS) if self.is_view else (self.name,)


def tables() -> list[Table]:
    """Every table that definitions ask for: the star schema and the marts."""
    return [table(model) for model in all_definitions()]


def table(model: Definition) -> Table:
    """The table of a model or mart."""
    return Table(
        model.name,
        {name: type_of(column) for name, column in model.columns.items()},
        model.clickhouse.order_by,
        model.clickhouse.partition_by or "",
        is_view=model.kind is not ModelKind.CALENDAR,
    )


def of_slot(name: str, slot: str) -> str:
    """The name of one of the two tables of a view."""
    return f"{name}__{slot}"


def type_of(column: ModelColumn) -> str:
    """A column's type as ClickHouse spells it."""
    if column.type in _COUNTS:
        spelled = _COUNTS[column.type]
    else:
        parsed = column.column_type
        decimal = f"Decimal({parsed.precision}, {parsed.scale})"
        spelled = decimal if parsed.kind is Kind.DECIMAL else _TYPES.get(parsed.kind, "String")
    spelled = f"Nullable({spelled})" if column.nullable else spelled
    return f"LowCardinality({spelled})" if column.low_cardinality else spelled


def changes(client: Client) -> list[Change]:
    """How ClickHouse's star schema and marts differ from the definitions."""
    wanted = {table.name: table for table in tables()}
    found = _tables(client)
    models = {model.name: model for model in all_definitions()}
    found_changes: list[Change] = []
    for name, table in wanted.items():
        if any(one not in found for one in (name, *table.stored)):
            seeds = [one for stored in table.stored for one in _seed(models[name], stored)]
            made = [create(table, stored) for stored in table.stored]
            found_changes.append(Change(f"{name} is missing", (*made, *seeds, *_view(table))))
            continue
        differing: dict[str, Change] = {}
        for stored in table.stored:
            for change in _alter(table, stored, found[stored]):
                before = differing.get(change.what)
                statements = (before.statements if before else ()) + change.statements
                differing[change.what] = replace(change, statements=statements)
        if not differing and found[name].columns != table.columns:
            differing[""] = Change(f"the view {name} has other columns", ())
        if differing:
            last = differing.popitem()[1]
            found_changes += differing.values()
            found_changes.append(replace(last, statements=last.statements + _view(table)))
    stores = {one for table in wanted.values() for one in table.stored}
    for name in sorted(found.keys() - wanted.keys() - stores - {*OWN_TABLES}):
        if name.partition("__")[0] not in wanted:  # else a change that is going on
            statement = f"DROP TABLE IF EXISTS {DATABASE}.{name}"
            found_changes.append(Change(f"{name} is in no definition", (statement,), loses=True))
    return found_changes


def create(table: Table, name: str | None = None) -> str:
    """The statement that makes a table, under its own name or another one."""
    columns = ",\n".join(f"    {column} {type_}" for column, type_ in table.columns.items())
    key = table.order_by[0] if len(table.order_by) == 1 else f"({', '.join(table.order_by)})"
    lines = [
        f"CREATE TABLE IF NOT EXISTS {DATABASE}.{name or table.name} (\n{columns}\n)",
        "ENGINE = MergeTree",
        *([f"PARTITION BY {table.partition_by}"] if table.partition_by else []),
        f"ORDER BY {key}",
    ]
    if any("Nullable" in table.columns[column] for column in table.order_by):
        lines.append("SETTINGS allow_nullable_key = 1")
    return "\n".join(lines)


def _view(table: Table) -> tuple[str, ...]:
    """The statement that makes a view over its two tables."""
    if not table.is_view:
        return ()
    columns = ",\n".join(f"    {column}" for column in table.columns)
    seen = f"{SLOTS_SHOWN}['{table.name}']"
    first, second = (
        f"SELECT\n{columns}\nFROM {DATABASE}.{stored}\nWHERE {seen} {sign} '{SLOTS[1]}'"
        for stored, sign in zip(table.stored, ("!=", "="), strict=True)
    )
    return (f"CREATE OR REPLACE VIEW {DATABASE}.{table.name} AS\n{first}\nUNION ALL\n{second}",)


def _alter(wanted: Table, stored: str, found: Table) -> Iterator[Change]:
    name = f"{DATABASE}.{stored}"
    if (wanted.order_by, wanted.partition_by) != (found.order_by, found.partition_by):
        other = f"{stored}__rebuilt"
        columns = ", ".join(column for column in wanted.columns if column in found.columns)
        yield Change(
            f"{wanted.name} is sorted by {found.order_by}, parted by {found.partition_by or 'nothing'}",
            (
                f"DROP TABLE IF EXISTS {DATABASE}.{other}",
                create(wanted, other),
                f"INSERT INTO {DATABASE}.{other} ({columns})\nSELECT {columns} FROM {name}",
                f"EXCHANGE TABLES {DATABASE}.{other} AND {name}",
                f"DROP TABLE {DATABASE}.{other}",
            ),
        )
        return
    before = None
    for column, type_ in wanted.columns.items():
        place = f"AFTER {before}" if before else "FIRST"
        before = column
        if column not in found.columns:
            statement = f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {column} {type_} {place}"
            yield Change(f"{wanted.name}.{column} is missing", (statement,))
        elif found.columns[column] != type_:
            statement = f"ALTER TABLE {name} MODIFY COLUMN {column} {type_}"
            yield Change(f"{wanted.name}.{column} is {found.columns[column]}, not {type_}", (statement,))
    for column in sorted(found.columns.keys() - wanted.columns.keys()):
        statement = f"ALTER TABLE {name} DROP COLUMN IF EXISTS {column}"
        yield Change(f"{wanted.name}.{column} is in no definition", (statement,), loses=True)


def _tables(client: Client) -> dict[str, Table]:
    columns: dict[str, dict[str, str]] = {}
    for table, name, type_ in client.query(
        "SELECT table, name, type FROM system.columns WHERE database = {database:String} "
        "ORDER BY table, position",
        parameters={"database": DATABASE},
    ).result_rows:
        columns.setdefault(table, {})[name] = type_
    return {
        name: Table(name, columns.get(name, {}), tuple(key.split(", ")), partition)
        for name, key, partition in client.query(
            "SELECT name, sorting_key, partition_key FROM system.tables WHERE database = {database:String}",
            parameters={"database": DATABASE},
        ).result_rows
    }


def _seed(model: Definition, stored: str) -> tuple[str, ...]:
    if model.kind is not ModelKind.DIMENSION:
        return ()
    values = ",\n".join(
        f"    {_literal(value, type_of(model.columns[name]))} AS {name}"
        for name, value in model.unknown_member.items()
    )
    key = model.key[0]
    table = f"{DATABASE}.{stored}"
    return (f"INSERT INTO {table}\nSELECT\n{values}\nWHERE -1 NOT IN (SELECT {key} FROM {table})",)


def _literal(value: Any, type_: str) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int):
        return str(value)
    text = "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
    if "DateTime64" in type_:
        return f"toDateTime64({text.replace('+00', '')}, 6, 'UTC')"
    return text
