"""The server behind an Airflow connection, the same for every path that enters it."""

from __future__ import annotations

from tallyhouse.errors import TallyhouseError
from tallyhouse.servers import MySqlServer, PostgresServer
from tallyhouse_airflow.hooks.failures import find_connection


def mysql_server(conn_id: str) -> MySqlServer:
    """The server of a `mysql` connection.

    Raises:
        TallyhouseError: There is no such connection, or its extra has an option that some path would drop.
    """
    return _server(MySqlServer, conn_id)


def postgres_server(conn_id: str, *, for_java: bool = False) -> PostgresServer:
    """The server of a `postgres` connection.

    Args:
        conn_id: The connection.
        for_java: Whether Spark will read it as well, by a driver that knows fewer options.

    Raises:
        TallyhouseError: There is no such connection, or its extra has an option that some path would drop.
    """
    server = _server(PostgresServer, conn_id)
    if for_java:
        try:
            _ = server.jdbc
        except ValueError as error:
            raise _wrong(conn_id, error) from error
    return server


def _server[Server: (MySqlServer, PostgresServer)](kind: type[Server], conn_id: str) -> Server:
    conn = find_connection(conn_id)
    try:
        return kind.of(
            host=conn.host,
            port=conn.port,
            user=conn.login,
            password=conn.password,
            database=conn.schema,
            extra=conn.extra_dejson,
        )
    except ValueError as error:
        raise _wrong(conn_id, error) from error


def _wrong(conn_id: str, error: ValueError) -> TallyhouseError:
    return TallyhouseError(f"the connection {conn_id} cannot be used: {error}", remedy="Correct its extra")
