"""Moves the database to the newest revision; a table made by other means is adopted.

    python -m services.pancake.migrate

Safe to repeat, and to run from several replicas at once: a lock in the database lets one do it. A table
`pancakes` that Alembic did not make (the native stack and CloudNativePG make it from the generated schema) is
compared with the model: when they agree it is taken over as it is, rows and all; when they do not, nothing is
changed and each difference is named.
"""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import ValidationError
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from services.pancake.models import Base, Pancake
from services.pancake.settings import Settings

LOCK = 0x9A_CA_CE  # any number that nothing else in the database locks
FIRST = "0001"


class MigrationError(Exception):
    """One line: what, where, remedy."""


def migrate(settings: Settings) -> str:
    """Move the database to the newest revision, all or nothing.

    Returns:
        The revision that it is at.

    Raises:
        MigrationError: It cannot be reached, or its table is not the one of the model.
    """
    try:
        with create_engine(settings.url, poolclass=NullPool).begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            config = _config(connection)
            current = MigrationContext.configure(connection).get_current_revision()
            if current is None and inspect(connection).has_table(Pancake.__tablename__):
                if found := differences(connection):
                    raise MigrationError(
                        f"{settings.where}: its table pancakes is not the application's: {'; '.join(found)};"
                        " mend the table, or move it away"
                    )
                command.stamp(config, FIRST)
            command.upgrade(config, "head")
            return str(ScriptDirectory.from_config(config).get_current_head())
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise MigrationError(f"{settings.where}: {said}; see that it runs and DB_* name it") from error


def differences(connection: Connection) -> list[str]:
    """What of the table is not as the model has it; defaults, identity and comments included."""
    context = MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, _: kind != "table" or name in Base.metadata.tables,
        },
    )
    found: list[str] = []
    for item in compare_metadata(context, Base.metadata):
        found += [_said(part) for part in (item if isinstance(item, list) else [item])]
    columns = {column["name"]: column for column in inspect(connection).get_columns("pancakes")}
    if "id" in columns and "identity" not in columns["id"]:
        found.append("id: is not an identity")
    return found


def _said(difference: tuple[object, ...]) -> str:
    kind, *rest = difference
    words = [
        str(getattr(part, "name", part)) for part in rest if part is not None and not isinstance(part, dict)
    ]
    return f"{kind} {' '.join(words)}"


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def main() -> int:
    """Migrate, and say in one line what came of it."""
    try:
        revision = migrate(Settings())
    except (MigrationError, ValidationError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"pancakes: at revision {revision}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
