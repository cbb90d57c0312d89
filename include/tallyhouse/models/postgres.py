"""What PostgreSQL gets of a definition: tables, the merge of an increment, reconciliation checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tallyhouse.contracts import TableContract
from tallyhouse.models.definition import (
    BUSINESS_ZONE,
    EXISTING,
    UNKNOWN_KEY,
    Definition,
    ModelColumn,
    ModelKind,
)
from tallyhouse.models.load import all_definitions, definition, source_tables, table_of
from tallyhouse.models.paths import is_single, key_of
from tallyhouse.publish import sql as statements

NO_GROUP = "none"
"""What stands for NULL in the measure of a line of the ledger, such as `quantity none`."""


@dataclass(frozen=True)
class Column:
    """A column of a table, in PostgreSQL's words."""

    name: str
    type: str
    nullable: bool
    comment: str = ""


@dataclass(frozen=True)
class Index:
    """An index beside the primary key."""

    columns: tuple[str, ...]
    unique: bool = False


@dataclass(frozen=True)
class Table:
    """A table as it should be, or as the database has it."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    indexes: dict[str, Index] = field(default_factory=dict)
    comment: str = ""

    @property
    def qualified_name(self) -> str:
        """Such as `dwh.fact_payment`."""
        return f"{self.schema}.{self.name}"


def tables() -> list[Table]:
    """Every table of `dwh` and `ods` that definitions and contracts ask for."""
    models = [model_table(model) for model in all_definitions() if model.kind is not ModelKind.MART]
    return [*models, *(ods_table(contract) for contract in source_tables().values())]


def model_table(model: Definition) -> Table:
    """The table of a dimension, a fact or the calendar."""
    columns = tuple(
        Column(name, column.column_type.postgres, column.nullable, column.description)
        for name, column in model.columns.items()
    )
    short = f"{model.name}_id"
    indexes = {f"ix_{model.name}_{column}": Index((column,)) for column in model.indexes}
    if model.history:
        indexes[f"ix_{short}"] = Index((str(model.natural_key), "valid_from"))
    elif model.natural_key:
        indexes[f"ux_{short}"] = Index((model.natural_key,), unique=True)
    return Table("dwh", model.name, columns, model.key, indexes, model.description)


def ods_table(contract: TableContract) -> Table:
    """The current state of a source table; indexes on the columns by which models find its rows."""
    columns = [Column(one.name, one.type.postgres, one.nullable) for one in contract.columns]
    technical = [
        Column("_snapshot", "timestamp with time zone", False),
        Column("_run", "text", False),
        Column("_deleted_at", "timestamp with time zone", True),
    ]
    indexes = {f"ix_ods_{contract.name}_{name}": Index((name,)) for name in _looked_up(contract)}
    comment = f"Current state of {contract.qualified_name}"
    return Table("ods", contract.name, (*columns, *technical), contract.key, indexes, comment)


def _looked_up(contract: TableContract) -> list[str]:
    """The columns of a table that joins go through, on either side; its key has an index already."""
    found: set[str] = set()
    for model in all_definitions():
        inputs = {name: table_of(model, name).qualified_name for name in _table_inputs(model)}
        for name, join in model.joins.items():
            if inputs.get(name) == contract.qualified_name:
                found |= set(join.match)
            for reference in (one for many in join.match.values() for one in many):
                source, _, column = reference.partition(".")
                if inputs.get(source) == contract.qualified_name:
                    found.add(column)
    first = contract.key[:1]  # the primary key serves its leading column
    return [one.name for one in contract.columns if one.name in found and (one.name,) != first]


def _table_inputs(model: Definition) -> list[str]:
    if not model.is_built:
        return []
    return [
        name
        for name in model.inputs
        if name != EXISTING and not (name in model.joins and model.joins[name].dimension)
    ]


def merge(model: Definition, staging: str, *, bare: bool = False) -> str:
    """The statement that brings an increment into the model's table.

    Args:
        model: The model.
        staging: The quoted name of the table that holds the increment.
        bare: Whether the table is empty and has no key to go by.
    """
    return statements.render(
        "dwh/models/merge.sql",
        staging=staging,
        table=model.name,
        key=model.key,
        columns=tuple(model.columns),
        bare=bare,
    )


def checks(model: Definition, touched: str | None = None) -> list[str]:
    """The statements that reconcile a model with `ods`.

    What every model has to keep is derived; what is about this one alone stands in
    `sql/dwh/models/<model>/checks.sql`, where there is anything.

    Args:
        model: The model.
        touched: A table with keys of the table that the model has rows of; only these are looked at, but for
            a check of the model's own that does not name it. None for all.

    Returns:
        Statements that answer (measure, left_value, right_value); a check holds where both agree.
    """
    driver_key = table_of(model, model.driver).key

    def among(columns: Iterable[str], alias: str | None = None) -> str:
        if touched is None:
            return ""
        named = (f'"{alias}"."{column}"' if alias else f'"{column}"' for column in columns)
        keys = ", ".join(f'"{column}"' for column in driver_key)
        return f" AND ({', '.join(named)}) IN (SELECT {keys} FROM {touched})"

    found = [statements.render("dwh/models/checks.sql", touched=among, **_checks_context(model))]
    if model.history:
        found.append(
            statements.render(
                "dwh/models/versions.sql",
                table=model.name,
                natural_key=model.natural_key,
                surrogate_key=model.key[0],
                touched=among,
            )
        )
    own = f"dwh/models/{model.name}/checks.sql"
    return [*found, statements.render(own, touched=among)] if statements.exists(own) else found


def differing_rows(model: Definition, named: str) -> str:
    """The query of rows that break the checks that every model has: key, how, by how many rows.

    Args:
        model: The model.
        named: What names a row of the driving table in messages, as SQL.
    """
    context = _checks_context(model)
    return statements.render("dwh/models/differing.sql", surrogate_key=model.key[0], named=named, **context)


def _checks_context(model: Definition) -> dict[str, Any]:
    driver = table_of(model, model.driver)
    own_key = [model.natural_key] if model.kind is ModelKind.DIMENSION else list(model.key)
    measures = model.measures
    summed = {}
    by = None
    for name in measures.sum if measures else ():
        if (expected := _expected(model, name, model.columns[name])) is not None:
            summed[name] = expected
    if measures and measures.by:
        by = _expected(model, measures.by, model.columns[measures.by])
    wrong = {}
    attributes = {}
    for name, column in model.columns.items():
        if column.member_of or _dimension_of(model, column):
            if (resolved := _resolved(model, name, column)) is not None:
                wrong[f"wrong {name}"] = resolved
        elif (expected := _expected(model, name, column)) is not None and name not in own_key:
            attributes[name] = expected
    current = ' AND model."is_current"' if model.history else ""
    return {
        "table": model.name,
        "driver": model.driver,
        "driver_table": driver.name,
        "driver_key": list(zip(own_key, driver.key, strict=True)),
        "members": f'model."{model.key[0]}" != {UNKNOWN_KEY}{current}' if own_key != [*model.key] else None,
        "rows_measure": "current versions" if model.history else "rows",
        "joins": list(_joins(model)),
        "by": by,
        "by_column": measures.by if measures else None,
        "no_group": NO_GROUP,
        "sums": summed,
        "keys": wrong,
        "attributes": attributes,
    }


def _expected(model: Definition, name: str, column: ModelColumn) -> str | None:
    """What a column that is a copy of another one must be, as SQL over the joined rows of `ods`."""
    if len(column.of) != 1 or column.computed or name in model.key:
        return None
    source, _, origin = column.of[0].partition(".")
    join = model.joins.get(source)
    if source == EXISTING or (join and join.dimension) or not is_single(model, source):
        return None
    value = f'"{source}"."{origin}"'
    return business_day(value) if column.business_day else value


def business_day(value: str) -> str:
    """The calendar day of a time, in the business zone."""
    return f"({value} AT TIME ZONE '{BUSINESS_ZONE}')::DATE"


def _dimension_of(model: Definition, column: ModelColumn) -> str | None:
    """The input that is a dimension, where the column is one of its columns."""
    if len(column.of) != 1:
        return None
    source = column.of[0].partition(".")[0]
    join = model.joins.get(source)
    return source if join and join.dimension else None


def _resolved(model: Definition, name: str, column: ModelColumn) -> str | None:
    """The key that a fact's column must hold, as SQL over the joined rows."""
    if source := _dimension_of(model, column):
        return f'coalesce("{source}"."{column.of[0].partition(".")[2]}", {UNKNOWN_KEY})'
    if not is_single(model, column.of[0].partition(".")[0]):
        return None
    alias = f"member of {name}"
    return f'coalesce("{alias}"."{definition(str(column.member_of)).key[0]}", {UNKNOWN_KEY})'


