"""PostgreSQL behind a `postgres` connection."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import quote

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook

from tallyhouse_airflow.hooks.failures import find_connection, refused


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
        find_connection(conn_id)
        try:
            # The provider's type is what psycopg 2 and 3 have in common; the connection is psycopg 3's.
            return cast("psycopg.Connection[Any]", self.get_conn())
        except psycopg.OperationalError as error:
            raise refused(conn_id, error) from error

    def address(self) -> str:
        """A libpq URI, for the ADBC driver; it holds the password, so it must not be logged."""
        conn = find_connection(str(self.get_conn_id()))
        account = f"{quote(conn.login or '', safe='')}:{quote(conn.password or '', safe='')}"
        return f"postgresql://{account}@{conn.host}:{conn.port or 5432}/{conn.schema or ''}"
