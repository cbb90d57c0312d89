"""The lake as a job sees it: small objects by `tallyhouse.lake`, Parquet by Spark, one base for both."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from pyspark.sql import DataFrame, SparkSession

from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake, Manifest

SMALL_BYTES = 16 * 1024 * 1024
"""Parquet (zstd) up to this is one task's work: a second or two."""

# What a manifest calls the wire's types.
_SPARK_TYPES = {
    "int8": "tinyint",
    "int16": "smallint",
    "int32": "int",
    "int64": "bigint",
    "double": "double",
    "string": "string",
    "binary": "binary",
}


@dataclass(frozen=True)
class JobLake:
    """Objects below a base URI.

    Attributes:
        lake: For listing, and for objects that are not Spark's.
        base: `s3a://<bucket>`, or `file:///<folder>` in tests.
    """

    lake: Lake
    base: str

    @classmethod
    def from_environment(cls) -> JobLake:
        """The folder of `LAKE_BASE`, or else the bucket of the `LAKE_*` variables.

        Raises:
            TallyhouseError: A variable is missing, or the lake cannot be reached.
        """
        base = os.environ.get("LAKE_BASE", "")
        if base.startswith("file:"):
            return cls(Lake.local(urlsplit(base).path.rstrip("/")), base.rstrip("/"))
        names = ("LAKE_ENDPOINT", "LAKE_ACCESS_KEY", "LAKE_SECRET_KEY", "LAKE_BUCKET")
        if missing := [name for name in names if not os.environ.get(name)]:
            raise TallyhouseError(
                f"{', '.join(missing)} not set",
                where="environment of the Spark job",
                remedy="Pass the lake's address and account in the job's environment.",
            )
        lake = Lake.s3(
            os.environ["LAKE_BUCKET"],
            endpoint=os.environ["LAKE_ENDPOINT"],
            access_key=os.environ["LAKE_ACCESS_KEY"],
            secret_key=os.environ["LAKE_SECRET_KEY"],
            region=os.environ.get("LAKE_REGION", "us-east-1"),
        )
        lake.check()
        return cls(lake, f"s3a://{lake.root}")

    def uri(self, key: str) -> str:
        """The URI that Spark reads or writes."""
        return f"{self.base}/{key}"

    def parquet_rows(self, folder: str) -> int:
        """Rows of the Parquet files in a folder, by their footers in the store."""
        keys = [key for key in self.lake.keys(folder) if key.endswith(".parquet")]
        return sum(self.lake.row_count(key) for key in keys)

    def read_batch(self, spark: SparkSession, batch: Manifest) -> DataFrame:
        """The rows of a raw batch that is not empty, as the wire carried them.

        Small ones come in one partition: ranking them then needs no shuffle, and writing them leaves
        one file.
        """
        schema = ", ".join(f"`{column['name']}` {_SPARK_TYPES[column['type']]}" for column in batch.columns)
        rows = spark.read.schema(schema).parquet(*(self.uri(part.key) for part in batch.parts))
        return rows.coalesce(1) if sum(part.bytes for part in batch.parts) <= SMALL_BYTES else rows
