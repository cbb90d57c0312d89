"""The warehouse, built again from raw and compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tallyhouse.declared_lineage import Stores, TaskLineage
from tallyhouse.errors import TallyhouseError
from tallyhouse_airflow.hooks.run_conf import check_conf
from tallyhouse_airflow.hooks.servers import postgres_server
from tallyhouse_airflow.operators.spark_job import SparkJobOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class RebuildWarehouseOperator(SparkJobOperator):
    """Publishes every run of a pipeline once more into another database, and compares it with the warehouse.

    :param rebuild_conn_id: connection of the other database; whatever it holds goes

    See `SparkJobOperator` for the other parameters; there is no run of the warehouse.
    """

    template_fields: Sequence[str] = ("job", "pipeline")

    def __init__(self, *, rebuild_conn_id: str = "pg_rebuild", **kwargs: Any) -> None:
        super().__init__(job="rebuild", run_id="rebuild", **kwargs)
        self.rebuild_conn_id = rebuild_conn_id

    def carry_out(self, context: Context) -> None:
        """Rebuilds and compares.

        Raises:
            TallyhouseError: A parameter is unknown, raw of a run is gone, or the two databases differ.
        """
        check_conf(context)
        try:
            _ = self.contract
        except ValueError as error:
            raise TallyhouseError(str(error), remedy="Correct `pipeline` and start it again") from error
        super().carry_out(context)

    def _more_environment(self) -> dict[str, str]:
        return {
            "LIVE_CONNINFO": postgres_server(self.dwh_conn_id).conninfo,
            "DWH_CONNINFO": postgres_server(self.rebuild_conn_id, for_java=True).conninfo,
        }

    def reads_and_writes(self, stores: Stores) -> TaskLineage:
        """Nothing that anybody else reads; see `LineageMixin`."""
        return TaskLineage()
