"""Makes a source of a database: `make source URL=mysql://user@host/db NAME=shipping [TABLES=a,b] [WRITE=1]`.

It reads the catalogue, profiles the data, and prints what it would write: DBML, contract, suites,
pipeline, connection and DAG. With `WRITE=1` it writes them, drafts the migration that makes room in `ods`,
and runs it.
Without a URL it goes to where the source's connection leads, and follows what has changed there.
"""

from __future__ import annotations

import argparse
import difflib
import getpass
import os
import string
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import mysql.connector
import psycopg
import yaml
from dotenv import dotenv_values, set_key

from scripts.stack.context import Stack, StackError
from tallyhouse import servers
from tallyhouse.contracts.load import REPOSITORY
from tallyhouse.contracts.model import IDENTIFIER
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.servers import MySqlServer, PostgresServer
from tallyhouse.settings import DOT_ENV, SettingsError, load_settings
from tallyhouse.source import drafts
from tallyhouse.source.catalogue import Catalogue
from tallyhouse.source.mysql import read as read_mysql
from tallyhouse.source.plan import Plan, existing, make
from tallyhouse.source.postgres import read as read_postgres

CONNECTIONS = REPOSITORY / "config" / "connections.yaml"
ENGINES = {"mysql": "mysql", "mariadb": "mysql", "postgresql": "postgres", "postgres": "postgres"}
PREFIX = {"mysql": "mysql", "postgres": "pg"}
SHOWN_WHOLE = 60
"""Lines of a new file up to which it is shown, and not only counted."""


class RefusedError(Exception):
    """Something that the person has to put right first; one line."""


@dataclass(frozen=True)
class Access:
    """How a database is reached.

    Attributes:
        engine: `mysql` or `postgres`.
        conn_id: What its Airflow connection is called.
        place: `host`, `port`, `schema` and `login`.
        extra: Options of the connection.
        password: The password.
        entry: What `config/connections.yaml` gets; None where it has the connection already.
    """

    engine: str
    conn_id: str
    place: dict[str, Any]
    extra: dict[str, Any]
    password: str
    entry: str | None

    @property
    def setting(self) -> str:
        """The name of the setting that holds the password."""
        return f"{self.conn_id.upper()}_PASSWORD"

    def connect(self) -> Any:
        """An open DB-API connection.

        Raises:
            RefusedError: The server does not answer, or does not let us in.
        """
        kind = MySqlServer if self.engine == "mysql" else PostgresServer
        place = self.place
        try:
            return kind.of(
                host=place["host"],
                port=place["port"],
                user=place["login"],
                password=self.password,
                database=place["schema"],
                extra=self.extra,
            ).connect()
        except (ValueError, mysql.connector.Error, psycopg.Error) as error:
            raise RefusedError(
                f"{place['host']}:{place['port'] or 'its usual port'}/{place['schema']} cannot be entered as "
                f"{place['login']} ({first_line(error)})"
            ) from error


