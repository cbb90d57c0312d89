"""Builds the increments of a pipeline's models, as their definitions say: dimensions, then facts.

A model's function gets, by name, the current rows of each input that its definition declares, and of each
only the columns that the definition takes: what the run brings, and of the warehouse what the run's changed
rows touch (`tallyhouse.models.affected`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs.accepted import schema_of
from spark_jobs.job_lake import JobLake
from spark_jobs.models.common import conform, fields_of, newest_of
from spark_jobs.warehouse import Warehouse
from tallyhouse.contracts import PipelineContract, TableContract
from tallyhouse.models import Definition, definition, definitions
from tallyhouse.models.affected import AffectedKeys, Deleted, Load, affected
from tallyhouse.models.definition import EXISTING
from tallyhouse.models.load import table_of
from tallyhouse.publish import staging

log = logging.getLogger(__name__)

# Jobs of small tables leave a core idle while they plan and commit; more at once only wait.
THREADS = 4


def build_models(
    spark: SparkSession,
    lake: JobLake,
    pipeline: PipelineContract,
    run_id: str,
    rows: Mapping[str, int],
    deleted: Mapping[str, Deleted] | None = None,
) -> dict[str, int]:
    """Writes the increment of every model that the run touches.

    Args:
        spark: The session.
        lake: Where accepted rows are, and where increments go.
        pipeline: Whose models.
        run_id: The run.
        rows: Accepted rows of the run, by table.
        deleted: Keys of rows that the source no longer has, by table.

    Returns:
        Rows written, by model; a second call replaces what the first one wrote.
    """
    warehouse = Warehouse.from_environment()
    with _keys(warehouse, pipeline, run_id) as keys:
        run = Increments(spark, lake, pipeline, run_id, rows, warehouse, keys)
        if keys:
            keys.stage(dict(rows), run.load_accepted, deleted)
        for level in levels(pipeline.name):
            run.written |= dict(
                zip((model.name for model in level), in_parallel(run.write, level), strict=True)
            )
            for model in level:
                if keys and run.written[model.name]:
                    keys.compare(model, run.load_increment(model.name))
    return run.written


@contextmanager
def _keys(warehouse: Warehouse, pipeline: PipelineContract, run_id: str) -> Iterator[AffectedKeys | None]:
    """The affected keys of the run; None where `ods` is empty: then the run brings all there is."""
    if not warehouse.filled(pipeline.tables):
        yield None
        return
    with warehouse.connect() as connection, affected(connection, pipeline, run_id) as keys:
        yield keys


def levels(pipeline: str) -> list[list[Definition]]:
    """The models in steps: those of a step need dimensions of earlier steps only."""
    steps: dict[str, int] = {}
    for model in definitions(pipeline):  # each after the dimensions that it joins
        if model.is_built:
            steps[model.name] = 1 + max((steps[name] for name in model.dimensions), default=-1)
    return [
        [definition(name) for name, step in steps.items() if step == number]
        for number in range(max(steps.values(), default=-1) + 1)
    ]


@dataclass
class Increments:
    """What the models of one run are built of, and where they go.

    Attributes:
        spark: The session.
        lake: Where accepted rows are, and where increments go.
        pipeline: Whose models.
        run_id: The run.
        rows: Accepted rows of the run, by table.
        warehouse: Where earlier runs' rows are.
        keys: The affected keys; None while the warehouse is empty.
        written: Rows written, by model.
    """

    spark: SparkSession
    lake: JobLake
    pipeline: PipelineContract
    run_id: str
    rows: Mapping[str, int]
    warehouse: Warehouse
    keys: AffectedKeys | None
    written: dict[str, int] = field(default_factory=dict)

    def write(self, model: Definition) -> int:
        """Builds and writes the increment of a model.

        Returns:
            Rows written; nothing is built where nothing is touched.
        """
        touched = self.keys.of(model) if self.keys else self.rows.get(table_of(model, model.driver).name)
        if touched == 0 or (touched is None and not self.keys):
            return 0
        build: Callable[..., DataFrame] = import_module(f"spark_jobs.models.{model.name}").build
        rows = build(**{name: self.input(model, name) for name in model.inputs})
        folder = f"increment/{model.name}/run={self.run_id}"
        conform(rows, model.spark_schema).write.mode("overwrite").parquet(self.lake.uri(folder))
        return self.lake.parquet_rows(folder)

    def input(self, model: Definition, name: str) -> DataFrame | None:
        """An input of a model's function; None for its own versions while the warehouse is empty."""
        join = model.joins.get(name)
        if name == EXISTING:
            return self.known(model, model, name)
        if join and join.dimension:
            dimension = definition(join.dimension)
            versions = ("valid_from", "valid_to") if dimension.history else ()
            return self.members(model, name, dimension).select(*dict.fromkeys((*join.taken, *versions)))
        contract = table_of(model, name)
        ods = None
        if self.keys:
            ods = self.warehouse.typed(self.spark, contract, self.keys.rows(model, name))
        current = newest_of(self.accepted(contract), ods, contract)
        return current.select(*join.taken) if join else current

    def members(self, model: Definition, name: str, dimension: Definition) -> DataFrame:
        """All versions of the members that a model names: the run's, else the warehouse's."""
        known = self.known(model, dimension, name)
        if not self.written.get(dimension.name):
            return empty(self.spark, dimension.spark_schema) if known is None else known
        folder = self.lake.uri(f"increment/{dimension.name}/run={self.run_id}")
        new = self.spark.read.schema(dimension.spark_schema).parquet(folder)
        if known is None:
            return new
        member = str(dimension.natural_key)
        return new.unionByName(known.join(new.select(member).distinct(), member, "left_anti"))

    def known(self, model: Definition, dimension: Definition, name: str) -> DataFrame | None:
        """The warehouse's rows of a dimension that a model needs; None while it is empty."""
        if self.keys is None:
            return None
        return self.warehouse.model_rows(self.spark, dimension, self.keys.rows(model, name))

    def accepted(self, contract: TableContract) -> DataFrame:
        """The run's accepted rows of a table."""
        if not self.rows.get(contract.name):
            return empty(self.spark, schema_of(contract))
        return self.spark.read.schema(schema_of(contract)).parquet(self.lake.uri(self._accepted(contract)))

    def _accepted(self, contract: TableContract) -> str:
        return f"accepted/{contract.source}/{contract.name}/run={self.run_id}"

    def load_accepted(self, contract: TableContract) -> Load:
        """What copies a table's accepted rows into a staging table."""
        return self._load(self._accepted(contract))

    def load_increment(self, model: str) -> Load:
        """What copies a model's increment into a staging table."""
        return self._load(f"increment/{model}/run={self.run_id}")

    def _load(self, folder: str) -> Load:
        keys = [key for key in self.lake.lake.keys(folder) if key.endswith(".parquet")]

        def load(name: str, schema: pa.Schema) -> None:
            batches = self.lake.lake.read_batches(keys, columns=schema.names)
            staging.copy_in(self.warehouse.address, name, schema, batches)

        return load


def empty(spark: SparkSession, schema: str) -> DataFrame:
    """A frame without rows that the optimizer knows to be empty.

    `createDataFrame([])` would start a Python worker to say the same.
    """
    fields = fields_of(schema)
    row = spark.range(1).select(*(F.lit(None).cast(field.dataType).alias(field.name) for field in fields))
    return row.where(F.lit(False))


def in_parallel[A, B](function: Callable[[A], B], items: Mapping[A, object] | list[A]) -> list[B]:
    """Calls the function on every item from a few threads; the first error is raised when all are done."""
    with ThreadPoolExecutor(THREADS) as pool:
        return [future.result() for future in [pool.submit(function, item) for item in items]]
