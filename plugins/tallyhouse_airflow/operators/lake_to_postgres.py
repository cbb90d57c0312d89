"""The lake to the PostgreSQL warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallyhouse import declared_lineage
from tallyhouse.ledger import ROWS, Hop
from tallyhouse.publish import postgres
from tallyhouse_airflow.operators.of_a_run import PipelineOperator
from tallyhouse_airflow.operators.openlineage_facets import LineageMixin

if TYPE_CHECKING:
    from airflow.sdk import Context


class LakeToPostgresOperator(LineageMixin, PipelineOperator):
    """Publishes a run: accepted rows into `ods`, increments into the star schema, in one transaction.

    The ledger is written in that transaction, and nothing is published unless it closes. A run that
    is published already is left as it is. See `PipelineOperator` for the parameters.
    """

    ui_color = "#d8efd8"

    def carry_out(self, context: Context) -> dict[str, int]:
        """Publishes the run.

        Returns:
            `rows` taken from the sources and `lines` of the ledger, all closed.
        """
        lines = postgres.publish(
            self.warehouse.connect,
            self.warehouse.address(),
            self.lake_hook.get_lake(),
            self.contract,
            self.run_id,
        )
        for line in lines:
            self.log.info("%s %s %s: %s", line.table, line.hop, line.measure, line.left)
        rows = sum(line.left for line in lines if line.hop is Hop.SOURCE_RAW and line.measure == ROWS)
        self.log.info("the warehouse shows %s: %s rows taken, every line closes so far", self.run_id, rows)
        return {"rows": int(rows), "lines": len(lines)}

    def reads_and_writes(self, stores: declared_lineage.Stores) -> declared_lineage.TaskLineage:
        """See `LineageMixin`."""
        return declared_lineage.publish(self.contract, stores)
