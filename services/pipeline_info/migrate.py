"""Moves the service's tables to their newest revisions: `python -m services.pipeline_info.migrate`.

The service does it by itself at the first use of its store; the command is there for the way back. Runs and
lineage are two chains of revisions: PostgreSQL has both, and the SQLite file of lineage, which stands beside
every other store, has the second one. Tables from before there were revisions are known by what they have.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.pool import NullPool

from services.common.migrate import Migrations, main, postgres
from services.pipeline_info.settings import Settings

_FOLDER = Path(__file__).with_name("migrations")


def of_postgres(dsn: str, schema: str, *, connect_timeout: int = 10) -> Migrations:
    """The revisions of runs and lineage in a schema of PostgreSQL."""
    named = conninfo_to_dict(dsn)

    def adopt(connection: Connection) -> tuple[str, ...]:
        found = inspect(connection)
        if not found.has_table("run", schema):
            return ()
        columns = {column["name"] for column in found.get_columns("run", schema)}
        return ("runs_0002" if "failure" in columns else "runs_0001", *_lineage_of(connection, schema))

    return Migrations(
        name="pipeline-info",
        where=f"PostgreSQL {named.get('host')}:{named.get('port')}/{named.get('dbname')}",
        engine=lambda: postgres(
            dsn,
            connect_timeout=connect_timeout,
            application_name="pipeline-info",
            options=f"-c search_path={schema} -c timezone=UTC",
        ),
        folders=[_FOLDER / "runs", _FOLDER / "lineage"],
        schema=schema,
        adopt=adopt,
    )


def of_sqlite(file: Path) -> Migrations:
    """The revisions of lineage in a file of SQLite."""
    return Migrations(
        name="lineage",
        where=str(file),
        engine=lambda: create_engine("sqlite://", creator=lambda: open_sqlite(file), poolclass=NullPool),
        folders=[_FOLDER / "lineage"],
        adopt=lambda connection: _lineage_of(connection, None),
    )


def _lineage_of(connection: Connection, schema: str | None) -> tuple[str, ...]:
    found = inspect(connection)
    if found.has_table("lineage_link", schema):
        return ("lineage_0002",)
    return ("lineage_0001",) if found.has_table("lineage_edge", schema) else ()


def open_sqlite(file: Path) -> sqlite3.Connection:
    """A connection to a file, made if need be: readers beside a writer, on disk at the commit."""
    file.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def migrations(settings: Settings) -> Migrations:
    """The revisions of what the settings name."""
    if settings.backend == "postgres":
        return of_postgres(settings.dsn.get_secret_value(), "pipeline_info")
    return of_sqlite(lineage_file(settings))


def lineage_file(settings: Settings) -> Path:
    """Where lineage is beside a store that is not PostgreSQL."""
    return settings.file.with_name(settings.file.name + ".lineage")


if __name__ == "__main__":
    sys.exit(main("python -m services.pipeline_info.migrate", lambda: migrations(Settings())))
