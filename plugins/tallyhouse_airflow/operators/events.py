"""Events: JSON objects to the lake, and curated files to their places."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from tallyhouse.contracts import load_pipeline
from tallyhouse.events.publish import publish, recover
from tallyhouse.events.take import take
from tallyhouse.ledger import ROWS, Hop, Line
from tallyhouse.ledger.store import write_unless_published
from tallyhouse.runs import may_publish
from tallyhouse_airflow.hooks.lake import LakeHook
from tallyhouse_airflow.hooks.postgres import CheckedPostgresHook
from tallyhouse_airflow.hooks.run_failures import kept_errors

if TYPE_CHECKING:
    from airflow.sdk import Context


class EventObjectsToLakeOperator(BaseOperator):
    """Takes the JSON objects that no run has taken yet into a raw batch, line by line.

    Before that it finishes what an earlier run's death may have left. Returns a small manifest.

    :param run_id: the run, from `etl.run` (templated)
    :param limit: the most objects to take; none takes all (templated)
    :param pipeline: name of the pipeline's contract
    :param events_conn_id: connection of the events' bucket
    :param lake_conn_id: connection of the lake
    :param dwh_conn_id: connection of the warehouse
    """

    template_fields: Sequence[str] = ("run_id", "limit")
    ui_color = "#dbe9f6"

    def __init__(
        self,
        *,
        run_id: str,
        limit: int | str | None = None,
        pipeline: str = "events",
        events_conn_id: str = "s3_events",
        lake_conn_id: str = "s3_lake",
        dwh_conn_id: str = "pg_dwh",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.limit = limit
        self.pipeline = pipeline
        self.events_conn_id = events_conn_id
        self.lake_conn_id = lake_conn_id
        self.dwh_conn_id = dwh_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Takes the objects.

        Returns:
            `key` of the manifest in the lake, `objects` and `rows`.
        """
        where = f"pipeline {self.pipeline} in run {self.run_id}"
        pipeline = load_pipeline(self.pipeline)
        (contract,) = pipeline.tables
        with kept_errors(self, context, where):
            store = LakeHook(aws_conn_id=self.events_conn_id).get_events(where)
            lake = LakeHook(aws_conn_id=self.lake_conn_id).get_lake(where)
            with CheckedPostgresHook(postgres_conn_id=self.dwh_conn_id).connect(where) as connection:
                if not may_publish(connection, pipeline.name, self.run_id):
                    self.log.info("run %s is published already: nothing to take", self.run_id)
                    return {}
                state = recover(connection, store, pipeline, self.run_id)
            manifest = take(
                store,
                state,
                lake,
                contract,
                run_id=self.run_id,
                attempt=context["ti"].try_number,
                limit=int(self.limit) if self.limit else None,
            )
            (rows, parts) = (Decimal(manifest.source_rows), Decimal(manifest.rows))
            with CheckedPostgresHook(postgres_conn_id=self.dwh_conn_id).connect(where) as connection:
                write_unless_published(
                    connection,
                    self.run_id,
                    [Line(contract.qualified_name, Hop.SOURCE_RAW, ROWS, rows, parts)],
                )
        self.log.info("%s objects, %s lines", manifest.control_totals["objects"], manifest.rows)
        return {
            "key": manifest.key,
            "objects": int(manifest.control_totals["objects"]),
            "rows": manifest.rows,
        }


class EventsToCuratedOperator(BaseOperator):
    """Commits a curated run: its ledger closes, one entry of the log makes it so, its files move in.

    A run that is published already is left as it is.

    :param run_id: the run, from `etl.run` (templated)
    :param pipeline: name of the pipeline's contract
    :param events_conn_id: connection of the events' bucket
    :param lake_conn_id: connection of the lake
    :param dwh_conn_id: connection of the warehouse
    """

    template_fields: Sequence[str] = ("run_id",)
    ui_color = "#d8efd8"

    def __init__(
        self,
        *,
        run_id: str,
        pipeline: str = "events",
        events_conn_id: str = "s3_events",
        lake_conn_id: str = "s3_lake",
        dwh_conn_id: str = "pg_dwh",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.pipeline = pipeline
        self.events_conn_id = events_conn_id
        self.lake_conn_id = lake_conn_id
        self.dwh_conn_id = dwh_conn_id

    def execute(self, context: Context) -> dict[str, int]:
        """Publishes the run.

        Returns:
            What became of the lines of the raw batch.
        """
        where = f"pipeline {self.pipeline} in run {self.run_id}"
        with kept_errors(self, context, where):
            hook = CheckedPostgresHook(postgres_conn_id=self.dwh_conn_id)
            lines = publish(
                lambda: hook.connect(where),
                LakeHook(aws_conn_id=self.events_conn_id).get_events(where),
                LakeHook(aws_conn_id=self.lake_conn_id).get_lake(where),
                load_pipeline(self.pipeline),
                self.run_id,
            )
        for line in lines:
            self.log.info("%s %s %s: %s", line.table, line.hop, line.measure, line.left)
        outcomes = next(line for line in lines if line.hop is Hop.RAW_CURATED and line.measure == ROWS)
        return {name: int(rows) for name, rows in outcomes.parts.items()}
