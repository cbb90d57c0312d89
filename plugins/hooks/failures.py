"""Turns our one-line errors into Airflow's: permanent ones fail at once, transient ones may be retried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from tallyhouse.errors import TallyhouseError, first_line


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Wraps the body of an operator's `execute`.

    Raises:
        AirflowFailException: A permanent error; retrying would only repeat it.
        AirflowException: A transient one.
    """
    try:
        yield
    except TallyhouseError as error:
        raise (AirflowException if error.transient else AirflowFailException)(str(error)) from error


def find_connection(conn_id: str, where: str) -> Connection:
    """The Airflow connection of that id.

    Raises:
        TallyhouseError: There is none.
    """
    try:
        return BaseHook.get_connection(conn_id)
    except Exception as error:  # each secrets backend raises its own
        raise TallyhouseError(
            f"there is no connection {conn_id!r} ({first_line(error)})",
            where=where,
            remedy="Add it to config/connections.yaml and `make start`, or to your secrets backend",
        ) from error


def refused(conn_id: str, where: str, error: Exception) -> TallyhouseError:
    """What to raise when a server behind a connection does not let us in."""
    return TallyhouseError(
        f"cannot connect to {conn_id} ({first_line(error)})",
        where=where,
        remedy=f"Check that the server is up (`make status`) and the connection {conn_id}",
        transient=True,
    )