def access_by_url(source: str, url: str) -> Access:
    """How the database of a URL is reached.

    Raises:
        RefusedError: It is no URL of a database.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RefusedError(f"URL: {error}") from error
    database = unquote(parts.path.removeprefix("/"))
    if parts.scheme not in ENGINES or not database or not parts.username:
        raise RefusedError(
            "URL: such as mysql://user@host:3306/database or postgresql://user@host:5432/database, options "
            "after a ?; signs other than letters and digits as %40"
        )
    engine = ENGINES[parts.scheme]
    conn_id = f"{PREFIX[engine]}_{source}"
    place = {
        "host": parts.hostname or "127.0.0.1",
        "port": port or {"mysql": 3306, "postgres": 5432}[engine],
        "schema": database,
        "login": unquote(parts.username),
    }
    extra = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = connections().get(conn_id)
    if known and {name: _filled(known.get(name)) for name in place} != place:
        raise RefusedError(
            f"config/connections.yaml leads {conn_id} to another place than the URL; change it there, and "
            "run without URL"
        )
    setting = f"{conn_id.upper()}_PASSWORD"
    password = unquote(parts.password) if parts.password is not None else asked_password(setting)
    entry = drafts.connection(conn_id, engine, place, extra, setting)
    return Access(engine, conn_id, place, extra, password, None if known else entry)


def access_by_connection(source: str) -> Access:
    """How a source is reached that has a connection already.

    Raises:
        RefusedError: There is no such source.
    """
    contract = existing(source)
    if contract is None:
        raise RefusedError(
            f"there is no source {source} yet; say where it is: URL=mysql://user@host/database"
        )
    entry = connections()[contract.conn_id]
    filled = {name: _filled(entry[name]) for name in ("host", "port", "schema", "login")}
    setting = f"{contract.conn_id.upper()}_PASSWORD"
    extra = {name: _filled(value) for name, value in (entry.get("extra") or {}).items()}
    return Access(contract.engine, contract.conn_id, filled, extra, asked_password(setting), None)


def _filled(value: Any) -> Any:
    """A value of an entry that `make source` wrote: a `$` stands twice."""
    return string.Template(value).safe_substitute() if isinstance(value, str) else value


def connections() -> dict[str, Any]:
    """The connections that are committed, with their placeholders."""
    found: dict[str, Any] = yaml.safe_load(CONNECTIONS.read_text(encoding="utf-8"))
    return found


def asked_password(setting: str) -> str:
    """The password: from the environment, from `.env`, or from who sits there.

    Raises:
        RefusedError: It is in neither, and nobody sits there.
    """
    for known in (os.environ, dotenv_values(DOT_ENV)):
        if (found := known.get(setting)) is not None:
            return found
    if not sys.stdin.isatty():
        raise RefusedError(f"the password: set {setting} in the environment or in .env")
    return getpass.getpass(f"Password ({setting}): ")


def show(plan: Plan, access: Access, catalogue: Catalogue) -> None:
    """Prints what was found, decided and would be written."""
    print(f"{catalogue.database}: {catalogue.version.splitlines()[0]}")
    if catalogue.clock_off:
        print(
            f"The server's wall clock is {catalogue.clock_off} s away from UTC. Times without a zone are "
            "taken as they stand there, and called UTC in the warehouse."
        )
    if catalogue.replica:
        print("The server is a replica or read-only: say `replica_lag` in the contract.")
    for one in plan.tables:
        profile = plan.profiles[one.name]
        renamed = "" if one.name == one.table.name else f" -> ods.{one.name}"
        print(f"\n{one.table.qualified_name}{renamed}: {one.table.kind}, {profile.rows} rows")
        for reason in one.judgement.reasons:
            print(f"  - {reason}")
    if plan.untaken:
        print(f"\nnot taken: {', '.join(plan.untaken)} (TABLES=all takes every table)")
    for change in plan.changes:
        print(f"changed: {change}")
    if plan.retaken:
        print(f"taken whole in the next run: {', '.join(plan.retaken)}")
    print()
    for path, there in plan.different().items():
        name, text = path.relative_to(REPOSITORY), plan.files[path]
        if there:
            lines = difflib.unified_diff(
                there.splitlines(), text.splitlines(), str(name), str(name), lineterm="", n=1
            )
            print("\n".join(lines))
        elif text.count("\n") > SHOWN_WHOLE or path.suffix == ".json":
            print(f"--- {name}: new, {text.count(chr(10))} lines")
        else:
            print(f"--- {name}: new\n{text}")
    if access.entry:
        print(f"--- config/connections.yaml: added{access.entry}")


def write(plan: Plan, access: Access) -> bool:
    """Writes the files, makes room in the warehouse, and lets Airflow know the connection.

    Returns:
        Whether the warehouse has what the contracts ask for; False where a migration has to be read first.
    """
    for path in plan.different():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(plan.files[path], encoding="utf-8")
        print(f"wrote {path.relative_to(REPOSITORY)}")
    if access.entry:
        with CONNECTIONS.open("a", encoding="utf-8") as sink:
            sink.write(access.entry)
        print("wrote config/connections.yaml")
    keep_password(access)
    Stack().render()
    run("tallyhouse.models", "write")
    run("tallyhouse.migrate")
    drafted = run("tallyhouse.models", "draft", "--name", plan.source)
    print(drafted.strip())
    written = [line.split()[1].rstrip(":") for line in drafted.splitlines() if line.startswith("wrote ")]
    if any("DATA IS LOST" in (REPOSITORY / name).read_text(encoding="utf-8") for name in written):
        print("The migration throws data away: read it, then `.venv/bin/python -m tallyhouse.migrate`")
        return False
    print(run("tallyhouse.migrate").strip())
    if plan.retaken:
        with warehouse() as connection:
            connection.execute(
                "DELETE FROM etl.watermark WHERE source = %s AND table_name = ANY(%s)",
                (plan.source, plan.retaken),
            )
    run("scripts.dags_md")
    return True


def keep_password(access: Access) -> None:
    """Puts the password where no commit takes it: into `.env`, unless the environment has it."""
    if access.setting in os.environ or dotenv_values(DOT_ENV).get(access.setting) == access.password:
        return
    if not DOT_ENV.exists():
        DOT_ENV.touch(mode=0o600)
    DOT_ENV.chmod(0o600)
    set_key(DOT_ENV, access.setting, access.password, quote_mode="always")
    print(f"wrote {access.setting} into .env")


def run(module: str, *arguments: str) -> str:
    """Runs a command of the repository.

    Raises:
        RefusedError: It failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        env=Stack().environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise RefusedError(f"{module} {' '.join(arguments)}: {said}")
    return done.stdout


