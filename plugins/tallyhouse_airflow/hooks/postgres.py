"""PostgreSQL behind a `postgres` connection."""

from __future__ import annotations

from typing import Any

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook

from tallyhouse_airflow.hooks.failures import refused
from tallyhouse_airflow.hooks.servers import postgres_server


class CheckedPostgresHook(PostgresHook):
    """Connections to PostgreSQL as the package wants them.

    :param postgres_conn_id: The connection's id.
    """

    def connect(self) -> psycopg.Connection[Any]:
        """An open connection.

        Raises:
            TallyhouseError: There is no such connection, or the server does not let us in.
        """
        conn_id = str(self.get_conn_id())
        try:
            return postgres_server(conn_id).connect()
        except psycopg.OperationalError as error:
            raise refused(conn_id, error) from error

    def address(self) -> str:
        """A libpq connection string, for the ADBC driver; it holds the password, so it must not be logged."""
        return postgres_server(str(self.get_conn_id())).conninfo
