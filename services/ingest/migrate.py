"""Moves the outbox's database to its newest revision: `python -m services.ingest.migrate`.

The service and its relay do it by themselves when they connect; the command is there for the way back.
"""

from __future__ import annotations

import sys
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from services.common.migrate import Migrations, main, postgres
from services.ingest.settings import Settings


def migrations(dsn: str) -> Migrations:
    """The revisions of a database."""
    named = conninfo_to_dict(dsn)
    return Migrations(
        name="outbox",
        where=f"PostgreSQL {named.get('host')}:{named.get('port')}/{named.get('dbname')}",
        engine=lambda: postgres(dsn),
        folders=[Path(__file__).with_name("migrations")],
        schema="ingest",
    )


if __name__ == "__main__":
    sys.exit(main("python -m services.ingest.migrate", lambda: migrations(Settings().dsn)))
