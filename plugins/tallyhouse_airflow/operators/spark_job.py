"""Spark jobs of this repository, with the lake's and the warehouse's credentials in their environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import BaseHook, BaseOperatorLink, Connection
from airflow.sdk.exceptions import AirflowException

from tallyhouse import declared_lineage
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake, find_manifests
from tallyhouse.lake.outcome import Outcome
from tallyhouse.quality.report import read_report
from tallyhouse.runs import may_publish
from tallyhouse.spark_tuning import Machine, local_conf
from tallyhouse_airflow.hooks.failures import find_connection
from tallyhouse_airflow.hooks.lake import LakeHook
from tallyhouse_airflow.hooks.servers import postgres_server
from tallyhouse_airflow.operators.of_a_run import PipelineOperator
from tallyhouse_airflow.operators.openlineage_facets import LineageMixin

if TYPE_CHECKING:
    from airflow.sdk import Context

REPOSITORY = Path(__file__).resolve().parents[3]


class SparkJobOperator(LineageMixin, PipelineOperator, SparkSubmitOperator):
    """Submits `spark_jobs/<job>.py` for a run.

    The job gets the run on its command line and every credential in its environment, put there when
    the task runs: rendered templates, logs and the command line show none.

    :param job: file name without its ending, below `spark_jobs/` (templated)
    :param conn_id: connection of Spark

    See `PipelineOperator` for the other parameters.
    """

    template_fields: Sequence[str] = ("job", "pipeline", "run_id")
    ui_color = "#f6dbe9"

    def __init__(self, *, job: str, conn_id: str = "spark_default", **kwargs: Any) -> None:
        super().__init__(conn_id=conn_id, name=f"tallyhouse-{job}", **kwargs)
        self.job = job
        self.spark_conn_id = conn_id

    def carry_out(self, context: Context) -> None:
        """Runs the job to its end."""
        attempt = token_hex(8)
        # The provider would fall back to YARN, without a word, if there were no such connection.
        connection = find_connection(self.spark_conn_id)
        lake = self.lake_hook.get_lake()
        self.conf = {**(self.conf or {}), **self._tuning(connection, lake)}
        self.application = str(REPOSITORY / "spark_jobs" / f"{self.job}.py")
        arguments = {"pipeline": self.pipeline, "run-id": self.run_id, "attempt": attempt}
        self.application_args = [part for name, value in arguments.items() for part in (f"--{name}", value)]
        try:
            SparkSubmitOperator.execute(self, context)
        except AirflowException as error:
            outcome = Outcome.read(lake, self.pipeline, self.run_id, self.job, attempt)
            if outcome is None or outcome.success or outcome.message is None:
                raise
            if outcome.error is not None:
                raise TallyhouseError(**outcome.error) from error
            raise AirflowException(
                f"{self.about} in run {self.run_id}: {self.job} broke off ({outcome.message}). "
                "Its log has the traceback"
            ) from error

    def _tuning(self, connection: Connection, lake: Lake) -> dict[str, str]:
        """Spark's settings: the connection's; on this machine by the bytes of raw, unless that says else."""
        local = {}
        if (connection.host or "").startswith("local"):
            batches = find_manifests(lake, self.run_id, self.contract.tables)
            raw_bytes = sum(part.bytes for batch in batches for part in batch.parts)
            local = local_conf(raw_bytes, Machine.here())
        conf: dict[str, str] = connection.extra_dejson.get("conf", {})
        return local | conf

    def _get_hook(self) -> SparkSubmitHook:
        lake = self.lake_hook
        lake.get_lake()
        access = lake.access()
        warehouse = postgres_server(self.dwh_conn_id, for_java=True)
        with self.warehouse.connect():
            pass
        self.env_vars = {
            "LAKE_ENDPOINT": access["endpoint"],
            "LAKE_ACCESS_KEY": access["access_key"],
            "LAKE_SECRET_KEY": access["secret_key"],
            "LAKE_BUCKET": lake.bucket(),
            "DWH_CONNINFO": warehouse.conninfo,
            **self._more_environment(),
        }
        return super()._get_hook()

    def _is_published(self) -> bool:
        with self.warehouse.connect() as connection:
            published = not may_publish(connection, self.pipeline, self.run_id)
        if published:
            self.log.info("run %s is published already: nothing to do", self.run_id)
        return published

    def _more_environment(self) -> dict[str, str]:
        """What the job needs to be told beside the lake and the warehouse."""
        return {}


class DataDocsLink(BaseOperatorLink):
    """The button on the task's page that opens the run's Data Docs."""

    name = "Data Docs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address that the task left in XCom; empty until it has run."""
        from airflow.sdk.execution_time.xcom import XCom  # noqa: PLC0415 - not there when a DAG is parsed

        found = XCom.get_value(ti_key=ti_key, key="data_docs_url")
        return str(found or "")


