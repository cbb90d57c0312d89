"""Moves the database to the newest revision; a table made by other means is adopted.

    python -m services.pancake.migrate

A table `pancakes` that Alembic did not make (the native stack and CloudNativePG make it from the generated
schema) is compared with the model: when they agree it is taken over as it is, rows and all; when they do
not, nothing is changed and each difference is named. The rest is `services.common.migrate`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.pool import NullPool

from services.common.migrate import MigrationError, Migrations, main
from services.pancake.models import Base, Pancake
from services.pancake.settings import Settings

FIRST = "0001"


def migrations(settings: Settings) -> Migrations:
    """The revisions of the database that the settings name."""

    def adopt(connection: Connection) -> tuple[str, ...]:
        if not inspect(connection).has_table(Pancake.__tablename__):
            return ()
        if found := differences(connection):
            raise MigrationError(
                f"{settings.where}: its table pancakes is not the application's: {'; '.join(found)};"
                " fix the table, or move it away"
            )
        return (FIRST,)

    return Migrations(
        name="pancakes",
        where=settings.where,
        engine=lambda: create_engine(settings.url, poolclass=NullPool),
        folders=[Path(__file__).with_name("migrations")],
        adopt=adopt,
    )


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


if __name__ == "__main__":
    sys.exit(main("python -m services.pancake.migrate", lambda: migrations(Settings())))
