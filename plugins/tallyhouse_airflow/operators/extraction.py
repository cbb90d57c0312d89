"""What the operators that extract a source into the lake have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, BaseOperator

from tallyhouse import declared_lineage
from tallyhouse.contracts import SourceContract, TableContract, load_source
from tallyhouse.extract.open_work import OpenWork, behind, check_primary, next_watermark, tell
from tallyhouse.extract.stream import SourceStream
from tallyhouse.extract.to_raw import write_batch
from tallyhouse.ledger import ROWS, Hop, Line
from tallyhouse.ledger.store import write_unless_published
from tallyhouse.runs import read_watermarks
from tallyhouse_airflow.hooks.lake import LakeHook
from tallyhouse_airflow.hooks.postgres import CheckedPostgresHook
from tallyhouse_airflow.hooks.run_failures import kept_errors
from tallyhouse_airflow.operators.openlineage_facets import LineageMixin

if TYPE_CHECKING:
    from airflow.sdk import Context


class ExtractionOperator(LineageMixin, BaseOperator):
    """Takes the window of each table of a source into raw, one table after the other.

    Returns a small manifest: the key and the rows of each batch.

    :param source: name of the source's contract (templated)
    :param run_id: the run, from `etl.run` (templated)
    :param tables: tables to take; those of other sources are passed over, None takes all (templated)
    :param full_refresh: take whole tables instead of the window since the watermark (templated)
    :param source_conn_id: connection of the extraction account; the contract's by default (templated)
    :param lake_conn_id: connection of the lake
    :param dwh_conn_id: connection of the warehouse, which keeps the watermarks
    """

    template_fields: Sequence[str] = ("source", "run_id", "tables", "full_refresh", "source_conn_id")
    ui_color = "#dbe9f6"

    def __init__(
        self,
        *,
        source: str,
        run_id: str,
        tables: list[str] | str | None = None,
        full_refresh: bool | str = False,
        source_conn_id: str | None = None,
        lake_conn_id: str = "s3_lake",
        dwh_conn_id: str = "pg_dwh",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.run_id = run_id
        self.tables = tables
        self.full_refresh = full_refresh
        self.source_conn_id = source_conn_id
        self.lake_conn_id = lake_conn_id
        self.dwh_conn_id = dwh_conn_id

    def execute(self, context: Context) -> dict[str, dict[str, Any]]:
        """Extracts the source's tables.

        Returns:
            By table name: `key` of the manifest in the lake, and `rows`.
        """
        contract = load_source(self.source)
        where = f"source {self.source} in run {self.run_id}"
        tables = self._tables(contract)
        result: dict[str, dict[str, Any]] = {}
        lines: list[Line] = []
        if not tables:
            self.log.info("%s: none of the tables asked for is of this source", where)
            return result
        with kept_errors(self, context, where):
            lake = LakeHook(aws_conn_id=self.lake_conn_id).get_lake(where)
            with CheckedPostgresHook(postgres_conn_id=self.dwh_conn_id).connect(where) as connection:
                watermarks = read_watermarks(connection, tables)
            # All tables are compared with their contracts before the first one is read.
            self.check_source(contract, tables, where)
            # Once, before the first snapshot: what holds for the first one holds for all later ones.
            work = self.look_for_open_work(contract, where) if any(table.cursor for table in tables) else None
            if work is not None:
                check_primary(work, contract, self.run_id)
                tell(work, contract, self.run_id)
            for number, table in enumerate(tables, start=1):
                published = watermarks[table.name]
                watermark = None if self.full_refresh else published
                if work is not None and behind(work, watermark):
                    self.log.warning(
                        "%s in run %s: the server's clock is before the watermark %s, it was set back; "
                        "the whole table is taken",
                        *(table.qualified_name, self.run_id, watermark),
                    )
                    watermark = None
                self.log.info(
                    "%s/%s %s: %s",
                    number,
                    len(tables),
                    table.qualified_name,
                    f"window since {watermark.isoformat()}" if watermark else "the whole table",
                )
                manifest = write_batch(
                    self.open_stream(contract, table, watermark),
                    lake,
                    table,
                    run_id=self.run_id,
                    attempt=context["ti"].try_number,
                    watermark=watermark,
                    next_watermark=next_watermark(work, contract, published) if work is not None else None,
                )
                result[table.name] = {"key": manifest.key, "rows": manifest.rows}
                lines.append(
                    Line(
                        table.qualified_name,
                        Hop.SOURCE_RAW,
                        ROWS,
                        Decimal(manifest.source_rows),
                        Decimal(manifest.rows),
                    )
                )
            # Now, not only with the publish: a run that the gate refuses has taken these rows all the same.
            with CheckedPostgresHook(postgres_conn_id=self.dwh_conn_id).connect(where) as connection:
                write_unless_published(connection, self.run_id, lines)
        return result

    def reads_and_writes(self, stores: declared_lineage.Stores) -> declared_lineage.TaskLineage:
        """See `LineageMixin`."""
        contract = load_source(self.source)
        conn = BaseHook.get_connection(self.source_conn_id or contract.conn_id)
        return declared_lineage.extraction(
            contract,
            self._tables(contract),
            f"{contract.engine}://{conn.host}:{conn.port}",
            conn.schema or "",
            stores,
        )

    def _tables(self, contract: SourceContract) -> list[TableContract]:
        return [table for table in contract.tables if not self.tables or table.name in self.tables]

    @abstractmethod
    def check_source(self, contract: SourceContract, tables: list[TableContract], where: str) -> None:
        """Makes sure that the source answers and that its tables are what their contracts say."""

    @abstractmethod
    def look_for_open_work(self, contract: SourceContract, where: str) -> OpenWork:
        """Reads the server's clock, and then what is open on it."""

    @abstractmethod
    def open_stream(
        self, contract: SourceContract, table: TableContract, watermark: datetime | None
    ) -> SourceStream:
        """Opens the extraction of one table."""
