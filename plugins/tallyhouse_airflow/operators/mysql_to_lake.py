"""MySQL or MariaDB to the lake."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import mysql.connector
from airflow.providers.mysql.hooks.mysql import MySqlHook

from tallyhouse.contracts import TableContract
from tallyhouse.extract import mysql as mysql_source
from tallyhouse.extract.open_work import OpenWork
from tallyhouse.extract.open_work_mysql import open_work
from tallyhouse.extract.preflight import check_clock
from tallyhouse.extract.stream import SourceStream
from tallyhouse_airflow.hooks.failures import find_connection, refused
from tallyhouse_airflow.operators.extraction import ExtractionOperator


class MySqlToLakeOperator(ExtractionOperator):
    """Streams the windows of a MySQL source's tables into raw Parquet, each in one consistent snapshot.

    Knows nothing of the source but its contract. See `ExtractionOperator` for the parameters.
    """

    engine = "mysql"
    refusals = (RuntimeError,)

    def connect(self) -> Any:
        """See `ExtractionOperator`."""
        find_connection(self.conn_id)
        try:
            return MySqlHook(mysql_conn_id=self.conn_id).get_conn()
        except mysql.connector.Error as error:
            raise refused(self.conn_id, error) from error

    def check_server(self, connection: Any) -> None:
        """Asks for its clock."""
        check_clock(connection)

    def look_for_open_work(self) -> OpenWork:
        """See `open_work_mysql`."""
        return open_work(self.connect, self.contract)

    def open_stream(self, table: TableContract, watermark: datetime | None) -> SourceStream:
        """Opens the extraction of one table by ConnectorX."""
        conn = find_connection(self.conn_id)
        address = mysql_source.dsn(
            host=conn.host or "127.0.0.1",
            port=conn.port or 3306,
            user=conn.login or "",
            password=conn.password or "",
            database=conn.schema or "",
        )
        return mysql_source.open_stream(address, table, watermark)
