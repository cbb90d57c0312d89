"""Opening and closing a run in `etl.run`, the warehouse's own record of what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from tallyhouse.contracts import load_pipeline
from tallyhouse.errors import TallyhouseError
from tallyhouse.runs import close_run, open_run
from tallyhouse_airflow.hooks.failures import one_line_errors
from tallyhouse_airflow.hooks.lake import LakeHook
from tallyhouse_airflow.hooks.postgres import CheckedPostgresHook
from tallyhouse_airflow.hooks.run_conf import check_conf, named_with_nearest

if TYPE_CHECKING:
    from airflow.sdk import Context


class OpenRunOperator(BaseOperator):
    """Registers a run; its id is what all later tasks are told.

    :param pipeline: name of the pipeline's contract (templated)
    :param tables: tables that the run will take; none stands for all (templated)
    :param full_refresh: whether whole tables will be taken (templated)
    :param dwh_conn_id: connection of the warehouse
    :param lake_conn_id: connection of the lake, which must answer before anything begins
    """

    template_fields: Sequence[str] = ("pipeline", "tables", "full_refresh")
    ui_color = "#eeeeee"

    def __init__(
        self,
        *,
        pipeline: str,
        tables: list[str] | str | None = None,
        full_refresh: bool | str = False,
        dwh_conn_id: str = "pg_dwh",
        lake_conn_id: str = "s3_lake",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.tables = tables
        self.full_refresh = full_refresh
        self.dwh_conn_id = dwh_conn_id
        self.lake_conn_id = lake_conn_id

    def execute(self, context: Context) -> str:
        """Registers the run.

        Returns:
            Its id, such as `techmarket-20260102T020000-3f2a`.
        """
        where = f"pipeline {self.pipeline}"
        with one_line_errors(where):
            check_conf(context)
            names = [table.name for table in load_pipeline(self.pipeline).tables]
            if unknown := [name for name in self.tables or () if name not in names]:
                raise TallyhouseError(
                    f"no table {named_with_nearest(unknown, names)}",
                    where=where,
                    remedy=f"There are: {', '.join(sorted(names))}. Correct it and start the run again",
                )
            LakeHook(aws_conn_id=self.lake_conn_id).get_lake(where)
            with CheckedPostgresHook(postgres_conn_id=self.dwh_conn_id).connect(where) as connection:
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


class CloseRunOperator(BaseOperator):
    """Closes a run as failed unless it was published; the last task, however the others ended.

    :param run_id: the run (templated)
    :param dwh_conn_id: connection of the warehouse
    """

    template_fields: Sequence[str] = ("run_id",)
    ui_color = "#eeeeee"

    def __init__(self, *, run_id: str, dwh_conn_id: str = "pg_dwh", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.dwh_conn_id = dwh_conn_id

    def execute(self, context: Context) -> str:
        """Closes the run.

        Returns:
            `published` or `failed`; `none` when no run was opened.
        """
        if not self.run_id:
            self.log.info("no run was opened")
            return "none"
        where = f"run {self.run_id}"
        with (
            one_line_errors(where),
            CheckedPostgresHook(postgres_conn_id=self.dwh_conn_id).connect(where) as connection,
        ):
            status = close_run(connection, self.run_id, _untold(context, where).failure(None))
        self.log.info("run %s is %s", self.run_id, status)
        return status


def _untold(context: Context, where: str) -> TallyhouseError:
    """Why a run failed whose tasks could not say it: killed, timed out, or without the warehouse."""
    ti = context["ti"]
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[context["run_id"]]).get(context["run_id"], {})
    failed = sorted(task for task, state in states.items() if state == "failed")
    return TallyhouseError(
        f"{', '.join(failed) or 'a task'} ended without saying why (killed, timed out, or marked by hand)",
        where=where,
        remedy=f"Read its log in Airflow, DAG run {context['run_id']}, and start a new run",
    )
