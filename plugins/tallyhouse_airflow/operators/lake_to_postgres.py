"""The lake to the PostgreSQL warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from tallyhouse import declared_lineage
from tallyhouse.contracts import load_pipeline
from tallyhouse.ledger import ROWS, Hop
from tallyhouse.publish import postgres
from tallyhouse_airflow.hooks.lake import LakeHook
from tallyhouse_airflow.hooks.postgres import CheckedPostgresHook
from tallyhouse_airflow.hooks.run_failures import kept_errors
from tallyhouse_airflow.operators.openlineage_facets import LineageMixin

if TYPE_CHECKING:
    from airflow.sdk import Context


class LakeToPostgresOperator(LineageMixin, BaseOperator):
    """Publishes a run: accepted rows into `ods`, increments into the star schema, in one transaction.

    The ledger is written in that transaction, and nothing is published unless it closes. A run that
    is published already is left as it is.

    :param pipeline: name of the pipeline's contract (templated)
    :param run_id: the run, from `etl.run` (templated)
    :param dwh_conn_id: connection of the warehouse
    :param lake_conn_id: connection of the lake
    """

    template_fields: Sequence[str] = ("pipeline", "run_id")
    ui_color = "#d8efd8"

    def __init__(
        self,
        *,
        pipeline: str,
        run_id: str,
        dwh_conn_id: str = "pg_dwh",
        lake_conn_id: str = "s3_lake",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.run_id = run_id
        self.dwh_conn_id = dwh_conn_id
        self.lake_conn_id = lake_conn_id

    def execute(self, context: Context) -> dict[str, int]:
        """Publishes the run.

        Returns:
            `rows` taken from the sources and `lines` of the ledger, all closed.
        """
        where = f"pipeline {self.pipeline} in run {self.run_id}"
        with kept_errors(self, context, where):
            hook = CheckedPostgresHook(postgres_conn_id=self.dwh_conn_id)
            lines = postgres.publish(
                lambda: hook.connect(where),
                hook.address(where),
                LakeHook(aws_conn_id=self.lake_conn_id).get_lake(where),
                load_pipeline(self.pipeline),
                self.run_id,
            )
        for line in lines:
            self.log.info("%s %s %s: %s", line.table, line.hop, line.measure, line.left)
        rows = sum(line.left for line in lines if line.hop is Hop.SOURCE_RAW and line.measure == ROWS)
        self.log.info("the warehouse shows %s: %s rows taken, every line closes so far", self.run_id, rows)
        return {"rows": int(rows), "lines": len(lines)}

    def reads_and_writes(self, stores: declared_lineage.Stores) -> declared_lineage.TaskLineage:
        """See `LineageMixin`."""
        return declared_lineage.publish(load_pipeline(self.pipeline), stores)
