"""The digest of raw, computed by another engine than the one that wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tallyhouse.contracts import Column, Kind, TableContract
from tallyhouse.errors import first_line
from tallyhouse.extract.digest import row_digest, total
from tallyhouse.lake import Lake

DIGESTS = pa.schema([pa.field("k", pa.int64()), pa.field("d", pa.int64())])
"""What is kept of each row's digest."""
_BATCH_ROWS = 50_000


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


def raw_row_digests(lake: Lake, keys: list[str], contract: TableContract) -> Iterator[pa.RecordBatch]:
    """Reads Parquet objects back and digests each row, in bounded batches.

    Args:
        lake: Where they are.
        keys: The objects of one batch; one at least.
        contract: The table.

    Returns:
        Batches of `k`, the number of the row's key, and `d`, its digest.
    """
    number = row_digest(
        "duckdb", [(column.type, f'raw."{column.name}"') for column in contract.source_columns]
    )
    with raw_view(lake, keys) as connection:
        found = connection.sql(f"SELECT {raw_number(contract)} AS k, {number} AS d FROM raw")
        yield from found.to_arrow_reader(_BATCH_ROWS)


def raw_row_digests_ordered(
    lake: Lake, batches: list[list[str]], contract: TableContract, which: str
) -> Iterator[tuple[int, int]]:
    """The digests of rows in several batches, in the order of their keys; the newest of a row counts.

    Args:
        lake: Where the batches are.
        batches: The objects of each, the newest batch first.
        contract: The table.
        which: A condition on `k`, the number of the key, as SQL.

    Yields:
        The number of a row's key, and its digest.
    """
    with duckdb.connect() as kept:
        kept.execute("SET enable_progress_bar = false")
        kept.execute("CREATE TABLE taken (k BIGINT, d BIGINT, age INTEGER)")
        for age, keys in enumerate(batches):
            for batch in raw_row_digests(lake, keys, contract) if keys else ():
                kept.register("batch", pa.Table.from_batches([batch]))
                kept.execute(f"INSERT INTO taken SELECT k, d, {age} FROM batch WHERE {which}")
        found = kept.execute("SELECT k, arg_min(d, age) FROM taken GROUP BY k ORDER BY k")
        while rows := found.fetchmany(_BATCH_ROWS):
            yield from rows


def sum_of(digests: pa.RecordBatch) -> int:
    """The exact sum of the digests of some rows."""
    return int(pc.sum(digests.column("d").cast(pa.decimal128(38, 0))).as_py() or 0)


def raw_number(contract: TableContract) -> str:
    """The number of a row's key in raw, as DuckDB's SQL."""
    columns = (contract.column(name) for name in contract.key)
    return row_digest("duckdb", [(column.type, _raw_value(column)) for column in columns])


def _raw_value(column: Column) -> str:
    value = f'raw."{column.name}"'
    if column.type.kind is not Kind.TIMESTAMP:
        return value
    # MySQL writes as many decimals as the column has.
    return f"coalesce(strftime(try_cast({value} AS TIMESTAMP), '%Y-%m-%d %H:%M:%S.%f'), {value})"


@contextmanager
def raw_view(
    lake: Lake, keys: list[str], columns: list[str] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Parquet objects as the view `raw` of a DuckDB of its own, which is read once, in bounded batches.

    Args:
        lake: Where they are.
        keys: The objects of one batch; one at least.
        columns: Those that are needed; None for all.

    Raises:
        OSError: An object could not be read.
    """
    with lake.filesystem.open_input_file(lake.path(keys[0])) as file:
        schema = pq.read_schema(file)
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        connection.execute("SET enable_progress_bar = false")
        rows = (batch.select(schema.names) for batch in lake.read_batches(keys, columns=columns))
        connection.register("raw", pa.RecordBatchReader.from_batches(schema, rows))
        try:
            yield connection
        except duckdb.Error as error:  # it wraps what reading raises
            raise OSError(first_line(error)) from error
