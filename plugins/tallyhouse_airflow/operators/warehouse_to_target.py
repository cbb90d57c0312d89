"""The warehouse to a target: whatever store it is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from tallyhouse import declared_lineage
from tallyhouse.publish import follow
from tallyhouse.publish.target import conn_id
from tallyhouse_airflow.hooks.target import open_target
from tallyhouse_airflow.operators.of_a_run import PipelineOperator
from tallyhouse_airflow.operators.openlineage_facets import LineageMixin

if TYPE_CHECKING:
    from airflow.sdk import Context


class WarehouseToTargetOperator(LineageMixin, PipelineOperator):
    """Brings a target to what the warehouse shows: star schema and marts, counted and summed in both.

    Every published run that the target lacks is applied, so one that died half-way is finished here. Another
    target's trouble is not this one's.

    :param target: name of the target, such as `clickhouse` (templated)
    :param target_conn_id: connection of the target; `<target>_dwh` by default (templated)

    See `PipelineOperator` for the other parameters.
    """

    template_fields: Sequence[str] = ("pipeline", "run_id", "target", "target_conn_id")
    ui_color = "#fbe8c8"
    target: str

    def __init__(self, *, target: str, target_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target = target
        self.target_conn_id = target_conn_id

    @property
    def _conn_id(self) -> str:
        return self.target_conn_id or conn_id(self.target)

    def carry_out(self, context: Context) -> dict[str, int]:
        """Applies, builds the marts and compares.

        Returns:
            `lines` of the ledger, all closed.
        """
        lake = self.lake_hook.get_lake()
        with closing(open_target(self.target, self._conn_id, self.lake_hook)) as target:
            lines = follow.publish(
                self.warehouse.connect, self.target, target, lake, self.contract, self.run_id
            )
        for line in lines:
            self.log.info("%s %s %s: %s", line.table, line.hop, line.measure, line.left)
        return {"lines": len(lines)}

    def reads_and_writes(self, stores: declared_lineage.Stores) -> declared_lineage.TaskLineage:
        """See `LineageMixin`."""
        conn = BaseHook.get_connection(self._conn_id)
        server = f"{conn.host}:{conn.port}" if conn.port else str(conn.host)
        named = replace(stores, target=f"{self.target}://{server}", target_db=conn.schema or "dwh")
        return declared_lineage.show(self.contract, named)
