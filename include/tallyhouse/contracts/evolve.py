"""Contracts that follow their source: columns that a run added or widened beyond what is written down.

A batch's manifest carries them from run to run, until the DBML has them itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tallyhouse.contracts.model import Column, PipelineContract, TableContract
from tallyhouse.contracts.types import ColumnType, Kind

_WHOLE = (Kind.SMALLINT, Kind.INTEGER, Kind.BIGINT)


def holds(wide: ColumnType, narrow: ColumnType) -> bool:
    """Whether one type holds every value of another one, as the same kind of thing."""
    if wide.kind in _WHOLE and narrow.kind in _WHOLE:
        return _WHOLE.index(wide.kind) >= _WHOLE.index(narrow.kind)
    if wide.kind in (Kind.TEXT, Kind.JSON):
        # MariaDB's JSON is a LONGTEXT.
        return narrow.kind.is_text
    if wide.kind is Kind.VARCHAR and narrow.kind in (Kind.CHAR, Kind.VARCHAR):
        return (wide.length or 0) >= (narrow.length or 0)
    if wide.kind is not narrow.kind:
        return False
    if wide.kind is Kind.DECIMAL:
        before_point = [(one.precision or 0) - (one.scale or 0) for one in (wide, narrow)]
        return before_point[0] >= before_point[1] and (wide.scale or 0) >= (narrow.scale or 0)
    return (wide.length or 0) >= (narrow.length or 0)


def evolved_table(
    contract: TableContract, engine: str, evolved: Iterable[Mapping[str, Any]]
) -> TableContract:
    """A table's contract with what was added or widened.

    Args:
        contract: As it is written.
        engine: The source's.
        evolved: Columns by `name` and `type`, in the source's words.
    """
    columns = {column.name: column for column in contract.columns}
    for one in evolved:
        name, type_ = one["name"], ColumnType.parse(one["type"], engine)
        written = columns.get(name)
        if written is None:
            # Rows that were taken before have none.
            columns[name] = Column(name, type_, nullable=True)
        elif not holds(written.type, type_):
            columns[name] = replace(written, type=type_)
    # What is made of the source's columns stays last.
    ordered = sorted(columns.values(), key=lambda column: column.made is not None)
    return replace(contract, columns=tuple(ordered))


def evolved(
    pipeline: PipelineContract, by_table: Mapping[str, Iterable[Mapping[str, Any]]]
) -> PipelineContract:
    """A pipeline's contract with what was added or widened, by the table's qualified name."""
    sources = tuple(
        replace(
            source,
            tables=tuple(
                evolved_table(table, source.engine, by_table[table.qualified_name])
                if by_table.get(table.qualified_name)
                else table
                for table in source.tables
            ),
        )
        for source in pipeline.sources
    )
    return replace(pipeline, sources=sources)
