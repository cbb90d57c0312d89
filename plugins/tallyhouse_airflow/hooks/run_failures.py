"""Keeps in `etl.run` why a task of a run failed, beside handing the error to Airflow."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.runs import forget_failure, record_failure
from tallyhouse_airflow.hooks.failures import SERVER_ERRORS, one_line_errors
from tallyhouse_airflow.hooks.postgres import CheckedPostgresHook

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class TaskOfARun(Protocol):
    """What an operator of a run has."""

    run_id: str
    dwh_conn_id: str
    target: str | None

    @property
    def about(self) -> str:
        """What it works on, such as `pipeline techmarket`."""


@contextmanager
def kept_errors(operator: TaskOfARun, context: Context) -> Iterator[None]:
    """Wraps the body of `execute` of a task of a run.

    Whatever ends it is kept in `etl.run`, from where the ledger's command, the run's page and the
    dashboards show it; a try that succeeds takes back what an earlier one left.

    Args:
        operator: The task's operator.
        context: Airflow's, of this try.

    Raises:
        AirflowException: As `one_line_errors` raises it.
    """
    task = context["ti"].task_id
    with one_line_errors(operator.about, operator.run_id):
        try:
            yield
        except Exception as error:
            _keep(operator, task, _told(error, task))
            raise
    if context["ti"].try_number > 1:
        try:
            with CheckedPostgresHook(postgres_conn_id=operator.dwh_conn_id).connect() as connection:
                forget_failure(connection, operator.run_id, task)
        except (TallyhouseError, *SERVER_ERRORS) as error:
            log.warning("etl.run keeps what an earlier try left: %s", first_line(error))


def _told(error: Exception, task: str) -> TallyhouseError:
    """An error with what to do about it."""
    if isinstance(error, TallyhouseError):
        return error
    what = f"{type(error).__name__}: {first_line(error)}"
    if isinstance(error, SERVER_ERRORS):
        return TallyhouseError(f"a server failed ({what})", remedy="See `make status`, then clear the task")
    return TallyhouseError(f"not foreseen: {what}", remedy=f"Read the log of the task {task}")


def _keep(operator: TaskOfARun, task: str, error: TallyhouseError) -> None:
    error.add_context(operator.about, operator.run_id)
    try:
        with CheckedPostgresHook(postgres_conn_id=operator.dwh_conn_id).connect() as connection:
            record_failure(connection, operator.run_id, error.failure(task), operator.target)
    except (TallyhouseError, *SERVER_ERRORS) as unkept:
        # The first error counts, and it is raised on.
        log.warning("etl.run does not know why this failed: %s", first_line(unkept))
