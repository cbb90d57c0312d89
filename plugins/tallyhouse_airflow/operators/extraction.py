"""What the operators that extract a source into the lake have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseHook

from tallyhouse import declared_lineage
from tallyhouse.contracts import SourceContract, TableContract, load_source
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.extract.changes import Comparison, compare_rows, went_back
from tallyhouse.extract.deletes import Census, check_limit, take_census
from tallyhouse.extract.give_way import GiveWay
from tallyhouse.extract.open_work import OpenWork, behind, check_primary, next_watermark, tell
from tallyhouse.extract.preflight import check_columns, warn_of_slow_cursor
from tallyhouse.extract.schema_drift import Checked, check_definition, check_unchanged
from tallyhouse.extract.stream import SourceStream
from tallyhouse.extract.to_raw import source_raw, write_batch
from tallyhouse.lake import Lake, Manifest, find_manifests
from tallyhouse.ledger import Line
from tallyhouse.ledger.store import write_unless_published
from tallyhouse.runs import last_published, read_watermarks
from tallyhouse_airflow.operators.of_a_run import RunOperator
from tallyhouse_airflow.operators.openlineage_facets import LineageMixin

if TYPE_CHECKING:
    from airflow.sdk import Context


def _window(watermark: datetime | None, compared: Comparison | None) -> str:
    found = f"{len(compared.keys)} rows that differ" if compared else ""
    window = f"the window since {watermark.isoformat()}" if watermark else ""
    return " and ".join(filter(None, (window, found)))


class ExtractionOperator(LineageMixin, RunOperator):
    """Takes the window of each table of a source into raw, one table after the other.

    Returns a small manifest: the key and the rows of each batch.

    :param source: name of the source's contract (templated)
    :param tables: tables to take; those of other sources are passed over, None takes all (templated)
    :param full_refresh: take whole tables instead of the window since the watermark (templated)
    :param allow_deletes: whether more rows may be deleted than a contract's limit, and a source be followed
        that went back in time (templated)
    :param source_conn_id: connection of the extraction account; the contract's by default (templated)

    See `RunOperator` for the other parameters.
    """

    template_fields: Sequence[str] = (
        *("source", "run_id", "tables", "full_refresh"),
        *("allow_deletes", "source_conn_id"),
    )
    ui_color = "#dbe9f6"

    engine: ClassVar[str]
    """The engine of the contracts that it extracts."""
    refusals: ClassVar[tuple[type[Exception], ...]]
    """What the driver raises when the source does not let itself be read."""

    def __init__(
        self,
        *,
        source: str,
        tables: list[str] | str | None = None,
        full_refresh: bool | str = False,
        allow_deletes: bool | str = False,
        source_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.tables = tables
        self.full_refresh = full_refresh
        self.allow_deletes = allow_deletes
        self.source_conn_id = source_conn_id

    @property
    def about(self) -> str:
        """See `RunOperator`."""
        return f"source {self.source}"

    @property
    def contract(self) -> SourceContract:
        """The source's contract."""
        return load_source(self.source)

    @property
    def conn_id(self) -> str:
        """The connection of the extraction account."""
        return self.source_conn_id or self.contract.conn_id

    def carry_out(self, context: Context) -> dict[str, dict[str, Any]]:
        """Extracts the source's tables.

        Returns:
            By table name: `key` of the manifest in the lake, and `rows`.
        """
        tables = self._tables()
        result: dict[str, dict[str, Any]] = {}
        lines: list[Line] = []
        if not tables:
            self.log.info("none of the tables asked for is of the source %s", self.source)
            return result
        lake = self.lake_hook.get_lake()
        with self.warehouse.connect() as connection:
            watermarks = read_watermarks(connection, tables)
            published = last_published(connection, [table.name for table in tables])
        last = {
            table.name: manifest
            for table in tables
            if table.name in published
            for manifest in find_manifests(lake, published[table.name], [table])
        }
        # All tables are compared with their contracts before the first one is read.
        checked = self.check_tables(tables, last)
        # Once, before the first snapshot: what holds for the first one holds for all later ones.
        work = self.look_for_open_work()
        if work is not None:
            check_primary(work, self.contract)
            if any(table.cursor for table in tables):
                tell(work, self.contract)
        for number, one in enumerate(checked, start=1):
            self.log.info("%s/%s %s", number, len(tables), one.contract.qualified_name)
            name = one.contract.name
            manifest = self._take(
                *(one, lake, work, watermarks[name], last.get(name), context["ti"].try_number)
            )
            result[name] = {"key": manifest.key, "rows": manifest.rows}
            lines += source_raw(manifest)
        # Now, not only with the publish: a run that the gate refuses has taken these rows all the same.
        with self.warehouse.connect() as connection:
            write_unless_published(connection, self.run_id, lines)
        return result

    def reads_and_writes(self, stores: declared_lineage.Stores) -> declared_lineage.TaskLineage:
        """See `LineageMixin`."""
        conn = BaseHook.get_connection(self.conn_id)
        return declared_lineage.extraction(
            self.contract,
            self._tables(),
            f"{self.contract.engine}://{conn.host}:{conn.port}",
            conn.schema or "",
            stores,
        )

    def _tables(self) -> list[TableContract]:
        return [table for table in self.contract.tables if not self.tables or table.name in self.tables]

    def _take(
        self,
        checked: Checked,
        lake: Lake,
        work: OpenWork | None,
        published: datetime | None,
        previous: Manifest | None,
        attempt: int,
    ) -> Manifest:
        """Takes one table."""
        table = checked.contract
        watermark = None if self.full_refresh or checked.whole else published
        if work is not None and behind(work, watermark):
            self.log.warning(
                "%s: the server's clock is before the watermark %s, it was set back; the whole table is "
                "taken",
                *(table.qualified_name, watermark),
            )
            watermark = None
        with self.giving_way(table):
            # Without a cursor a window has nothing but the rows that a comparison finds.
            has_window = watermark is not None or table.cursor is None
            asked_whole = bool(self.full_refresh) or checked.whole or not has_window
            compared = self.compare(table, watermark, whole=asked_whole)
            whole = watermark is None and compared is None
            if compared is not None and compared.whole:
                watermark, whole = None, True
            self.log.info(
                *("%s: %s", table.qualified_name),
                "the whole table" if whole else _window(watermark, compared),
            )
            return write_batch(
                self._open(table, watermark, None if whole or compared is None else compared.keys),
                lake,
                table,
                run_id=self.run_id,
                attempt=attempt,
                watermark=watermark,
                next_watermark=next_watermark(work, self.contract, published) if work is not None else None,
                census=partial(self.census, checked, lake, whole=whole),
                compared=compared,
                checked=checked,
                previous=previous,
            )

    def _open(
        self, table: TableContract, watermark: datetime | None, keys: Collection[int] | None
    ) -> SourceStream:
        try:
            return self.open_stream(table, watermark, keys)
        except self.refusals as error:
            raise TallyhouseError(
                f"the source refused to be read ({first_line(error)})",
                remedy=f"The next try reads it again; where it stays so, see the server's log, who ends or "
                f"locks out our statements, and the grants of the account of {self.conn_id}",
                transient=True,
                table=table.qualified_name,
            ) from error

    @abstractmethod
    def check_tables(self, tables: list[TableContract], last: dict[str, Manifest]) -> list[Checked]:
        """Makes sure that the source is there, and that its tables are what their contracts say.

        Args:
            tables: What is to be taken.
            last: The last published batch of each table, by its name, where there is one.

        Returns:
            What is taken of each.

        Raises:
            TallyhouseError: It is not, or they are not.
        """

    def look_for_open_work(self) -> OpenWork | None:
        """Reads the source's clock, and then what is open on it; nothing where no table has a cursor."""
        return None

    @abstractmethod
    def open_stream(
        self, table: TableContract, watermark: datetime | None, keys: Collection[int] | None = None
    ) -> SourceStream:
        """Opens the extraction of one table, see `extract.statement.build`."""

    def compare(self, table: TableContract, watermark: datetime | None, *, whole: bool) -> Comparison | None:
        """Compares the rows outside of the window with what was taken of them; None where nobody looks.

        Args:
            table: Whose rows.
            watermark: Where the window begins.
            whole: Whether the whole table is taken anyway.
        """
        return None

    def giving_way(self, table: TableContract) -> AbstractContextManager[object]:
        """Surrounds the reading of a table: what waits for its end does not wait for long."""
        return nullcontext()

    def census(
        self, checked: Checked, lake: Lake, parts: list[str], at: datetime, *, whole: bool
    ) -> Census | None:
        """Looks for rows that the source no longer has; None where it cannot be asked.

        Args:
            checked: Whose rows.
            lake: Where the batch is.
            parts: Keys of the batch's Parquet objects.
            at: When the batch's snapshot was opened, UTC.
            whole: Whether the batch is the whole table.
        """
        return None


