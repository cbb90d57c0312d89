"""What each task of a run reads and writes, table by table and column by column, from the contracts.

Columns that are carried over keep their names; those of models and marts are put together, of what their
definitions (`include/pipelines/<pipeline>/<model>.yaml`) say. What a run reads back of its own earlier runs
is not named: it came the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tallyhouse.contracts import PipelineContract, SourceContract, TableContract
from tallyhouse.models import column_origins

IDENTITY, TRANSFORMATION, AGGREGATION = "IDENTITY", "TRANSFORMATION", "AGGREGATION"
"""How a column comes of another one, in OpenLineage's words."""


@dataclass(frozen=True)
class Place:
    """A data set's name in OpenLineage's naming: a store, and what it is called there."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Origin:
    """A column that another one is made of."""

    place: Place
    column: str


@dataclass(frozen=True)
class Dataset:
    """A data set with its columns and, where a task writes it, what each is made of.

    Attributes:
        place: Its name.
        columns: Its columns, in order.
        origins: By column.
        how: `IDENTITY`, `TRANSFORMATION` or `AGGREGATION`.
    """

    place: Place
    columns: tuple[str, ...]
    origins: Mapping[str, tuple[Origin, ...]] = field(default_factory=dict)
    how: str = IDENTITY


@dataclass(frozen=True)
class TaskLineage:
    """What a task reads and writes."""

    inputs: tuple[Dataset, ...] = ()
    outputs: tuple[Dataset, ...] = ()


@dataclass(frozen=True)
class Stores:
    """The stores' namespaces, and the database where a name needs one.

    Attributes:
        lake: Such as `s3://lake`.
        warehouse: Such as `postgres://127.0.0.1:5432`.
        warehouse_db: Such as `dwh_db`.
        target: Such as `clickhouse://127.0.0.1:8123`.
        target_db: Such as `dwh`.
    """

    lake: str = ""
    warehouse: str = ""
    warehouse_db: str = ""
    target: str = ""
    target_db: str = ""

    def raw(self, table: TableContract) -> Place:
        """A table's raw batches."""
        return Place(self.lake, f"raw/{table.source}/{table.name}")

    def accepted(self, table: TableContract) -> Place:
        """A table's accepted rows."""
        return Place(self.lake, f"accepted/{table.source}/{table.name}")

    def increment(self, model: str) -> Place:
        """A model's increments."""
        return Place(self.lake, f"increment/{model}")

    def ods(self, table: TableContract) -> Place:
        """A table's mirror in the warehouse."""
        return Place(self.warehouse, f"{self.warehouse_db}.ods.{table.name}")

    def model(self, model: str) -> Place:
        """A model in the warehouse."""
        return Place(self.warehouse, f"{self.warehouse_db}.dwh.{model}")

    def shown(self, model: str) -> Place:
        """A model or mart in a target."""
        return Place(self.target, f"{self.target_db}.{model}")


def extraction(
    source: SourceContract, tables: Iterable[TableContract], store: str, database: str, stores: Stores
) -> TaskLineage:
    """A source's tables into raw.

    Args:
        source: The source.
        tables: Those that are taken.
        store: The source's namespace, such as `mysql://127.0.0.1:3306`.
        database: Its database.
        stores: The others.
    """
    found = [_of_source(source, table, store, database) for table in tables]
    written = [_taken(here, table, stores.raw(table)) for here, table in zip(found, tables, strict=True)]
    return TaskLineage(tuple(found), tuple(written))


def _of_source(source: SourceContract, table: TableContract, store: str, database: str) -> Dataset:
    """A table where it comes from, by the names that it has there."""
    schema = f"{database}.{table.schema}" if source.engine == "postgres" else database
    place = Place(store, source.files.get(table.name) or f"{schema}.{table.in_source}")
    return Dataset(place, tuple(column.in_source for column in table.source_columns))


def _taken(here: Dataset, table: TableContract, there: Place) -> Dataset:
    """A table's raw batch: each column by the contract's name, of the source's column."""
    origins = {
        column.name: (Origin(here.place, column.in_source),)
        for column in table.columns
        if column.in_source in here.columns
    }
    return Dataset(there, table.column_names, origins)


def check(pipeline: PipelineContract, stores: Stores) -> TaskLineage:
    """The gate reads raw and writes no data."""
    return TaskLineage(tuple(_table(table, stores.raw(table)) for table in pipeline.tables))


def transform(pipeline: PipelineContract, stores: Stores) -> TaskLineage:
    """Raw into accepted rows, and into the models' increments."""
    raw = {table.qualified_name: _table(table, stores.raw(table)) for table in pipeline.tables}
    accepted = [_carried(raw[table.qualified_name], stores.accepted(table)) for table in pipeline.tables]
    places = {name: found.place for name, found in raw.items()}
    increments = [_made(model, stores.increment(model), places, TRANSFORMATION) for model in pipeline.models]
    return TaskLineage(tuple(raw.values()), (*accepted, *increments))


def curation(pipeline: PipelineContract, bucket: str) -> TaskLineage:
    """Raw objects of events into curated Parquet.

    Args:
        pipeline: That of the events.
        bucket: The namespace of theirs, such as `s3://raw-data`.
    """
    raw = [_table(table, Place(bucket, "raw")) for table in pipeline.tables]
    return TaskLineage(tuple(raw), tuple(_carried(found, Place(bucket, "curated")) for found in raw))


def publish(pipeline: PipelineContract, stores: Stores) -> TaskLineage:
    """Accepted rows into `ods`, increments into the star schema."""
    accepted = [_table(table, stores.accepted(table)) for table in pipeline.tables]
    increments = [_model(model, stores.increment(model)) for model in pipeline.models]
    return TaskLineage(
        (*accepted, *increments),
        (
            *(_carried(a, stores.ods(t)) for a, t in zip(accepted, pipeline.tables, strict=True)),
            *(_carried(i, stores.model(m)) for i, m in zip(increments, pipeline.models, strict=True)),
        ),
    )


def show(pipeline: PipelineContract, stores: Stores) -> TaskLineage:
    """Increments into a target, and its models into its marts."""
    increments = [_model(model, stores.increment(model)) for model in pipeline.models]
    models = {model: stores.shown(model) for model in pipeline.models}
    return TaskLineage(
        tuple(increments),
        (
            *(_carried(i, models[m]) for i, m in zip(increments, pipeline.models, strict=True)),
            *(_made(mart, stores.shown(mart), models, AGGREGATION) for mart in pipeline.marts),
        ),
    )


def _table(table: TableContract, place: Place) -> Dataset:
    return Dataset(place, table.column_names)


def _model(model: str, place: Place) -> Dataset:
    return Dataset(place, tuple(column_origins(model)))


def _carried(here: Dataset, there: Place) -> Dataset:
    """The same columns in another place."""
    origins = {column: (Origin(here.place, column),) for column in here.columns}
    return Dataset(there, here.columns, origins)


def _made(model: str, place: Place, places: Mapping[str, Place], how: str) -> Dataset:
    """A model or mart, of the columns that its definition names."""
    origins = {}
    for column, names in column_origins(model).items():
        split = [name.rpartition(".") for name in names]
        origins[column] = tuple(Origin(places[table], source) for table, _, source in split)
    return Dataset(place, tuple(origins), origins, how)
