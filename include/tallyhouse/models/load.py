"""Reads the models' definitions, and holds them to the contracts of the tables that they name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from tallyhouse.contracts import TableContract, load_source
from tallyhouse.contracts.load import PIPELINES, REPOSITORY, load_pipeline, model_files
from tallyhouse.contracts.model import IDENTIFIER
from tallyhouse.models.definition import EXISTING, Definition, ModelKind, nearest

SHARED = "shared"
"""The folder of what no pipeline builds and every one may point at: the calendar."""


@cache
def definition(name: str) -> Definition:
    """The definition of a model or mart.

    Args:
        name: Such as `fact_order_line`.

    Raises:
        ValueError: There is none, or it contradicts itself or the contracts; the message names its file.
    """
    files = model_files()
    if name not in files:
        raise ValueError(f"there is no model {name!r}{nearest(name, files)}; definitions are in {PIPELINES}")
    path = files[name]
    found = _parse(path)
    for problem in _problems(found):
        raise ValueError(f"{path.relative_to(REPOSITORY)}: {problem}")
    return found


def definitions(pipeline: str) -> tuple[Definition, ...]:
    """The models of a pipeline in the order in which they are built, and its marts."""
    contract = load_pipeline(pipeline)
    return tuple(definition(name) for name in (*contract.models, *contract.marts))


@cache
def all_definitions() -> tuple[Definition, ...]:
    """Every definition there is: the calendar, then each pipeline's in the order of building."""
    shared = tuple(definition(name) for name, path in model_files().items() if path.parent.name == SHARED)
    return (*shared, *(one for name in warehouse_pipelines() for one in definitions(name)))


def warehouse_pipelines() -> tuple[str, ...]:
    """Names of the pipelines whose tables go to the warehouse: those of databases."""
    found = sorted(path.parent.name for path in PIPELINES.glob("*/pipeline.yaml"))
    return tuple(
        name for name in found if any(source.engine != "objects" for source in load_pipeline(name).sources)
    )


@cache
def tables(pipeline: str) -> dict[str, TableContract]:
    """The contracts of a pipeline's tables, by their names alone: these differ."""
    return {table.name: table for table in load_pipeline(pipeline).tables}


def own_key(model: Definition) -> tuple[str, ...]:
    """The columns of a model that hold the key of the source row that it has a row of."""
    return (model.natural_key,) if model.natural_key else model.key


def table_of(model: Definition, name: str) -> TableContract:
    """The contract of the table of an input that is a table."""
    join = model.joins.get(name)
    return tables(model.pipeline)[(join.table if join else None) or name]


@cache
def column_origins(name: str) -> dict[str, tuple[str, ...]]:
    """What each column of a model or mart is made of.

    Returns:
        By column, in order: columns such as `orders.customers.email` for a model, such as
        `fact_order_line.line_total` for a mart; none where it is made of nothing, as a count is.

    Raises:
        ValueError: There is no such model.
    """
    model = definition(name)
    if not model.is_built:
        return {column: one.of for column, one in model.columns.items()}
    return {
        column: tuple(sorted({origin for one in content.of for origin in _origins(model, one)}))
        for column, content in model.columns.items()
    }


def _origins(model: Definition, reference: str) -> tuple[str, ...]:
    """The source columns of an input's column; those of a dimension are what it is made of itself."""
    name, _, column = reference.partition(".")
    if name == EXISTING:
        return ()
    join = model.joins.get(name)
    if join and join.dimension:
        return column_origins(join.dimension)[column]
    return (f"{table_of(model, name).qualified_name}.{column}",)


def _parse(path: Path) -> Definition:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    where = path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path
    if not isinstance(content, dict):
        raise ValueError(f"{where}: holds no keys; see its neighbours")
    try:
        return Definition.model_validate(content | {"name": path.stem, "pipeline": path.parent.name})
    except ValidationError as error:
        said = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'definition'}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        )
        raise ValueError(f"{where}: {said}") from error


