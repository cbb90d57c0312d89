"""The tasks of a nightly run, from `open_run` to the last target, for any pipeline."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import Param, TaskGroup, chain

from tallyhouse.contracts.load import has_models, outline
from tallyhouse.settings import TargetsSetting
from tallyhouse_airflow.operators.extraction import ExtractionOperator
from tallyhouse_airflow.operators.files_to_lake import FilesToLakeOperator
from tallyhouse_airflow.operators.lake_to_postgres import LakeToPostgresOperator
from tallyhouse_airflow.operators.mysql_to_lake import MySqlToLakeOperator
from tallyhouse_airflow.operators.of_a_run import RunOperator
from tallyhouse_airflow.operators.postgres_to_lake import PostgresToLakeOperator
from tallyhouse_airflow.operators.run import CloseRunOperator, OpenRunOperator
from tallyhouse_airflow.operators.spark_job import CheckBatchOperator, TransformBatchOperator
from tallyhouse_airflow.operators.warehouse_to_target import WarehouseToTargetOperator
from tallyhouse_airflow.task_groups.published import published

EXTRACTIONS: dict[str, type[ExtractionOperator]] = {
    operator.engine: operator
    for operator in (MySqlToLakeOperator, PostgresToLakeOperator, FilesToLakeOperator)
}
"""The operator that extracts a source, by the engine that its contract names."""


def nightly_settings(pipeline: str, *, schedule: str = "0 2 * * *", hours: float = 2) -> dict[str, Any]:
    """What the DAG of a nightly pipeline is set to, but for its name and its description.

    Args:
        pipeline: Name of the pipeline's contract.
        schedule: When it starts, Kyiv's time.
        hours: How long a run may take; a task may take half of it.
    """
    return {
        "schedule": schedule,
        "start_date": pendulum.datetime(2026, 1, 1, tz="Europe/Kyiv"),
        "catchup": False,
        "max_active_runs": 1,
        "dagrun_timeout": timedelta(hours=hours),
        "default_args": {
            "owner": "data-platform",
            "retries": 1,
            "retry_delay": timedelta(seconds=30),
            "execution_timeout": timedelta(hours=hours / 2),
        },
        "params": nightly_params(pipeline),
        "render_template_as_native_obj": True,
        "tags": [pipeline, "nightly"],
    }


def nightly_params(pipeline: str) -> dict[str, Param]:
    """What the web form asks before a run is started by hand.

    Args:
        pipeline: Name of the pipeline's contract.
    """
    tables = [table for source in outline(pipeline).values() for table in source.tables]
    return {
        "tables": Param(
            [],
            type=["null", "array"],  # the web form marks what may not be null as required
            items={"type": "string", "enum": tables},
            examples=tables,
            title="Tables",
            description="Tables to take; none chosen takes them all.",
        ),
        "full_refresh": Param(
            False,
            type=["null", "boolean"],
            title="Full refresh",
            description="Take whole tables instead of what changed since the last run.",
        ),
        "allow_deletes": Param(
            False,
            type=["null", "boolean"],
            title="Allow deletes",
            description="Mark rows as deleted that the source no longer has, however many they are.",
        ),
    }


def nightly(pipeline: str, fetch: type[RunOperator] | None = None) -> None:
    """Wires the tasks of a nightly run into the DAG at hand.

    Args:
        pipeline: Name of the pipeline's contract, which says what its sources are.
        fetch: Brings first what is extracted to where it is extracted from.
    """
    asked = {"tables": "{{ params.tables }}", "full_refresh": "{{ params.full_refresh }}"}
    open_run = OpenRunOperator(task_id="open_run", pipeline=pipeline, **asked)
    run: dict[str, Any] = {"pipeline": pipeline, "run_id": open_run.output}
    models = has_models(pipeline)
    fetched = [fetch(task_id="fetch", run_id=open_run.output)] if fetch else []
    with TaskGroup("extract", tooltip="One snapshot per table, streamed into immutable raw") as extract:
        for name, source in outline(pipeline).items():
            EXTRACTIONS[source.engine](
                task_id=name,
                source=name,
                run_id=open_run.output,
                allow_deletes="{{ params.allow_deletes }}",
                **asked,
            )
    check = CheckBatchOperator(task_id="check", **run)
    transform = TransformBatchOperator(task_id="transform", **run)
    with TaskGroup("publish", tooltip="One transaction, then targets, verified before they show") as publish:
        warehouse = LakeToPostgresOperator(
            task_id="warehouse",
            outlets=published(pipeline, "warehouse/ods", *(["warehouse/star-schema"] if models else [])),
            **run,
        )
        for target in TargetsSetting().names if models else ():
            outlets = published(pipeline, f"{target}/star-schema", f"{target}/marts")
            warehouse >> WarehouseToTargetOperator(task_id=target, target=target, outlets=outlets, **run)
    # Not tied to open_run as its setup: clearing any task would then clear open_run too, and give the
    # tasks after it another run in the middle of a run.
    close_run = CloseRunOperator(task_id="close_run", run_id=open_run.output).as_teardown()
    chain(open_run, *fetched, extract)
    extract >> check >> transform >> publish >> close_run
