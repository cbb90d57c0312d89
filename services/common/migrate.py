"""Moves a service's database to its newest revision, or back: Alembic, the same way for every service.

A service has a folder `migrations` of numbered files, each with `upgrade` and `downgrade`, and a module
`migrate` that says where its database is and hands it to `main` here:

    python -m services.pancake.migrate              to the newest revision
    python -m services.pancake.migrate up 0001      to that one
    python -m services.pancake.migrate down base    back, to that one or to an empty database; -1 is one back
    python -m services.pancake.migrate create "What it does"      starts the next revision, to be written

It is safe to repeat, and to run from several processes at once: a lock in the database lets one do it. All
of it is one transaction, so a revision that fails leaves nothing behind. A database that was made before it
had revisions is taken over as it is, rows and all.
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from alembic import command, context, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from pydantic import ValidationError
from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

_ENVIRONMENT = Path(__file__).with_name("alembic")
_LOCK = 7_214_003  # an advisory lock: any number that no other program of the database uses
_one_at_a_time = threading.Lock()  # Alembic keeps its context in module globals


class MigrationError(Exception):
    """One line: what, where, remedy."""


def _nothing_to_adopt(_: Connection) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Migrations:
    """The revisions of one database.

    Attributes:
        name: What they make, for messages.
        where: The database, for messages; no password.
        engine: Connects to it.
        folders: Where the revisions are. Several folders are chains of their own, each with its head.
        schema: PostgreSQL's schema that holds Alembic's table of versions; made when it is not there.
        adopt: Told of a database without revisions: the revisions that what it holds is at, none when it
            is empty. It raises `MigrationError` for what it does not know.
    """

    name: str
    where: str
    engine: Callable[[], Engine]
    folders: Sequence[Path]
    schema: str | None = None
    adopt: Callable[[Connection], Sequence[str]] = _nothing_to_adopt

    def upgrade(self, revision: str = "heads") -> tuple[str, ...]:
        """Move forward, all or nothing.

        Returns:
            The revisions that the database is at then.

        Raises:
            MigrationError: There is no such revision, or what is there is not the service's.
            SQLAlchemyError: The database cannot be reached, or refuses.
        """
        with self._transaction() as connection:
            config = self._config(connection)
            if not self._at(connection) and (found := self.adopt(connection)):
                command.stamp(config, list(found))
            command.upgrade(config, revision)
            return self._at(connection)

    def downgrade(self, revision: str) -> tuple[str, ...]:
        """Move back, all or nothing; see `upgrade`. `base` takes everything away."""
        with self._transaction() as connection:
            command.downgrade(self._config(connection), revision)
            return self._at(connection)

    def create(self, message: str) -> Path:
        """Start the revision after the newest one: a file whose `upgrade` and `downgrade` are to be written.

        Args:
            message: What it does, in a few words.

        Raises:
            MigrationError: It has no words, or there are several chains to go on with.
        """
        words = "_".join(re.findall(r"[a-z0-9]+", message.lower()))[:40].rstrip("_")
        if not words:
            raise MigrationError(f"a revision cannot be called {message!r}: say in a few words what it does")
        if len(self.folders) > 1:
            raise MigrationError(f"{self.name}: several chains of revisions; write the file by hand")
        config = self._config(None)
        head = ScriptDirectory.from_config(config).get_current_head()
        number = f"{int(head or 0) + 1:04}"
        config.set_main_option("file_template", f"{number}_{words}")
        folder = str(self.folders[0])
        made = command.revision(config, message, rev_id=number, version_path=folder)
        assert isinstance(made, Script)  # noqa: S101 - one was asked for
        return Path(made.path)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        engine = self.engine()
        try:
            with _one_at_a_time, engine.begin() as connection:
                if engine.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                else:  # SQLite: its driver would begin only before the first change, and not before DDL
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                # IF NOT EXISTS would ask for the right to make schemas also where there is none to make.
                if self.schema and not inspect(connection).has_schema(self.schema):
                    connection.execute(CreateSchema(self.schema))
                yield connection
        except CommandError as error:
            raise MigrationError(f"{self.where}: {error}; see the names in the folder migrations") from error

    def _options(self) -> dict[str, Any]:
        # SQLite changes tables in transactions, too; Alembic does not count on it unless it is told.
        return {"version_table_schema": self.schema, "transactional_ddl": True}

    def _at(self, connection: Connection) -> tuple[str, ...]:
        found = MigrationContext.configure(connection, opts=self._options()).get_current_heads()
        return tuple(sorted(found))

    def _config(self, connection: Connection | None) -> Config:
        config = Config()
        config.set_main_option("script_location", str(_ENVIRONMENT))
        config.set_main_option("version_locations", "\n".join(str(folder) for folder in self.folders))
        config.set_main_option("path_separator", "newline")
        config.attributes.update(connection=connection, options=self._options())
        return config


def run_environment() -> None:
    """Alembic's `env.py`: revisions run in the transaction of `Migrations`."""
    attributes = context.config.attributes
    context.configure(connection=attributes["connection"], **attributes["options"])
    with context.begin_transaction():
        context.run_migrations()


def run_sql_beside(revision_file: str) -> None:
    """Run the SQL file that has a revision's name, as it is written; for what only PostgreSQL has."""
    script = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(script, execution_options={"no_parameters": True})


def postgres(dsn: str, **options: Any) -> Engine:
    """Connects to PostgreSQL by libpq's connection string, for one transaction.

    Args:
        dsn: The connection string.
        options: More of `psycopg.connect`.
    """
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(dsn, **options),
        poolclass=NullPool,
    )


def main(prog: str, migrations: Callable[[], Migrations], arguments: Sequence[str] | None = None) -> int:
    """The command line: migrate, and say in one line what came of it.

    Args:
        prog: `python -m` and the service's module.
        migrations: Reads the settings and says what is to be migrated.
        arguments: Those of the process unless given.
    """
    parser = argparse.ArgumentParser(prog=prog, description="Move the database to a revision.")
    parser.add_argument("direction", nargs="?", default="up", choices=["up", "down", "create"])
    parser.add_argument(
        "revision",
        nargs="?",
        help="the newest by default; down has to be told: one of them, -1, base; create: what it does",
    )
    options = parser.parse_args(arguments)
    if options.direction == "down" and not options.revision:
        parser.error("down: say to which revision; base takes the tables and all their rows away")
    where = "settings"
    try:
        target = migrations()
        if options.direction == "create":
            sys.stdout.write(
                f"{target.create(options.revision or '')}: write its upgrade and its downgrade\n"
            )
            return 0
        where = target.where
        if options.direction == "up":
            at = target.upgrade(options.revision or "heads")
        else:
            at = target.downgrade(options.revision)
    except (MigrationError, ValidationError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        sys.stderr.write(f"{where}: {said}; see that it runs and that the settings name it\n")
        return 1
    sys.stdout.write(f"{target.name}: at revision {', '.join(at) or 'base'}\n")
    return 0
