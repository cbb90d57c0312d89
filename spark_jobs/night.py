"""One run of one subject's transform: what it brought, what the warehouse had, what it writes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs.accepted import schema_of
from spark_jobs.job_lake import JobLake
from spark_jobs.models.common import fields_of, newest_of
from spark_jobs.warehouse import Keys, Warehouse
from tallyhouse.contracts import SubjectContract, TableContract

log = logging.getLogger(__name__)

# Jobs of small tables leave a core idle while they plan and commit; more at once only wait.
THREADS = 4


@dataclass
class Night:
    """What a subject's models are built of, and where they go.

    Attributes:
        spark: The session.
        lake: Where accepted rows are, and where increments go.
        subject: Its contract.
        run_id: The run.
        rows: Accepted rows tonight, by table name.
        keys: The keys of this run in the warehouse; None while the warehouse is empty.
        written: Rows written, by model.
    """

    spark: SparkSession
    lake: JobLake
    subject: SubjectContract
    run_id: str
    rows: Mapping[str, int]
    keys: Keys | None = None
    written: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def warehouse(self) -> Iterator[Keys | None]:
        """Opens the warehouse for as long as the block runs; None where `ods` is empty, as at first."""
        warehouse = Warehouse.from_environment()
        if not warehouse.filled(self.subject.tables):
            yield None
            return
        with warehouse.keys(self.spark, self.subject.name, self.run_id) as keys:
            self.keys = keys
            try:
                yield keys
            finally:
                self.keys = None

    def contract(self, table: str) -> TableContract:
        """The contract of a table, by its name alone: names differ within a subject."""
        return next(contract for contract in self.subject.tables if contract.name == table)

    def touched(self, *tables: str) -> bool:
        """Whether tonight brought a row of any of the tables."""
        return any(self.rows.get(table) for table in tables)

    def accepted(self, table: str) -> DataFrame:
        """Tonight's accepted rows of a table."""
        contract = self.contract(table)
        if not self.touched(table):
            return empty(self.spark, schema_of(contract))
        folder = f"accepted/{contract.source}/{table}/run={self.run_id}"
        return self.spark.read.schema(schema_of(contract)).parquet(self.lake.uri(folder))

    def current(self, table: str, column: str, kind: str) -> DataFrame:
        """Current rows: tonight's, and the warehouse's whose column is a key of that kind."""
        contract = self.contract(table)
        ods = self.keys.rows(contract, column, kind) if self.keys else None
        return newest_of(self.accepted(table), ods, contract)

    def current_whole(self, table: str) -> DataFrame:
        """Current rows of a table that is small by nature, all of them."""
        contract = self.contract(table)
        return newest_of(self.accepted(table), self.keys.all_rows(contract) if self.keys else None, contract)

    def existing(self, model: str, column: str, kind: str) -> DataFrame | None:
        """The warehouse's rows of a model whose column is a key of that kind; None while it is empty."""
        return self.keys.model_rows(model, column, kind) if self.keys else None

    def write(self, models: Mapping[str, DataFrame]) -> None:
        """Writes increments, side by side; each replaces what an earlier try of the run left."""

        def one(model: str) -> tuple[str, int]:
            folder = f"increment/{model}/run={self.run_id}"
            models[model].write.mode("overwrite").parquet(self.lake.uri(folder))
            return model, self.lake.parquet_rows(folder)

        self.written |= dict(in_parallel(one, models))

    def increment(self, model: str, schema: str) -> DataFrame:
        """An increment that was written, read back."""
        folder = self.lake.uri(f"increment/{model}/run={self.run_id}")
        return self.spark.read.schema(schema).parquet(folder)


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
