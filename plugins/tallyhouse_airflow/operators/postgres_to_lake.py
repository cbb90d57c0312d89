"""PostgreSQL to the lake."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from tallyhouse.contracts import TableContract
from tallyhouse.extract import postgres as postgres_source
from tallyhouse.extract.open_work import OpenWork
from tallyhouse.extract.open_work_postgres import open_work
from tallyhouse.extract.stream import SourceStream
from tallyhouse_airflow.hooks.postgres import CheckedPostgresHook
from tallyhouse_airflow.operators.extraction import DatabaseToLakeOperator


class PostgresToLakeOperator(DatabaseToLakeOperator):
    """Streams the windows of a PostgreSQL source's tables into raw Parquet, each in one snapshot.

    Knows nothing of the source but its contract. See `ExtractionOperator` for the parameters.
    """

    engine = "postgres"
    refusals = (postgres_source.Error,)

    def connect(self) -> Any:
        """See `DatabaseToLakeOperator`."""
        return CheckedPostgresHook(postgres_conn_id=self.conn_id).connect()

    def look_for_open_work(self) -> OpenWork:
        """See `open_work_postgres`."""
        return open_work(self.connect)

    def open_stream(
        self, table: TableContract, watermark: datetime | None, keys: Collection[int] | None = None
    ) -> SourceStream:
        """Opens the extraction of one table by ADBC."""
        address = CheckedPostgresHook(postgres_conn_id=self.conn_id).address()
        return postgres_source.open_stream(address, table, watermark, keys)
