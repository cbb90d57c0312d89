"""# The warehouse, built again and compared, or taken over

Publishes every run of a pipeline once more, oldest first, from its raw batches alone, into a database of its
own (the connection `pg_rebuild`); where raw was swept, it begins from the checkpoint in its place. Then it
compares rows and digests of every table of `ods` and of every model with what the warehouse shows. Fails when
one differs, and names it. Then each target is filled from the rebuilt warehouse where nobody sees it, marts
and all, and compared in the same way. The warehouse and what the targets show are only read; what the rebuild
writes into the lake goes with it.

**With `take_over`** the warehouse becomes what was rebuilt: one transaction removes, changes and adds rows
where they differ; the log says how many of which table. Readers see it as it was, then as it is. Then it is
copied into the targets.

**A re-run** begins from nothing: whatever the other database held goes. Do not start it while a run of the
pipeline is open: it compares with the run that was the last one when it began, and says so.

**Parameters**: `{"pipeline": "pancake", "take_over": true}`; without them TechMarket is compared. Any other
key is refused.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param

from tallyhouse_airflow.operators.rebuild_warehouse import RebuildWarehouseOperator, RebuiltToTargetsOperator

with DAG(
    dag_id="rebuild_warehouse",
    doc_md=__doc__,
    description="Builds the warehouse again from raw, elsewhere, and compares the two",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Kyiv"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=24),
    default_args={
        "owner": "data-platform",
        "retries": 1,
        "retry_delay": timedelta(minutes=1),
        "execution_timeout": timedelta(hours=12),
    },
    params={
        "pipeline": Param(
            "techmarket",
            type=["null", "string"],
            title="Pipeline",
            description="Whose tables are built again.",
        ),
        "take_over": Param(
            default=False,
            type=["null", "boolean"],
            title="Take over",
            description="The warehouse and the targets become what was rebuilt, where they differ from it.",
        ),
    },
    tags=["operations"],
):
    asked = {
        "pipeline": "{{ params.pipeline or 'techmarket' }}",
        "take_over": "{{ params.take_over or False }}",
    }
    RebuildWarehouseOperator(task_id="rebuild", **asked) >> RebuiltToTargetsOperator(
        task_id="targets", **asked
    )
