"""The lake to ClickHouse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.clickhousedb.hooks.clickhouse import ClickHouseHook
from airflow.sdk import BaseOperator

from tallyhouse import declared_lineage
from tallyhouse.contracts import load_pipeline
from tallyhouse.publish import clickhouse
from tallyhouse_airflow.hooks.failures import find_connection, refused
from tallyhouse_airflow.hooks.lake import LakeHook
from tallyhouse_airflow.hooks.postgres import CheckedPostgresHook
from tallyhouse_airflow.hooks.run_failures import kept_errors
from tallyhouse_airflow.operators.openlineage_facets import LineageMixin

if TYPE_CHECKING:
    from airflow.sdk import Context


class LakeToClickHouseOperator(LineageMixin, BaseOperator):
    """Brings ClickHouse to what the warehouse shows: star schema and marts, staged, swapped, counted.

    Every published run that ClickHouse lacks is applied, so one that died half-way is finished here.

    :param pipeline: name of the pipeline's contract (templated)
    :param run_id: the run, from `etl.run` (templated)
    :param clickhouse_conn_id: connection of ClickHouse
    :param dwh_conn_id: connection of the warehouse
    :param lake_conn_id: connection of the lake; ClickHouse itself reads from it
    """

    template_fields: Sequence[str] = ("pipeline", "run_id")
    ui_color = "#fbe8c8"

    def __init__(
        self,
        *,
        pipeline: str,
        run_id: str,
        clickhouse_conn_id: str = "clickhouse_dwh",
        dwh_conn_id: str = "pg_dwh",
        lake_conn_id: str = "s3_lake",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.run_id = run_id
        self.clickhouse_conn_id = clickhouse_conn_id
        self.dwh_conn_id = dwh_conn_id
        self.lake_conn_id = lake_conn_id

    def execute(self, context: Context) -> dict[str, int]:
        """Applies, swaps and compares.

        Returns:
            `lines` of the ledger, all closed.
        """
        where = f"pipeline {self.pipeline} in run {self.run_id}"
        with kept_errors(self, context, where):
            lake_hook = LakeHook(aws_conn_id=self.lake_conn_id)
            lake = lake_hook.get_lake(where)
            find_connection(self.clickhouse_conn_id, where)
            try:
                client = ClickHouseHook(clickhouse_conn_id=self.clickhouse_conn_id).get_client()
            except Exception as error:  # the driver passes on whatever the HTTP client raised
                raise refused(self.clickhouse_conn_id, where, error) from error
            lines = clickhouse.publish(
                lambda: CheckedPostgresHook(postgres_conn_id=self.dwh_conn_id).connect(where),
                client,
                lake,
                clickhouse.LakeAccess(**lake_hook.access(where)),
                load_pipeline(self.pipeline),
                self.run_id,
            )
        for line in lines:
            self.log.info("%s %s %s: %s", line.table, line.hop, line.measure, line.left)
        return {"lines": len(lines)}

    def reads_and_writes(self, stores: declared_lineage.Stores) -> declared_lineage.TaskLineage:
        """See `LineageMixin`."""
        return declared_lineage.show(load_pipeline(self.pipeline), stores)
