"""Floors, in a process of their own: `postgres`, `mysql`: all rows over the wire into nothing; `copy <file>`.

PostgreSQL's are COPY by libpq, block by block: text out, as any client takes it, and CSV in. MySQL's reads
the bytes of the answer and makes no values of them: what `--quick` into nothing is for MariaDB, whose client
lacks the login that MySQL 9 asks for. Prints `{"rows": …, "seconds": …}`; imports are not in the seconds,
rows are 0 where nobody counted them.
"""

import json
import select
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from mysql.connector.connection import MySQLConnection

from benchmarks.extract.table import NAME
from scripts.stack import readiness
from tallyhouse.settings import Settings, load_settings

BLOCK = 1 << 20


def postgres(settings: Settings) -> int:
    """Takes all rows as text."""
    with readiness.postgres_connection(settings, settings.pancake_db) as connection:
        cursor = connection.cursor()
        with cursor.copy(f"COPY {NAME} TO STDOUT") as rows:
            for _ in rows:
                pass
        return cursor.rowcount


def mysql(settings: Settings) -> int:
    """Reads all bytes."""
    with closing(
        MySQLConnection(
            host=settings.mysql_orders_host,
            port=settings.mysql_orders_port,
            user=settings.etl_reader_user,
            password=settings.etl_reader_password,
            database=settings.mysql_orders_db,
        )
    ) as connection:
        connection.cmd_query(f"SELECT * FROM {NAME}")
        wire: Any = connection._socket
        end = b""
        # The answer ends with a packet of five bytes; nothing comes after it.
        while not (end[:3] == b"\x05\0\0" and end[4:5] == b"\xfe" and not _more(wire.sock)):
            end = (end + wire.sock.recv(BLOCK))[-9:]
    return 0


def _more(wire: Any) -> bool:
    pending = getattr(wire, "pending", lambda: 0)()
    return bool(pending or select.select([wire], [], [], 0.05)[0])


def copy(settings: Settings, file: str) -> int:
    """Copies a CSV file into the table that is there for it."""
    with (
        readiness.postgres_connection(settings, settings.dwh_db) as connection,
        Path(file).open("rb") as source,
    ):
        cursor = connection.cursor()
        with cursor.copy(f"COPY staging.{NAME}_floor FROM STDIN (FORMAT csv)") as rows:
            while block := source.read(BLOCK):
                rows.write(block)
        return cursor.rowcount


def main() -> None:
    """Measures what the arguments say."""
    settings = load_settings()
    what, *how = sys.argv[1:]
    floors: dict[str, Callable[..., int]] = {"postgres": postgres, "mysql": mysql, "copy": copy}
    began = time.perf_counter()
    rows = floors[what](settings, *how)
    print(json.dumps({"rows": rows, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
