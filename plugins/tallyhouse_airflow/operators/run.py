"""Opening and closing a run in `etl.run`, the warehouse's own record of what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from tallyhouse.errors import TallyhouseError
from tallyhouse.runs import close_run, open_run
from tallyhouse_airflow.hooks.failures import one_line_errors
from tallyhouse_airflow.hooks.run_conf import check_conf, named_with_nearest
from tallyhouse_airflow.operators.of_a_run import PipelineOperator, RunOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class OpenRunOperator(PipelineOperator):
    """Registers a run; its id is what all later tasks are told.

    The lake must answer before anything begins.

    :param tables: tables that the run will take; none stands for all (templated)
    :param full_refresh: whether whole tables will be taken (templated)

    See `PipelineOperator` for the other parameters; there is no `run_id` yet.
    """

    template_fields: Sequence[str] = ("pipeline", "tables", "full_refresh")
    ui_color = "#eeeeee"

    def __init__(
        self, *, tables: list[str] | str | None = None, full_refresh: bool | str = False, **kwargs: Any
    ) -> None:
        super().__init__(run_id="", **kwargs)
        self.tables = tables
        self.full_refresh = full_refresh

    def errors(self, context: Context) -> AbstractContextManager[None]:
        """There is no run that could keep them."""
        return one_line_errors(self.about)

    def carry_out(self, context: Context) -> str:
        """Registers the run.

        Returns:
            Its id, such as `techmarket-20260102T020000-3f2a`.
        """
        check_conf(context)
        names = [table.name for table in self.contract.tables]
        if unknown := [name for name in self.tables or () if name not in names]:
            raise TallyhouseError(
                f"no table {named_with_nearest(unknown, names)}",
                remedy=f"There are: {', '.join(sorted(names))}. Correct it and start the run again",
            )
        self.lake_hook.get_lake()
        with self.warehouse.connect() as connection:
            run_id = open_run(
                connection,
                self.pipeline,
                tables=self.tables or names,
                dag_id=context["dag"].dag_id,
                dag_run_id=context["run_id"],
                logical_date=context.get("logical_date"),
                full_refresh=bool(self.full_refresh),
            )
        self.log.info("run %s is open", run_id)
        return run_id


class CloseRunOperator(RunOperator):
    """Closes a run as failed unless it was published; the last task, however the others ended.

    See `RunOperator` for the parameters.
    """

    ui_color = "#eeeeee"

    @property
    def about(self) -> str:
        """See `RunOperator`."""
        return f"run {self.run_id}"

    def errors(self, context: Context) -> AbstractContextManager[None]:
        """Not kept: why the run failed is what counts, not what happened when it was closed."""
        return one_line_errors(self.about)

    def carry_out(self, context: Context) -> str:
        """Closes the run.

        Returns:
            `published` or `failed`; `none` when no run was opened.
        """
        if not self.run_id:
            self.log.info("no run was opened")
            return "none"
        untold = _untold(context)
        untold.add_context(self.about)
        with self.warehouse.connect() as connection:
            status = close_run(connection, self.run_id, untold.failure(None))
        self.log.info("run %s is %s", self.run_id, status)
        return status


def _untold(context: Context) -> TallyhouseError:
    """Why a run failed whose tasks could not say it: killed, timed out, or without the warehouse."""
    ti = context["ti"]
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[context["run_id"]]).get(context["run_id"], {})
    failed = sorted(task for task, state in states.items() if state == "failed")
    return TallyhouseError(
        f"{', '.join(failed) or 'a task'} ended without saying why (killed, timed out, or marked by hand)",
        remedy=f"Read its log in Airflow, DAG run {context['run_id']}, and start a new run",
    )
