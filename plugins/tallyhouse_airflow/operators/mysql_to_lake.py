"""MySQL or MariaDB to the lake."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import mysql.connector
from airflow.providers.mysql.hooks.mysql import MySqlHook

from tallyhouse.contracts import SourceContract, TableContract
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.extract import mysql as mysql_source
from tallyhouse.extract.open_work import OpenWork
from tallyhouse.extract.open_work_mysql import open_work
from tallyhouse.extract.preflight import check_clock, check_columns, warn_of_slow_cursor
from tallyhouse.extract.stream import SourceStream
from tallyhouse_airflow.hooks.failures import find_connection, refused
from tallyhouse_airflow.operators.extraction import ExtractionOperator


class MySqlToLakeOperator(ExtractionOperator):
    """Streams the windows of a MySQL source's tables into raw Parquet, each in one consistent snapshot.

    Knows nothing of the source but its contract. See `ExtractionOperator` for the parameters.
    """

    def check_source(self, contract: SourceContract, tables: list[TableContract], where: str) -> None:
        """Asks the server for its clock and its tables' columns.

        Raises:
            TallyhouseError: It does not answer, or is not what the contract says.
        """
        connection = self._connect(contract, where)
        try:
            check_clock(connection, contract.name, self.run_id)
            for table in tables:
                check_columns(connection, "mysql", table, self.run_id)
                warn_of_slow_cursor(connection, "mysql", table, self.run_id)
        finally:
            connection.close()

    def look_for_open_work(self, contract: SourceContract, where: str) -> OpenWork:
        """See `open_work_mysql`."""
        return open_work(lambda: self._connect(contract, where), contract)

    def _connect(self, contract: SourceContract, where: str) -> Any:
        conn_id = self.source_conn_id or contract.conn_id
        find_connection(conn_id, where)
        try:
            return MySqlHook(mysql_conn_id=conn_id).get_conn()
        except mysql.connector.Error as error:
            raise refused(conn_id, where, error) from error

    def open_stream(
        self, contract: SourceContract, table: TableContract, watermark: datetime | None
    ) -> SourceStream:
        """Opens the extraction of one table by ConnectorX.

        Raises:
            TallyhouseError: The server refused the statement.
        """
        conn_id = self.source_conn_id or contract.conn_id
        where = f"{table.qualified_name} in run {self.run_id}"
        conn = find_connection(conn_id, where)
        address = mysql_source.dsn(
            host=conn.host or "127.0.0.1",
            port=conn.port or 3306,
            user=conn.login or "",
            password=conn.password or "",
            database=conn.schema or "",
        )
        try:
            return mysql_source.open_stream(address, table, watermark)
        except RuntimeError as error:
            raise TallyhouseError(
                f"the source refused to be read ({first_line(error)})",
                where=where,
                remedy=f"Check the grants of the account of {conn_id} and the server's log",
                transient=True,
            ) from error
