"""One measurement of ours, in a process of its own: `extract <engine> <proof>`, `load`, before it `accept`.

Prints `{"rows": …, "seconds": …}`. The interpreter's start and imports are not in the seconds: a task pays
them once, whatever it takes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator

import psycopg
import pyarrow as pa

from benchmarks.extract.table import NAME, contract, create_in_postgres
from tallyhouse.extract import mysql, postgres
from tallyhouse.extract.to_raw import write_batch, write_parts
from tallyhouse.lake import Lake
from tallyhouse.publish import staging
from tallyhouse.servers import MySqlServer
from tallyhouse.settings import Settings, load_settings

PREFIX, ACCEPTED = "raw/bench", "accepted/bench"


def lake_of(settings: Settings) -> Lake:
    """The stack's lake."""
    return Lake.s3(
        settings.lake_bucket,
        endpoint=settings.minio_url,
        access_key=settings.minio_root_user,
        secret_key=settings.minio_root_password,
        region=settings.lake_region,
    )


def extract(settings: Settings, engine: str, proof: str) -> int:
    """Takes the whole table into raw, as a run's task does; the number of rows."""
    table = contract(engine, proof)
    if engine == "postgres":
        stream = postgres.open_stream(
            f"postgresql://{settings.etl_reader_user}:{settings.etl_reader_password}@"
            f"{settings.postgres_host}:{settings.postgres_port}/{settings.pancake_db}",
            table,
            None,
        )
    else:
        server = MySqlServer(
            settings.mysql_orders_host,
            settings.mysql_orders_port,
            settings.etl_reader_user,
            settings.etl_reader_password,
            settings.mysql_orders_db,
        )
        stream = mysql.open_stream(server, table, None)
    run_id = f"bench-{time.time_ns()}"
    return write_batch(stream, lake_of(settings), table, run_id=run_id, attempt=1, watermark=None).rows


def accept(settings: Settings) -> int:
    """Gives the rows of the newest batch their types, as they have them once they are accepted."""
    lake = lake_of(settings)
    with psycopg.connect(_address(settings)) as connection:
        schema = _staged(connection)
    for key in lake.keys(ACCEPTED):
        lake.filesystem.delete_file(lake.path(key))

    def typed() -> Iterator[pa.RecordBatch]:
        for batch in lake.read_batches(newest_parts(lake)):
            arrays = [
                batch.column(field.name).cast(pa.timestamp("us")).cast(field.type)
                if pa.types.is_timestamp(field.type)
                else batch.column(field.name).cast(field.type)
                for field in schema
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return sum(part.rows for part in write_parts(typed(), lake, ACCEPTED, schema))


def load(settings: Settings) -> int:
    """Copies the accepted rows into a table of PostgreSQL that is there; the number of rows."""
    lake, address = lake_of(settings), _address(settings)
    with psycopg.connect(address) as connection:
        schema = _staged(connection)
        connection.commit()
        staging.copy_in(address, NAME, schema, lake.read_batches(lake.keys(ACCEPTED)))
        ((rows,),) = connection.execute(f"SELECT count(*) FROM staging.{NAME}").fetchall()
    return int(rows)


def newest_parts(lake: Lake) -> list[str]:
    """Keys of the Parquet objects of the newest batch."""
    parts = [key for key in lake.keys(PREFIX) if key.endswith(".parquet")]
    batch = max(key.rpartition("/")[0] for key in parts)
    return sorted(key for key in parts if key.startswith(batch))


def _staged(connection: psycopg.Connection) -> pa.Schema:
    connection.execute(f"DROP TABLE IF EXISTS staging.{NAME}")
    create_in_postgres(connection, f"staging.{NAME}", unlogged=True)
    return staging.table_schema(connection, "staging", NAME)


def _address(settings: Settings) -> str:
    return (
        f"postgresql://{settings.dwh_user}:{settings.dwh_password}@"
        f"{settings.postgres_host}:{settings.postgres_port}/{settings.dwh_db}"
    )


def main() -> None:
    """Measures what the arguments say."""
    settings = load_settings()
    what, *how = sys.argv[1:]
    began = time.perf_counter()
    steps: dict[str, Callable[..., int]] = {"extract": extract, "accept": accept, "load": load}
    rows = steps[what](settings, *how)
    print(json.dumps({"rows": rows, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
