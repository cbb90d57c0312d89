"""One measurement of ours, in a process of its own: `extract <engine> <proof>`, or `load`.

Prints `{"rows": …, "seconds": …}`. The interpreter's start and imports are not in the seconds: a task pays
them once, whatever it takes.
"""

from __future__ import annotations

import json
import sys
import time

import psycopg

from benchmarks.extract.table import NAME, contract, create_in_postgres
from tallyhouse.extract import mysql, postgres
from tallyhouse.extract.to_raw import write_batch
from tallyhouse.lake import Lake
from tallyhouse.publish import staging
from tallyhouse.servers import MySqlServer
from tallyhouse.settings import Settings, load_settings

PREFIX = "raw/bench"


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


def load(settings: Settings) -> int:
    """Copies the newest batch of raw into a table of PostgreSQL that is there; the number of rows."""
    lake = lake_of(settings)
    parts = [key for key in lake.keys(PREFIX) if key.endswith(".parquet")]
    batch = max(key.rpartition("/")[0] for key in parts)
    address = (
        f"postgresql://{settings.dwh_user}:{settings.dwh_password}@"
        f"{settings.postgres_host}:{settings.postgres_port}/{settings.dwh_db}"
    )
    with psycopg.connect(address) as connection:
        connection.execute(f"DROP TABLE IF EXISTS staging.{NAME}")
        create_in_postgres(connection, f"staging.{NAME}", unlogged=True)
        columns = staging.table_schema(connection, "staging", NAME)
        connection.commit()
        keys = sorted(key for key in parts if key.startswith(batch))
        staging.copy_in(address, NAME, columns, lake.read_batches(keys))
        ((rows,),) = connection.execute(f"SELECT count(*) FROM staging.{NAME}").fetchall()
    return int(rows)


def main() -> None:
    """Measures what the arguments say."""
    settings = load_settings()
    what, *how = sys.argv[1:]
    began = time.perf_counter()
    rows = load(settings) if what == "load" else extract(settings, *how)
    print(json.dumps({"rows": rows, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