def _joins(model: Definition) -> Iterator[str]:
    """LEFT JOINs of everything that a row of the model has at most one of."""
    for name, join in model.joins.items():
        if not is_single(model, name):
            continue
        where = [f'"{name}"."{column}" = {_current(references)}' for column, references in join.match.items()]
        if join.at:
            where += [
                f'{_quoted(join.at)} >= "{name}"."valid_from"',
                f'{_quoted(join.at)} < "{name}"."valid_to"',
            ]
        if not join.dimension:
            where.append(f'"{name}"._deleted_at IS NULL')
        table = f'dwh."{join.dimension}"' if join.dimension else f'ods."{table_of(model, name).name}"'
        yield f'LEFT JOIN {table} AS "{name}" ON {" AND ".join(where)}'
    for name, column in model.columns.items():
        if column.member_of and is_single(model, column.of[0].partition(".")[0]):
            member = definition(column.member_of)
            other = "date" if member.kind is ModelKind.CALENDAR else member.natural_key
            alias = f"member of {name}"
            yield (
                f'LEFT JOIN dwh."{member.name}" AS "{alias}" '
                f'ON "{alias}"."{other}" = {_member_value(model, column, member)}'
            )


def _member_value(model: Definition, column: ModelColumn, member: Definition) -> str:
    """What names the member: the column that the joined table's key equals, so that it may be missing."""
    source, _, origin = column.of[0].partition(".")
    if member.kind is ModelKind.CALENDAR:
        return business_day(_quoted(column.of[0]))
    join = model.joins.get(source)
    if join and origin in join.match and key_of(model, source) == (origin,):
        return _current(join.match[origin])
    return _quoted(column.of[0])


def _current(references: tuple[str, ...]) -> str:
    """Of the columns that a join may go by: that of the current rows."""
    return _quoted(next(one for one in references if not one.startswith(f"{EXISTING}.")))


def _quoted(reference: str) -> str:
    source, _, column = reference.partition(".")
    return f'"{source}"."{column}"'
