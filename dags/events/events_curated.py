"""# Events, curated every night

Takes the JSON objects that ingest has written below `raw/` since the last run. Lines that are no events are
quarantined with their reason; the rest is checked and added to the Delta table `curated/`, by event type and
day. The run's ledger must close: objects and lines in raw = curated + superseded + quarantined.

**A re-run** takes only what no run has taken yet: each committed run keeps the list of its objects. A run
that failed has committed nothing, so the next one takes its objects too; one that died after its commit is
finished by the next.

**Parameters**, for a run started by hand: `{"limit": 100000}` takes at most so many objects and leaves the
rest to the next run. Any other key is refused.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param, TaskGroup

from tallyhouse_airflow.operators.events import EventObjectsToLakeOperator, EventsToCuratedOperator
from tallyhouse_airflow.operators.run import CloseRunOperator, OpenRunOperator
from tallyhouse_airflow.operators.spark_job import CurateEventsOperator
from tallyhouse_airflow.task_groups.published import published

with DAG(
    dag_id="events_curated",
    doc_md=__doc__,
    description="Raw JSON events to partitioned Parquet, with a ledger that closes",
    schedule="0 1 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Kyiv"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=4),
    default_args={
        "owner": "data-platform",
        "retries": 1,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=2),
    },
    params={
        "limit": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Limit",
            description="The most objects to take; none takes all that are there.",
        )
    },
    render_template_as_native_obj=True,
    tags=["events", "nightly"],
):
    open_run = OpenRunOperator(task_id="open_run", pipeline="events")
    with TaskGroup("extract", tooltip="Every object that no run has taken, into immutable raw") as extract:
        EventObjectsToLakeOperator(task_id="events", run_id=open_run.output, limit="{{ params.limit }}")
    curate = CurateEventsOperator(task_id="curate", pipeline="events", run_id=open_run.output)
    with TaskGroup("publish", tooltip="Every file in its place, then one commit of the table") as publish:
        EventsToCuratedOperator(
            task_id="curated", run_id=open_run.output, outlets=published("events", "lake/curated")
        )
    close_run = CloseRunOperator(task_id="close_run", run_id=open_run.output).as_teardown()
    open_run >> extract >> curate >> publish >> close_run
