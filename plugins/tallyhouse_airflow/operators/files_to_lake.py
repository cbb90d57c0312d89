"""CSV files of fetched datasets to raw."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from tallyhouse import declared_lineage
from tallyhouse.contracts import TableContract
from tallyhouse.extract import files
from tallyhouse.extract.schema_drift import Checked
from tallyhouse.extract.stream import SourceStream
from tallyhouse.lake import Lake, Manifest
from tallyhouse_airflow.hooks.lake import LakeHook
from tallyhouse_airflow.operators.extraction import ExtractionOperator


class FilesToLakeOperator(ExtractionOperator):
    """Streams files of datasets that are in the lake into raw Parquet, each whole.

    Knows nothing of the source but its contract. See `ExtractionOperator` for the parameters; the source's
    connection is that of the lake in which the files are.
    """

    engine = "files"
    refusals = ()

    def check_tables(self, tables: list[TableContract], last: dict[str, Manifest]) -> list[Checked]:
        """Looks for the newest version of each file."""
        lake = self._source()
        for table in tables:
            files.find_file(lake, self.contract.files[table.name], table)
        return [Checked(table) for table in tables]

    def open_stream(
        self, table: TableContract, watermark: datetime | None, keys: Collection[int] | None = None
    ) -> SourceStream:
        """Opens a file after looking at each of its rows."""
        lake = self._source()
        file = files.find_file(lake, self.contract.files[table.name], table)
        self.log.info("%s: %s, %s bytes", table.qualified_name, file.key, file.bytes)
        return files.open_stream(lake, file, table)

    def reads_and_writes(self, stores: declared_lineage.Stores) -> declared_lineage.TaskLineage:
        """See `LineageMixin`: the files are in the lake."""
        return declared_lineage.extraction(self.contract, self._tables(), stores.lake, "", stores)

    def _source(self) -> Lake:
        return LakeHook(aws_conn_id=self.conn_id).get_lake()