def warehouse() -> psycopg.Connection[Any]:
    """A connection to the warehouse as its owner.

    Raises:
        RefusedError: It does not answer.
    """
    settings = load_settings()
    try:
        return servers.warehouse(settings).connect()
    except psycopg.Error as error:
        raise RefusedError(
            f"the warehouse does not answer ({first_line(error)}); start it: make start"
        ) from error


def main() -> int:
    """The command line.

    Returns:
        0, or 1 when something has to be put right first; what, is on standard error.
    """
    parser = argparse.ArgumentParser(prog="source", description="Make a source of a database.")
    parser.add_argument(
        "--name", required=True, help="what the source is called: lower-case letters, digits, _"
    )
    parser.add_argument("--tables", default="", help="tables to take, with commas between; all by default")
    parser.add_argument("--write", action="store_true", help="write, and not only show, the files")
    options = parser.parse_args()
    asked = [name.strip() for name in options.tables.split(",") if name.strip()]
    try:
        if not IDENTIFIER.fullmatch(options.name):
            raise RefusedError(f"NAME={options.name!r}: use lower-case letters, digits and _, a letter first")
        if options.write:
            warehouse().close()  # before anything is written
        existing(options.name)
        url = os.environ.get("URL", "")  # not an argument: other accounts of the machine see those
        access = access_by_url(options.name, url) if url else access_by_connection(options.name)
        with closing(access.connect()) as connection:
            read = read_mysql if access.engine == "mysql" else read_postgres
            catalogue = read(connection)
            connection.rollback()
            plan = make(options.name, connection, catalogue, access.conn_id, asked)
        show(plan, access, catalogue)
        if not options.write:
            print("Nothing was written. The same with WRITE=1 writes it.")
            return 0
        if write(plan, access):
            print(f"now: scripts/airflow dags test {options.name}_nightly 2026-01-02")
    except (RefusedError, ValueError, SettingsError, StackError, TallyhouseError) as error:
        print(f"source: {error}", file=sys.stderr)
        return 1
    except (mysql.connector.Error, psycopg.Error) as error:
        print(f"source: the database refused to be read: {first_line(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
