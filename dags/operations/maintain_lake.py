"""# Lake upkeep

Every night, after the pipelines: removes what nobody needs any more in the lake. That are tries of an
extraction that never committed, uploads that never ended, what runs left that a later run replaced, and
accepted rows and increments of published runs once they are older than the settings `LAKE_…` say. What an
open run, the next run, a target or a rebuild needs stays. Raw of published runs goes only where
`LAKE_RAW_DAYS` says so, once a checkpoint that was verified holds what the warehouse made of it. Every place
that goes is in the log, with its size and the reason; a warning says when the lake comes near its budget
(`LAKE_BUDGET_GB`), and the run fails when it is beyond it.

**A re-run** finds what is left. A run that died in the middle has removed only what nobody needs.

**Parameters**, for a run started by hand: `{"apply": true}` removes; without it such a run lists alone, so
that one sees first what would go. Any other key is refused.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param

from tallyhouse_airflow.operators.maintain_lake import MaintainLakeOperator

with DAG(
    dag_id="maintain_lake",
    doc_md=__doc__,
    description="Removes what nobody needs any more in the lake, and watches its budget",
    schedule="0 6 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Kyiv"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=4),
    default_args={
        "owner": "data-platform",
        "retries": 1,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(hours=2),
    },
    params={
        "apply": Param(
            None,
            type=["null", "boolean"],
            title="Apply",
            description="Remove it; without it, a run started by hand lists what would go.",
        )
    },
    render_template_as_native_obj=True,
    tags=["operations"],
):
    MaintainLakeOperator(task_id="maintain", apply="{{ params.apply }}")
