"""Moves the schemas of the warehouse (PostgreSQL) and of the targets forward, by numbered migrations.

    python -m tallyhouse.migrate [dwh|<target>|all] [--dry-run]

Alembic runs all of them. The statements are in plain SQL files beside thin numbered revisions, in
``sql/dwh/migrations`` and ``sql/<target>/migrations``. There is no way back: a mistake is fixed by the next
number.

PostgreSQL is moved in one transaction, all or nothing. A target may have none, so its statements are
written to be safe to repeat, and a revision that died half-way is run again. One advisory lock in
PostgreSQL keeps two runners apart, for all stores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlparse
from alembic import command, context, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from jinja2 import Environment, StrictUndefined
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from tallyhouse.errors import TallyhouseError
from tallyhouse.publish.target import Migrations, Place, known, load
from tallyhouse.servers import PostgresServer
from tallyhouse.settings import ROOT, Settings, SettingsError, load_settings

SQL = ROOT / "sql"
VERSION_TABLE = "schema_version"
WAREHOUSE = Migrations(
    lambda place: URL.create(
        "postgresql+psycopg", place.user, place.password, place.host, place.port, place.database
    ),
    "etl",
    "CREATE SCHEMA IF NOT EXISTS etl",
)
LOCK = 0x7A11_7045  # any number that nothing else in the warehouse locks


def run_sql_beside(revision_file: str) -> None:
    """Runs the SQL file that has a revision's name; called by the revision's ``upgrade()``."""
    connection = op.get_bind()
    adapt = context.config.attributes["adapt"]
    for statement in sqlparse.split(Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")):
        _execute(connection, adapt(connection, statement.rstrip(";")))


def run_environment() -> None:
    """Alembic's ``env.py``, of all stores: revisions run on the connection that the runner holds."""
    attributes = context.config.attributes
    context.configure(connection=attributes["connection"], **attributes["options"])
    with context.begin_transaction():
        context.run_migrations()


def migrate_warehouse(settings: Settings, *, dry_run: bool = False) -> list[str]:
    """Moves PostgreSQL's schemas to the newest revision, and lets the read-only role read them.

    Args:
        settings: Where it is; migrations run as the owner, ``DWH_USER``.
        dry_run: Change nothing.

    Returns:
        What was applied, or would be: ``0001 title``, oldest first.

    Raises:
        TallyhouseError: The server cannot be reached, or a migration fails; nothing is then changed.
    """
    with _warehouse(settings) as connection:
        applied = _upgrade(connection, "dwh", WAREHOUSE, dry_run=dry_run)
        if not dry_run:
            _grant(connection, settings.dwh_reader_user)
        return applied


def fill_empty(server: PostgresServer) -> None:
    """Makes a database without schemas a warehouse without rows.

    Raises:
        TallyhouseError: A migration fails; nothing is then changed.
    """
    engine = create_engine("postgresql+psycopg://", creator=server.connect, poolclass=NullPool)
    with _one_line_errors("the database of the rebuild"), engine.begin() as connection:
        _upgrade(connection, "dwh", WAREHOUSE, dry_run=False)


def migrate_target(settings: Settings, name: str, *, dry_run: bool = False) -> list[str]:
    """Moves a target's tables to the newest revision; one that makes them itself is left to it.

    Args:
        settings: Where it is, and where PostgreSQL is, which holds the lock.
        name: The target's, such as `clickhouse`.
        dry_run: Change nothing.

    Returns:
        What was applied, or would be: ``0001 title``, oldest first.

    Raises:
        TallyhouseError: A server cannot be reached, or a migration fails; run again, it goes on.
    """
    target = load(name)
    if (way := target.migrations) is None:
        return []
    place = Place.of(settings, name)
    with (
        _warehouse(settings),
        _one_line_errors(f"{target.title} {place.host}:{place.port}", *target.errors),
        create_engine(way.url(place), poolclass=NullPool).connect() as connection,
    ):
        return _upgrade(connection, name, way, dry_run=dry_run)


def stores() -> dict[str, Callable[..., list[str]]]:
    """What can be moved, by name."""
    return {"dwh": migrate_warehouse} | {name: partial(migrate_target, name=name) for name in known()}


@contextmanager
def _warehouse(settings: Settings) -> Iterator[Connection]:
    """A transaction on PostgreSQL that holds the migrations' lock to its end."""
    place = Place(
        settings.postgres_host,
        settings.postgres_port,
        settings.dwh_user,
        settings.dwh_password,
        settings.dwh_db,
    )
    url = WAREHOUSE.url(place)
    where = f"PostgreSQL {settings.postgres_host}:{settings.postgres_port}/{settings.dwh_db}"
    with _one_line_errors(where), create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        yield connection


@contextmanager
def _one_line_errors(where: str, *others: type[Exception]) -> Iterator[None]:
    told: tuple[type[Exception], ...] = (SQLAlchemyError, *others)
    try:
        yield
    except told as error:
        cause = getattr(error, "orig", None) or error
        what = " ".join(str(cause).split())
        raise TallyhouseError(
            what, where=where, remedy="Fix it (make status shows the servers) and run the migrations again."
        ) from error


def _upgrade(connection: Connection, folder: str, way: Migrations, *, dry_run: bool) -> list[str]:
    """Applies what is pending of ``sql/<folder>/migrations``; the version table lives in the way's schema."""
    config = Config()
    config.set_main_option("script_location", str(SQL))  # where env.py is
    config.set_main_option("version_locations", str(SQL / folder / "migrations"))
    config.set_main_option("path_separator", "newline")
    options: dict[str, Any] = {"version_table": VERSION_TABLE, "version_table_schema": way.schema}
    config.attributes.update(connection=connection, options=options, adapt=way.adapt)

    current = MigrationContext.configure(connection, opts=options).get_current_heads()
    pending = [*ScriptDirectory.from_config(config).iterate_revisions("heads", current)][::-1]
    if pending and not dry_run:
        # The version table is Alembic's own first act, before the revision that makes its schema.
        _execute(connection, way.create)
        command.upgrade(config, "heads")
    return [_label(script) for script in pending]


def _label(script: Script) -> str:
    return f"{script.revision} {(script.doc or '').rstrip('.')}"


def _grant(connection: Connection, reader: str) -> None:
    """Lets the read-only role read, if it is there: a stack may have none."""
    found = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :reader"), {"reader": reader})
    if found.scalar() is None:
        return
    template = Environment(undefined=StrictUndefined, autoescape=False).from_string(  # noqa: S701 - SQL
        (SQL / "dwh" / "grants.sql").read_text(encoding="utf-8")
    )
    quoted = connection.dialect.identifier_preparer.quote_identifier(reader)
    for statement in sqlparse.split(template.render(reader=quoted)):
        _execute(connection, statement)


def _execute(connection: Connection, statement: str) -> None:
    """Runs one statement as it is written: no bound parameters, so a `%` is a `%`."""
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        0, or 1 after a one-line error on standard error.
    """
    parser = argparse.ArgumentParser(prog="tallyhouse.migrate", description="Move the schemas forward.")
    parser.add_argument("target", nargs="?", default="all", choices=[*stores(), "all"])
    parser.add_argument("--dry-run", action="store_true", help="say what would be applied")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        for name in stores() if options.target == "all" else [options.target]:
            applied = stores()[name](settings, dry_run=options.dry_run)
            for label in applied:
                print(f"{name}: {'would apply' if options.dry_run else 'applied'} {label}")
            if not applied:
                print(f"{name}: up to date")
    except (TallyhouseError, SettingsError) as error:
        print(f"migrate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
