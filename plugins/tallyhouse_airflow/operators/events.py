"""Events: JSON objects to the lake, and curated files to their places."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tallyhouse.events.publish import publish, recover
from tallyhouse.events.table import EventStore
from tallyhouse.events.take import take
from tallyhouse.ledger import ROWS, Hop, Line
from tallyhouse.ledger.store import write_unless_published
from tallyhouse.runs import may_publish
from tallyhouse_airflow.hooks.lake import LakeHook
from tallyhouse_airflow.operators.of_a_run import PipelineOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class EventsOperator(PipelineOperator):
    """A task of a run of events.

    :param events_conn_id: connection of the events' bucket

    See `RunOperator` for the other parameters.
    """

    def __init__(self, *, events_conn_id: str = "s3_events", pipeline: str = "events", **kwargs: Any) -> None:
        super().__init__(pipeline=pipeline, **kwargs)
        self.events_conn_id = events_conn_id

    def get_events(self) -> EventStore:
        """The events' bucket."""
        return LakeHook(aws_conn_id=self.events_conn_id).get_events()


class EventObjectsToLakeOperator(EventsOperator):
    """Takes the JSON objects that no run has taken yet into a raw batch, line by line.

    Before that it finishes what an earlier run's death may have left. Returns a small manifest.

    :param limit: the most objects to take; none takes all (templated)

    See `EventsOperator` for the other parameters.
    """

    template_fields: Sequence[str] = ("pipeline", "run_id", "limit")
    ui_color = "#dbe9f6"

    def __init__(self, *, limit: int | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.limit = limit

    def carry_out(self, context: Context) -> dict[str, Any]:
        """Takes the objects.

        Returns:
            `key` of the manifest in the lake, `objects` and `rows`.
        """
        (contract,) = self.contract.tables
        store, lake = self.get_events(), self.lake_hook.get_lake()
        with self.warehouse.connect() as connection:
            if not may_publish(connection, self.pipeline, self.run_id):
                self.log.info("run %s is published already: nothing to take", self.run_id)
                return {}
            state = recover(connection, store, self.contract, self.run_id)
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
        with self.warehouse.connect() as connection:
            write_unless_published(
                connection, self.run_id, [Line(contract.qualified_name, Hop.SOURCE_RAW, ROWS, rows, parts)]
            )
        self.log.info("%s objects, %s lines", manifest.control_totals["objects"], manifest.rows)
        return {
            "key": manifest.key,
            "objects": int(manifest.control_totals["objects"]),
            "rows": manifest.rows,
        }


class EventsToCuratedOperator(EventsOperator):
    """Commits a curated run: its ledger closes, its files move in, one commit of the table makes it so.

    A run that is published already is left as it is. See `EventsOperator` for the parameters.
    """

    ui_color = "#d8efd8"

    def carry_out(self, context: Context) -> dict[str, int]:
        """Publishes the run.

        Returns:
            What became of the lines of the raw batch.
        """
        lines = publish(
            self.warehouse.connect, self.get_events(), self.lake_hook.get_lake(), self.contract, self.run_id
        )
        for line in lines:
            self.log.info("%s %s %s: %s", line.table, line.hop, line.measure, line.left)
        outcomes = next(line for line in lines if line.hop is Hop.RAW_CURATED and line.measure == ROWS)
        return {name: int(rows) for name, rows in outcomes.parts.items()}
