"""MySQL or MariaDB to the lake."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import mysql.connector

from tallyhouse.contracts import TableContract
from tallyhouse.extract import mysql as mysql_source
from tallyhouse.extract.open_work import OpenWork
from tallyhouse.extract.open_work_mysql import open_work
from tallyhouse.extract.preflight import check_clock
from tallyhouse.extract.stream import SourceStream
from tallyhouse_airflow.hooks.failures import refused
from tallyhouse_airflow.hooks.servers import mysql_server
from tallyhouse_airflow.operators.extraction import DatabaseToLakeOperator


class MySqlToLakeOperator(DatabaseToLakeOperator):
    """Streams the windows of a MySQL source's tables into raw Parquet, each in one consistent snapshot.

    Knows nothing of the source but its contract. See `ExtractionOperator` for the parameters.
    """

    engine = "mysql"
    refusals = (RuntimeError,)

    def connect(self) -> Any:
        """See `DatabaseToLakeOperator`."""
        try:
            return mysql_server(self.conn_id).connect()
        except mysql.connector.Error as error:
            raise refused(self.conn_id, error) from error

    def check_server(self, connection: Any) -> None:
        """Asks for its clock."""
        check_clock(connection)

    def look_for_open_work(self) -> OpenWork:
        """See `open_work_mysql`."""
        return open_work(self.connect, self.contract)

    def open_stream(
        self, table: TableContract, watermark: datetime | None, keys: Collection[int] | None = None
    ) -> SourceStream:
        """Opens the extraction of one table by ConnectorX, or by a driver that knows every option."""
        return mysql_source.open_stream(mysql_server(self.conn_id), table, watermark, keys)
