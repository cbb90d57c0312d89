"""The tasks of a nightly run, from `open_run` to ClickHouse, for any pipeline."""

from __future__ import annotations

from collections.abc import Sequence

from airflow.sdk import Param, TaskGroup

from tallyhouse_airflow.operators.extraction import ExtractionOperator
from tallyhouse_airflow.operators.lake_to_clickhouse import LakeToClickHouseOperator
from tallyhouse_airflow.operators.lake_to_postgres import LakeToPostgresOperator
from tallyhouse_airflow.operators.run import CloseRunOperator, OpenRunOperator
from tallyhouse_airflow.operators.spark_job import CheckBatchOperator, TransformBatchOperator
from tallyhouse_airflow.task_groups.published import published

RUN_ID = "{{ ti.xcom_pull(task_ids='open_run') }}"


def nightly_params(tables: Sequence[str]) -> dict[str, Param]:
    """What the web form asks before a run is started by hand.

    Args:
        tables: Every table of the pipeline.
    """
    return {
        "tables": Param(
            [],
            type=["null", "array"],  # the web form marks what may not be null as required
            items={"type": "string", "enum": list(tables)},
            examples=list(tables),
            title="Tables",
            description="Tables to take; none chosen takes them all.",
        ),
        "full_refresh": Param(
            False,
            type=["null", "boolean"],
            title="Full refresh",
            description="Take whole tables instead of what changed since the last run.",
        ),
    }


def nightly(pipeline: str, extractions: dict[str, type[ExtractionOperator]]) -> None:
    """Wires the tasks of a nightly run into the DAG at hand.

    Args:
        pipeline: Name of the pipeline's contract.
        extractions: The operator that extracts each of its sources, by the source's name.
    """
    open_run = OpenRunOperator(
        task_id="open_run",
        pipeline=pipeline,
        tables="{{ params.tables }}",
        full_refresh="{{ params.full_refresh }}",
    )
    with TaskGroup("extract", tooltip="One snapshot per table, streamed into immutable raw") as extract:
        for source, operator in extractions.items():
            operator(
                task_id=source,
                source=source,
                run_id=RUN_ID,
                tables="{{ params.tables }}",
                full_refresh="{{ params.full_refresh }}",
            )
    check = CheckBatchOperator(task_id="check", pipeline=pipeline, run_id=RUN_ID)
    transform = TransformBatchOperator(task_id="transform", pipeline=pipeline, run_id=RUN_ID)
    with TaskGroup("publish", tooltip="One transaction, then verified swaps") as publish:
        warehouse = LakeToPostgresOperator(
            task_id="warehouse",
            pipeline=pipeline,
            run_id=RUN_ID,
            outlets=published(pipeline, "warehouse/ods", "warehouse/star-schema"),
        )
        clickhouse = LakeToClickHouseOperator(
            task_id="clickhouse",
            pipeline=pipeline,
            run_id=RUN_ID,
            outlets=published(pipeline, "clickhouse/star-schema", "clickhouse/marts"),
        )
        warehouse >> clickhouse
    # Not tied to open_run as its setup: clearing any task would then clear open_run too, and give the
    # tasks after it another run in the middle of a run.
    close_run = CloseRunOperator(task_id="close_run", run_id=RUN_ID).as_teardown()
    open_run >> extract >> check >> transform >> publish >> close_run