class DatabaseToLakeOperator(ExtractionOperator):
    """The extraction of a database, see `ExtractionOperator`."""

    def check_tables(self, tables: list[TableContract], last: dict[str, Manifest]) -> list[Checked]:
        """Asks the server for its set-up and its tables' columns."""
        with closing(self.connect()) as source:
            if any(table.cursor for table in tables):
                self.check_server(source)
            checked = [
                check_definition(source, self.contract, table, last.get(table.name)) for table in tables
            ]
            for one in checked:
                check_columns(source, self.engine, one.contract)
                warn_of_slow_cursor(source, self.engine, one.contract)
        return checked

    def giving_way(self, table: TableContract) -> AbstractContextManager[object]:
        """See `ExtractionOperator` and `extract.give_way`."""
        return GiveWay(self.connect, self.engine, table, self.contract.give_way)

    def census(
        self, checked: Checked, lake: Lake, parts: list[str], at: datetime, *, whole: bool
    ) -> Census | None:
        """See `ExtractionOperator`; also makes sure that the table is still defined as it was."""
        table = checked.contract
        if table.deletes == "ignore":
            with closing(self.connect()) as source:
                check_unchanged(source, self.engine, checked)
            return None
        with closing(self.connect()) as source, self.warehouse.connect() as warehouse:
            census = take_census(
                *(source, self.engine, warehouse, lake, table, parts),
                whole_at=at if whole else None,
                replica_lag=self.contract.replica_lag,
            )
            source.rollback()
            check_unchanged(source, self.engine, checked)
        if census is not None:
            check_limit(table, census, allowed=bool(self.allow_deletes))
            if census.deleted:
                self.log.info("%s: %s rows are no longer there", table.qualified_name, len(census.deleted))
        return census

    def compare(self, table: TableContract, watermark: datetime | None, *, whole: bool) -> Comparison | None:
        """See `ExtractionOperator`; a source that went back in time is asked about first."""
        with closing(self.connect()) as source, self.warehouse.connect() as warehouse:
            back = went_back(source, self.engine, warehouse, table, allowed=bool(self.allow_deletes))
            if whole:
                return None
            if back:
                self.log.warning("%s: the source went back in time; the whole table is taken", table.name)
                return Comparison(None, table.row_digests or 1, 0, whole=True)
            compared = compare_rows(source, self.engine, warehouse, table, watermark)
        if compared is not None and compared.at is not None:
            self.log.info(
                "%s: %s rows outside of the window compared in %s s, %s buckets of %s differ",
                *(
                    table.qualified_name,
                    compared.rows,
                    compared.seconds,
                    compared.differing,
                    compared.buckets,
                ),
            )
        return compared

    @abstractmethod
    def connect(self) -> Any:
        """A DB-API connection to the source, as the extraction account.

        Raises:
            TallyhouseError: There is no such Airflow connection, or the server does not let us in.
        """

    def check_server(self, connection: Any) -> None:
        """Makes sure that the server is set up as windows need it; nothing to ask by default.

        Raises:
            TallyhouseError: It is not.
        """

    @abstractmethod
    def look_for_open_work(self) -> OpenWork:
        """Reads the server's clock, and then what is open on it."""
