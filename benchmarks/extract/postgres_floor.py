"""PostgreSQL's floors, in a process of their own: `out`, all rows over the wire into nothing, or `in <file>`.

Both are COPY by libpq, block by block: text out, as any client takes it, and CSV in. Prints `{"rows": …,
"seconds": …}`; imports are not in the seconds.
"""

import json
import sys
import time
from pathlib import Path

from benchmarks.extract.table import NAME
from scripts.stack import readiness
from tallyhouse.settings import load_settings

BLOCK = 1 << 20


def main() -> None:
    """Measures what the arguments say."""
    settings = load_settings()
    way, *file = sys.argv[1:]
    database = settings.pancake_db if way == "out" else settings.dwh_db
    with readiness.postgres_connection(settings, database) as connection, connection.cursor() as cursor:
        began = time.perf_counter()
        if way == "out":
            with cursor.copy(f"COPY {NAME} TO STDOUT") as rows:
                for _ in rows:
                    pass
        else:
            with (
                Path(file[0]).open("rb") as source,
                cursor.copy(f"COPY staging.{NAME}_floor FROM STDIN (FORMAT csv)") as rows,
            ):
                while block := source.read(BLOCK):
                    rows.write(block)
        print(json.dumps({"rows": cursor.rowcount, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