def _problems(model: Definition) -> Iterator[str]:
    """What a definition says that the contracts and the other definitions do not bear out."""
    if not IDENTIFIER.match(model.name):
        yield f"{model.name!r} is no name for a table; use lower-case letters, digits and _, 38 at most"
    for name, column in model.columns.items():
        if not IDENTIFIER.match(name):
            yield f"column {name!r} is no plain lower-case identifier"
        if (member := column.member_of) and member not in model_files():
            yield f"column {name}: no dimension {member!r}{nearest(member, model_files())}"
    if model.kind is ModelKind.MART:
        yield from _problems_of_mart(model)
    if model.is_built:
        yield from _problems_of_inputs(model)


def _problems_of_mart(model: Definition) -> Iterator[str]:
    columns = {}
    for name in model.models:
        if name not in model_files():
            yield f"models: no model {name!r}{nearest(name, model_files())}"
            return
        columns[name] = definition(name).columns
    for column, content in model.columns.items():
        for reference in content.of:
            name, _, source = reference.partition(".")
            if source not in columns.get(name, {}):
                yield f"column {column}: {reference!r} is no column of its models"
    if model.totals and model.totals.of not in model.models:
        yield f"totals.of: {model.totals.of!r} is not one of its models"


def _problems_of_inputs(model: Definition) -> Iterator[str]:
    known = tables(model.pipeline)
    if model.driver not in known:
        yield f"rows_of: no table {model.driver!r} in this pipeline{nearest(model.driver, known)}"
        return
    if model.kind is ModelKind.DIMENSION and len(known[model.driver].key) != 1:
        yield f"rows_of: a dimension is of a table with one key column; {model.driver} has several"
    columns = {model.driver: known[model.driver].column_names}
    if model.history:
        columns[EXISTING] = tuple(model.columns)
    for name, join in model.joins.items():
        found = _columns_of(model, name)
        if found is None:
            yield f"join {name}: no {'dimension' if join.dimension else 'table'} of this name in the pipeline"
            return
        columns[name] = found
        if join.dimension:
            other = definition(join.dimension)
            if set(join.match) != {other.natural_key}:
                yield f"join {name}: match {other.name} by its natural key, {other.natural_key}"
            if other.history and not join.at:
                yield f"join {name}: {other.name} has versions; say the time that picks one (`at`)"
        for column in join.taken:
            if column not in found:
                yield f"join {name}: it has no column {column!r}{nearest(column, found)}"
    yield from _problems_of_references(model, columns)


def _columns_of(model: Definition, name: str) -> tuple[str, ...] | None:
    """The columns of what a join names; None where there is no such table or dimension."""
    join = model.joins[name]
    if join.dimension:
        there = join.dimension in load_pipeline(model.pipeline).models
        return tuple(definition(join.dimension).columns) if there else None
    contract = tables(model.pipeline).get(join.table or name)
    return contract.column_names if contract else None


def _problems_of_references(model: Definition, columns: dict[str, tuple[str, ...]]) -> Iterator[str]:
    references = [(f"column {n}", one) for n, c in model.columns.items() for one in c.of]
    for name, join in model.joins.items():
        ends = [one for many in join.match.values() for one in many]
        references += [(f"join {name}", one) for one in (*ends, *filter(None, (join.at,)))]
    for where, reference in references:
        name, _, column = reference.partition(".")
        if column not in columns[name]:
            yield f"{where}: {name} has no column {column!r}{nearest(column, columns[name])}"
    yield from _not_taken(model)


def _not_taken(model: Definition) -> Iterator[str]:
    """Columns that the model is said to be made of without taking them."""
    for name, column in model.columns.items():
        for reference in column.of:
            source, _, taken = reference.partition(".")
            join = model.joins.get(source)
            if join and taken not in join.taken:
                yield f"column {name}: {reference!r} is not among the `columns` of its join"


def source_tables() -> dict[str, TableContract]:
    """Every table that goes to `ods`, by name, pipeline by pipeline."""
    return {
        table.name: table
        for pipeline in warehouse_pipelines()
        for source in load_pipeline(pipeline).sources
        for table in load_source(source.name).tables
    }
