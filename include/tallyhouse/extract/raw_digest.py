"""The digest of raw, computed by another engine than the one that wrote it."""

from __future__ import annotations

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
    with lake.filesystem.open_input_file(lake.path(keys[0])) as file:
        schema = pq.read_schema(file)
    number = row_digest("duckdb", [(column.type, f'raw."{column.name}"') for column in contract.columns])
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        connection.register("raw", pa.RecordBatchReader.from_batches(schema, lake.read_batches(keys)))
        row = connection.execute(f"SELECT {total('duckdb', number)} FROM raw").fetchone()
    assert row is not None  # noqa: S101 - an aggregate without GROUP BY has one row
    return str(row[0])
