"""PostgreSQL to the lake."""

from __future__ import annotations

from datetime import datetime

from tallyhouse.contracts import SourceContract, TableContract
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.extract import postgres as postgres_source
from tallyhouse.extract.open_work import OpenWork
from tallyhouse.extract.open_work_postgres import open_work
from tallyhouse.extract.preflight import check_columns, warn_of_slow_cursor
from tallyhouse.extract.stream import SourceStream
from tallyhouse_airflow.hooks.postgres import CheckedPostgresHook
from tallyhouse_airflow.operators.extraction import ExtractionOperator


class PostgresToLakeOperator(ExtractionOperator):
    """Streams the windows of a PostgreSQL source's tables into raw Parquet, each in one snapshot.

    Knows nothing of the source but its contract. See `ExtractionOperator` for the parameters.
    """

    def check_source(self, contract: SourceContract, tables: list[TableContract], where: str) -> None:
        """Asks the server for its tables' columns.

        Raises:
            TallyhouseError: It does not answer, or is not what the contract says.
        """
        hook = CheckedPostgresHook(postgres_conn_id=self.source_conn_id or contract.conn_id)
        with hook.connect(where) as connection:
            for table in tables:
                check_columns(connection, "postgres", table, self.run_id)
                warn_of_slow_cursor(connection, "postgres", table, self.run_id)

    def look_for_open_work(self, contract: SourceContract, where: str) -> OpenWork:
        """See `open_work_postgres`."""
        hook = CheckedPostgresHook(postgres_conn_id=self.source_conn_id or contract.conn_id)
        return open_work(lambda: hook.connect(where))

    def open_stream(
        self, contract: SourceContract, table: TableContract, watermark: datetime | None
    ) -> SourceStream:
        """Opens the extraction of one table by ADBC.

        Raises:
            TallyhouseError: The server refused the statement.
        """
        conn_id = self.source_conn_id or contract.conn_id
        where = f"{table.qualified_name} in run {self.run_id}"
        address = CheckedPostgresHook(postgres_conn_id=conn_id).address(where)
        try:
            return postgres_source.open_stream(address, table, watermark)
        except postgres_source.Error as error:
            raise TallyhouseError(
                f"the source refused to be read ({first_line(error)})",
                where=where,
                remedy=f"Check the grants of the account of {conn_id} and the server's log",
                transient=True,
            ) from error
