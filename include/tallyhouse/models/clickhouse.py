"""What ClickHouse gets of a definition: tables, the mart's totals."""

from __future__ import annotations

from dataclasses import dataclass

from tallyhouse.contracts import Kind
from tallyhouse.models.definition import COUNTS, Definition, ModelColumn
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
DATABASE = "dwh"


@dataclass(frozen=True)
class Table:
    """A table as it should be, or as the server has it.

    Attributes:
        name: In the star schema's database.
        columns: Types by column, in order.
        order_by: The sorting key.
        partition_by: The partition's expression; empty for none.
    """

    name: str
    columns: dict[str, str]
    order_by: tuple[str, ...]
    partition_by: str


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
    )


def type_of(column: ModelColumn) -> str:
    """A column's type as ClickHouse spells it."""
    if column.type in COUNTS:
        spelled = COUNTS[column.type]
    else:
        parsed = column.column_type
        decimal = f"Decimal({parsed.precision}, {parsed.scale})"
        spelled = decimal if parsed.kind is Kind.DECIMAL else _TYPES.get(parsed.kind, "String")
    spelled = f"Nullable({spelled})" if column.nullable else spelled
    return f"LowCardinality({spelled})" if column.low_cardinality else spelled


def totals(mart: Definition) -> tuple[str, str]:
    """Two queries whose rows must be the same: over the model that a mart adds up, and over the mart.

    Returns:
        Each answers the group's values, then the sums, as text, in the definition's order.
    """
    said = mart.totals
    assert said is not None  # noqa: S101 - the caller asks only those that have totals
    rows = {said.rows: "count()"} if said.rows else {}
    expected = {**rows, **said.sums}
    groups = [f"ifNull(toString({one}), '') AS g{number}" for number, one in enumerate(said.by.values())]
    left = [f"toString({one}) AS s{number}" for number, one in enumerate(expected.values())]
    mine = [f"ifNull(toString(`{one}`), '') AS g{number}" for number, one in enumerate(said.by)]
    right = [f"toString(sum(`{one}`)) AS s{number}" for number, one in enumerate(expected)]
    where = f" WHERE {said.where}" if said.where else ""
    by = ", ".join(f"g{number}" for number in range(len(groups)))
    group = f" GROUP BY {by}" if by else ""
    return (
        f"SELECT {', '.join([*groups, *left])} FROM {DATABASE}.`{said.of}`{where}{group}",
        f"SELECT {', '.join([*mine, *right])} FROM {DATABASE}.`{mart.name}`{group}",
    )