class CheckBatchOperator(SparkJobOperator):
    """Runs the Great Expectations suites of a pipeline over a run's raw batches.

    In this task's own process by DuckDB, or on Spark where the extra of the Spark connection says
    `"gate": "spark"`. Fails when a suite fails, so that nothing after it is run; Data Docs are written
    either way. See `SparkJobOperator` for the parameters.
    """

    operator_extra_links = (DataDocsLink(),)

    def __init__(self, *, job: str = "check", **kwargs: Any) -> None:
        super().__init__(job=job, **kwargs)

    def carry_out(self, context: Context) -> None:
        """Runs the suites and leaves the address of the Data Docs behind."""
        try:
            self.run_suites(context)
        finally:
            report = read_report(self.lake_hook.get_lake(), self.pipeline, self.run_id)
            if report.get("data_docs_url"):
                context["ti"].xcom_push(key="data_docs_url", value=report["data_docs_url"])
                self.log.info("Data Docs: %s", report["data_docs_url"])

    def run_suites(self, context: Context) -> None:
        """Runs the suites, by the engine that the connection names.

        Raises:
            TallyhouseError: A suite failed, or cannot be run.
        """
        engine = find_connection(self.spark_conn_id).extra_dejson.get("gate", "duckdb")
        if engine not in ("duckdb", "spark"):
            raise TallyhouseError(
                f"the connection {self.spark_conn_id} asks for the gate {engine!r}",
                remedy="Set `gate` in its extra (GATE_ENGINE in development) to duckdb or spark.",
            )
        if engine == "spark":
            super().carry_out(context)
            return
        # It loads Great Expectations: seconds, and hundreds of megabytes.
        from tallyhouse.quality.check import check  # noqa: PLC0415

        check(self.lake_hook.get_lake(), self.pipeline, self.run_id)

    def reads_and_writes(self, stores: declared_lineage.Stores) -> declared_lineage.TaskLineage:
        """See `LineageMixin`."""
        return declared_lineage.check(self.contract, stores)


class TransformBatchOperator(SparkJobOperator):
    """Turns a run's raw batches into accepted rows and increments, on Spark.

    A published run is left as it is: a target may still have to read its increments, and what they
    were built on is no longer there. See `SparkJobOperator` for the parameters.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(job="transform", **kwargs)

    def carry_out(self, context: Context) -> None:
        """Runs the transform unless the run is published."""
        if not self._is_published():
            super().carry_out(context)

    def reads_and_writes(self, stores: declared_lineage.Stores) -> declared_lineage.TaskLineage:
        """See `LineageMixin`."""
        return declared_lineage.transform(self.contract, stores)


class CurateEventsOperator(CheckBatchOperator):
    """Reads a run's events, runs their suite, and writes the curated files aside, in one Spark session.

    The suite runs on Spark whatever the connection says, since there the events are. A published run is
    left as it is.

    :param events_conn_id: connection of the events' bucket

    See `SparkJobOperator` for the other parameters.
    """

    def __init__(self, *, events_conn_id: str = "s3_events", **kwargs: Any) -> None:
        super().__init__(job="curate", **kwargs)
        self.events_conn_id = events_conn_id

    def carry_out(self, context: Context) -> None:
        """Runs the job unless the run is published."""
        if not self._is_published():
            super().carry_out(context)

    def run_suites(self, context: Context) -> None:
        """Runs the job."""
        SparkJobOperator.carry_out(self, context)

    def _more_environment(self) -> dict[str, str]:
        hook = LakeHook(aws_conn_id=self.events_conn_id)
        access = hook.access()
        return {
            "EVENTS_BUCKET": hook.bucket(),
            "EVENTS_ENDPOINT": access["endpoint"],
            "EVENTS_ACCESS_KEY": access["access_key"],
            "EVENTS_SECRET_KEY": access["secret_key"],
        }

    def reads_and_writes(self, stores: declared_lineage.Stores) -> declared_lineage.TaskLineage:
        """See `LineageMixin`."""
        bucket = BaseHook.get_connection(self.events_conn_id).extra_dejson.get("bucket", "")
        return declared_lineage.curation(self.contract, f"s3://{bucket}")
