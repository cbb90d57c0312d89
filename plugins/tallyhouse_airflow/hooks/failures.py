"""Turns our one-line errors into Airflow's: permanent ones fail at once, transient ones may be retried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mysql.connector
import psycopg
import pyarrow as pa
from adbc_driver_manager import Error as AdbcError
from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from botocore.exceptions import BotoCoreError, ClientError

from tallyhouse.errors import TallyhouseError, first_line, in_context

# What the drivers raise when a server goes away in the middle of something.
SERVER_ERRORS = (
    *(psycopg.Error, mysql.connector.Error, AdbcError, pa.ArrowException, OSError),
    *(BotoCoreError, ClientError),
)


@contextmanager
def one_line_errors(about: str, run_id: str | None = None) -> Iterator[None]:
    """Wraps the body of an operator's `execute`.

    Args:
        about: The pipeline or source, for errors that do not say where they happened.
        run_id: The run, where there is one.

    Raises:
        AirflowFailException: A permanent error; retrying would only repeat it.
        AirflowException: A transient one, as when a server went away.
    """
    try:
        with in_context(about, run_id):
            yield
    except TallyhouseError as error:
        raise (AirflowException if error.transient else AirflowFailException)(str(error)) from error
    except SERVER_ERRORS as error:
        place = f"{about} in run {run_id}" if run_id else about
        raise AirflowException(
            f"{place}: a server failed ({type(error).__name__}: {first_line(error)}). Nothing was "
            "half-published; see `make status`, then clear the task if its retry fails too"
        ) from error


def find_connection(conn_id: str) -> Connection:
    """The Airflow connection of that id.

    Raises:
        TallyhouseError: There is none.
    """
    try:
        return BaseHook.get_connection(conn_id)
    except Exception as error:  # each secrets backend raises its own
        raise TallyhouseError(
            f"there is no connection {conn_id!r} ({first_line(error)})",
            remedy="Add it to config/connections.yaml and `make start`, or to your secrets backend",
        ) from error


def refused(conn_id: str, error: Exception) -> TallyhouseError:
    """What to raise when a server behind a connection does not let us in."""
    return TallyhouseError(
        f"cannot connect to {conn_id} ({first_line(error)})",
        remedy=f"Check that the server is up (`make status`) and the connection {conn_id}",
        transient=True,
    )
