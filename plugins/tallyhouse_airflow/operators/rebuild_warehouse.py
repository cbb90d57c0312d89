"""The warehouse and its targets, built again from raw and compared, or taken over."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tallyhouse.declared_lineage import Stores, TaskLineage
from tallyhouse.errors import TallyhouseError
from tallyhouse.publish import follow
from tallyhouse.publish.rebuild import check_same
from tallyhouse.publish.target import conn_id
from tallyhouse.runs import newest_published
from tallyhouse_airflow.hooks.run_conf import check_conf
from tallyhouse_airflow.hooks.servers import postgres_server
from tallyhouse_airflow.hooks.target import open_target
from tallyhouse_airflow.operators.of_a_run import PipelineOperator
from tallyhouse_airflow.operators.openlineage_facets import LineageMixin
from tallyhouse_airflow.operators.spark_job import SparkJobOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class RebuildWarehouseOperator(SparkJobOperator):
    """Publishes every run of a pipeline once more into another database, and compares it with the warehouse.

    :param rebuild_conn_id: connection of the other database; whatever it holds goes
    :param take_over: `True` where the warehouse has to become what was rebuilt (templated)

    See `SparkJobOperator` for the other parameters; there is no run of the warehouse.
    """

    template_fields: Sequence[str] = ("job", "pipeline", "take_over")

    def __init__(
        self, *, rebuild_conn_id: str = "pg_rebuild", take_over: str = "False", **kwargs: Any
    ) -> None:
        super().__init__(job="rebuild", run_id="rebuild", **kwargs)
        self.rebuild_conn_id = rebuild_conn_id
        self.take_over = take_over

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
            "TAKE_OVER": self.take_over,
        }

    def reads_and_writes(self, stores: Stores) -> TaskLineage:
        """Nothing that anybody else reads; see `LineageMixin`."""
        return TaskLineage()


class RebuiltToTargetsOperator(LineageMixin, PipelineOperator):
    """Compares each target with the rebuilt warehouse, or copies the warehouse that took it over into them.

    :param rebuild_conn_id: connection of the rebuilt database
    :param take_over: `True` where the warehouse has become what was rebuilt (templated)

    See `PipelineOperator` for the other parameters; there is no run of the warehouse.
    """

    template_fields: Sequence[str] = ("pipeline", "take_over")

    def __init__(
        self, *, rebuild_conn_id: str = "pg_rebuild", take_over: str = "False", **kwargs: Any
    ) -> None:
        super().__init__(run_id="rebuild", **kwargs)
        self.rebuild_conn_id = rebuild_conn_id
        self.take_over = take_over

    def carry_out(self, context: Context) -> dict[str, int]:
        """Compares, or copies and compares.

        Returns:
            `lines` that close.

        Raises:
            TallyhouseError: A target differs, or shows another run than the warehouse.
        """
        lake, lines = self.lake_hook.get_lake(), []
        for name in self.contract.targets:
            with closing(open_target(name, conn_id(name), self.lake_hook)) as target:
                if self.take_over == "True":
                    with self.warehouse.connect() as connection:
                        last = newest_published(connection, self.pipeline)
                    lines += follow.publish(
                        *(self.warehouse.connect, name, target, lake, self.contract, str(last)), whole=True
                    )
                else:
                    with postgres_server(self.rebuild_conn_id).connect() as rebuilt:
                        found = follow.compare_rebuilt(
                            self.warehouse.connect, rebuilt, name, target, lake, self.contract
                        )
                    check_same(found)
                    lines += found
        self.log.info("%s lines of targets close", len(lines))
        return {"lines": len(lines)}

    def reads_and_writes(self, stores: Stores) -> TaskLineage:
        """Nothing that anybody else reads; see `LineageMixin`."""
        return TaskLineage()
