"""The lake to ClickHouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.clickhousedb.hooks.clickhouse import ClickHouseHook

from tallyhouse import declared_lineage
from tallyhouse.publish import clickhouse
from tallyhouse_airflow.hooks.failures import find_connection, refused
from tallyhouse_airflow.operators.of_a_run import PipelineOperator
from tallyhouse_airflow.operators.openlineage_facets import LineageMixin

if TYPE_CHECKING:
    from airflow.sdk import Context


class LakeToClickHouseOperator(LineageMixin, PipelineOperator):
    """Brings ClickHouse to what the warehouse shows: star schema and marts, staged, swapped, counted.

    Every published run that ClickHouse lacks is applied, so one that died half-way is finished here.

    :param clickhouse_conn_id: connection of ClickHouse, which itself reads from the lake

    See `PipelineOperator` for the other parameters.
    """

    ui_color = "#fbe8c8"

    def __init__(self, *, clickhouse_conn_id: str = "clickhouse_dwh", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.clickhouse_conn_id = clickhouse_conn_id

    def carry_out(self, context: Context) -> dict[str, int]:
        """Applies, swaps and compares.

        Returns:
            `lines` of the ledger, all closed.
        """
        lake = self.lake_hook.get_lake()
        find_connection(self.clickhouse_conn_id)
        try:
            client = ClickHouseHook(clickhouse_conn_id=self.clickhouse_conn_id).get_client()
        except Exception as error:  # the driver passes on whatever the HTTP client raised
            raise refused(self.clickhouse_conn_id, error) from error
        lines = clickhouse.publish(
            self.warehouse.connect,
            client,
            lake,
            clickhouse.LakeAccess(**self.lake_hook.access()),
            self.contract,
            self.run_id,
        )
        for line in lines:
            self.log.info("%s %s %s: %s", line.table, line.hop, line.measure, line.left)
        return {"lines": len(lines)}

    def reads_and_writes(self, stores: declared_lineage.Stores) -> declared_lineage.TaskLineage:
        """See `LineageMixin`."""
        return declared_lineage.show(self.contract, stores)
