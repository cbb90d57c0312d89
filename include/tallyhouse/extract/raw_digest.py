"""The digest of raw, computed by another engine than the one that wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tallyhouse.contracts import TableContract
from tallyhouse.extract.digest import row_digest, total
from tallyhouse.lake import Lake


def raw_digest(lake: Lake, keys: list[str], contract: TableContract) -> str:
    """Reads Parquet objects back and digests their rows, in bounded batches.

    Args:
        lake: Where they are.
        keys: The objects of one batch.
        contract: The table.

    Returns:
        The digest as the source states it: exact decimal text.
    """
    if not keys:
        return "0"
    columns = contract.source_columns
    number = row_digest("duckdb", [(column.type, f'raw."{column.name}"') for column in columns])
    with raw_view(lake, keys) as connection:
        row = connection.execute(f"SELECT {total('duckdb', number)} FROM raw").fetchone()
    assert row is not None  # noqa: S101 - an aggregate without GROUP BY has one row
    return str(row[0])


@contextmanager
def raw_view(
    lake: Lake, keys: list[str], columns: list[str] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Parquet objects as the view `raw` of a DuckDB of its own, which is read once, in bounded batches.

    Args:
        lake: Where they are.
        keys: The objects of one batch; one at least.
        columns: Those that are needed; None for all.
    """
    with lake.filesystem.open_input_file(lake.path(keys[0])) as file:
        schema = pq.read_schema(file)
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        rows = (batch.select(schema.names) for batch in lake.read_batches(keys, columns=columns))
        connection.register("raw", pa.RecordBatchReader.from_batches(schema, rows))
        yield connection
