"""# Run metadata to pipeline-info

Every ten minutes: reads the DAG runs that finished since the last position through Airflow's REST API
and posts each, with its ledger, exactly once to the pipeline-info service.

**A re-run** posts nothing twice: the position is kept in the warehouse, and every record carries an
idempotency key. While the service is down the position stays; the next start
catches up. A run that the service refuses is written to `etl.refused_run` and counted; the later
ones are posted.

**Parameters**: none; any is refused.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from tallyhouse_airflow.operators.airflow_to_pipeline_info import AirflowToPipelineInfoOperator

with DAG(
    dag_id="monitor_pipelines",
    doc_md=__doc__,
    description="Posts every finished DAG run to the pipeline-info service",
    schedule="*/10 * * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Kyiv"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=9),
    default_args={
        "owner": "data-platform",
        "retries": 1,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(minutes=5),
    },
    tags=["operations"],
):
    AirflowToPipelineInfoOperator(task_id="post_runs")
