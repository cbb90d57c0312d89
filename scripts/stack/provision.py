"""What the servers hold once they answer: databases, roles, schemas, the bucket.

Each step may be repeated.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import boto3
import psycopg
import requests
from botocore.config import Config
from botocore.exceptions import ClientError
from psycopg import sql

from scripts.stack import readiness
from scripts.stack.context import MYSQL_STORES, Stack, StackError
from scripts.stack.service import run_logged

PIPELINE_INFO_SCHEMA = "pipeline_info"


@dataclass(frozen=True)
class Step:
    """One thing to do after some services are ready."""

    name: str
    run: Callable[[], None]
    after: tuple[str, ...]


def steps(stack: Stack) -> list[Step]:
    """Every step of provisioning."""
    found = [
        Step(f"schema-{store}", lambda store=store: mysql_schema(stack, store), (f"mysql-{store}",))  # type: ignore[misc]
        for store in MYSQL_STORES
    ]
    return [
        *found,
        Step("databases", lambda: postgres_databases(stack), ("postgres",)),
        Step("bucket", lambda: buckets(stack), ("minio",)),
        Step("clickhouse-db", lambda: clickhouse_database(stack), ("clickhouse",)),
        Step("airflow-db", lambda: airflow_database(stack), ("databases",)),
        Step("migrations", lambda: migrations(stack), ("databases", "clickhouse-db")),
    ]


def provision(stack: Stack) -> None:
    """Do, one after the other, the steps that servers somebody else started need (docker-compose.yaml).

    The stores' schemas are not among them: MySQL's image makes them from the same files.
    """
    stack.render()
    for step in steps(stack):
        if not step.name.startswith("schema-"):
            step.run()


def tables_of(script: str) -> set[str]:
    """Names of the tables that a generated schema makes."""
    return set(re.findall(r'^CREATE TABLE [`"](\w+)[`"]', script, re.MULTILINE))


def schema_script(stack: Stack, name: str) -> Path | None:
    """The generated schema of a store, ``sql/oltp/<n>_<name>_schema.sql``."""
    return next(iter(sorted((stack.root / "sql/oltp").glob(f"*_{name}_schema.sql"))), None)


def lacking(script: Path, wanted: set[str], present: set[str], rows: int, database: str) -> bool:
    """Whether a store has to be given its schema.

    Raises:
        StackError: it has rows, and lacks tables that its schema has.
    """
    missing = sorted(wanted - present)
    if missing and rows:
        raise StackError(
            f"{database}: has rows but lacks {', '.join(missing)} of {script.name}: made by an older schema; "
            "'make stop clean start' makes it anew"
        )
    return bool(missing)


def mysql_schema(stack: Stack, store: str) -> None:
    """Give an empty store its tables; one that was was left half made is made again."""
    script = schema_script(stack, store)
    if script is None:
        return
    text = script.read_text()
    database = stack.environment[f"MYSQL_{store.upper()}_DB"]
    with readiness.mysql_connection(stack.environment, store) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()")
        present = {str(row[0]) for row in cursor.fetchall()}
        rows = 0
        for table in present:
            cursor.execute(f"SELECT EXISTS (SELECT 1 FROM `{table}`)")
            rows += int(cursor.fetchall()[0][0])
        if not lacking(script, tables_of(text), present, rows, database):
            return
        cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
        for table in present:
            cursor.execute(f"DROP TABLE `{table}`")
        cursor.execute("SET FOREIGN_KEY_CHECKS = 1")
        cursor.execute(text, map_results=True)
        while cursor.nextset():
            pass


def postgres_databases(stack: Stack) -> None:
    """Roles and databases, their passwords, owners and rights as the settings have them; pancake's schema."""
    s = stack.settings
    owners = {
        s.dwh_db: (s.dwh_user, s.dwh_password),
        s.dwh_rebuild_db: (s.dwh_user, s.dwh_password),
        s.kaggle_data_db: (s.kaggle_data_user, s.kaggle_data_password),
        s.airflow_db: (s.airflow_db_user, s.airflow_db_password),
        s.ingest_db: (s.ingest_user, s.ingest_password),
    }
    readers = {s.dwh_db: s.dwh_reader_user}
    # Where the shop has a server of its own, who made that has made its accounts.
    shares_server = (s.pancake_db_host, s.pancake_db_port) == (s.postgres_host, s.postgres_port)
    if shares_server:
        owners[s.pancake_db] = (s.pancake_user, s.pancake_password)
        readers[s.pancake_db] = s.etl_reader_user
    # The documented login first: where .env gives the owner its name, the owner's password is the one.
    passwords = {s.dwh_documented_user: s.dwh_documented_password} | dict(owners.values())
    passwords |= {
        s.dwh_reader_user: s.dwh_reader_password,
        s.etl_reader_user: s.etl_reader_password,
        s.pipeline_info_db_user: s.pipeline_info_db_password,
    }
    with readiness.postgres_connection(s) as connection:
        for role, password in passwords.items():
            login(connection, role, password)
        # When the transactions of others began, which the watermark needs.
        connection.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(sql.Identifier(s.etl_reader_user)))
        for database, (owner, _) in owners.items():
            own_database(connection, database, owner)
    if s.dwh_documented_user != s.dwh_user:
        take_over_warehouse(stack)
    for database, reader in readers.items():
        grant_reading(stack, database, owners[database][0], reader)
    pipeline_info_schema(stack)
    if shares_server:
        pancake_schema(stack)


def login(connection: psycopg.Connection, role: str, password: str) -> None:
    """Make a role that may log in and nothing else, or bring it to that."""
    known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    connection.execute(
        sql.SQL(
            "{} ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {}"
        ).format(sql.SQL("ALTER" if known else "CREATE"), sql.Identifier(role), sql.Literal(password))
    )


def own_database(connection: psycopg.Connection, database: str, owner: str) -> None:
    """Make a database of one owner that nobody else may enter, or bring it to that."""
    names = {"db": sql.Identifier(database), "owner": sql.Identifier(owner)}
    known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone()
    verb = "ALTER DATABASE {db} OWNER TO {owner}" if known else "CREATE DATABASE {db} OWNER {owner}"
    connection.execute(sql.SQL(verb).format(**names))
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {db} FROM PUBLIC").format(**names))


def take_over_warehouse(stack: Stack) -> None:
    """Leave the login that documents print with reading alone; earlier versions made it the owner."""
    s = stack.settings
    names = {
        "documented": sql.Identifier(s.dwh_documented_user),
        "owner": sql.Identifier(s.dwh_user),
        "reader": sql.Identifier(s.dwh_reader_user),
    }
    with readiness.postgres_connection(s, s.dwh_db) as connection, connection.transaction():
        for statement in (
            "REASSIGN OWNED BY {documented} TO {owner}",
            "DROP OWNED BY {documented}",  # rights that it had been given, and its default privileges
            "GRANT {reader} TO {documented}",
        ):
            connection.execute(sql.SQL(statement).format(**names))


def grant_reading(stack: Stack, database: str, owner: str, reader: str) -> None:
    """Let a role read what an owner has made and will make in a database's public schema, no more.

    What it may read of the warehouse's own schemas, the migrations say.
    """
    names = {"db": sql.Identifier(database), "owner": sql.Identifier(owner), "reader": sql.Identifier(reader)}
    with readiness.postgres_connection(stack.settings, database) as connection:
        for statement in (
            "GRANT CONNECT ON DATABASE {db} TO {reader}",
            "ALTER SCHEMA public OWNER TO {owner}",
            "GRANT USAGE ON SCHEMA public TO {reader}",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
            "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT SELECT ON TABLES TO {reader}",
        ):
            connection.execute(sql.SQL(statement).format(**names))


def pipeline_info_schema(stack: Stack) -> None:
    """The schema in the warehouse's database that pipeline-info owns, with all that is in it."""
    s = stack.settings
    role, schema = sql.Identifier(s.pipeline_info_db_user), sql.Identifier(PIPELINE_INFO_SCHEMA)
    with readiness.postgres_connection(s, s.dwh_db) as connection, connection.transaction():
        for statement in (
            "GRANT CONNECT ON DATABASE {db} TO {role}",
            "CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {role}",
            "ALTER SCHEMA {schema} OWNER TO {role}",
        ):
            connection.execute(
                sql.SQL(statement).format(db=sql.Identifier(s.dwh_db), role=role, schema=schema)
            )
        # Earlier versions made the tables as the warehouse's owner. Sequences and indexes follow.
        others = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = ANY(%s)"
            " AND relowner <> to_regrole(%s)",
            [PIPELINE_INFO_SCHEMA, ["r", "p", "v", "m"], s.pipeline_info_db_user],
        ).fetchall()
        for (table,) in others:
            connection.execute(
                sql.SQL("ALTER TABLE {}.{} OWNER TO {}").format(schema, sql.Identifier(table), role)
            )


def pancake_schema(stack: Stack) -> None:
    """Give the pancake shop its table, in one transaction, as its owner."""
    s = stack.settings
    script = schema_script(stack, "pancake")
    if script is None:
        return
    text = script.read_text()
    with psycopg.connect(
        host=s.postgres_host,
        port=s.postgres_port,
        dbname=s.pancake_db,
        user=s.pancake_user,
        password=s.pancake_password,
    ) as connection:
        present = {
            row[0]
            for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        }
        if lacking(script, tables_of(text), present, len(present), s.pancake_db):
            connection.execute(text.encode())


def buckets(stack: Stack) -> None:
    """The lake's bucket, and that of raw events."""
    s = stack.settings
    client = boto3.client(
        "s3",
        endpoint_url=s.minio_url,
        region_name=s.lake_region,
        aws_access_key_id=s.minio_root_user,
        aws_secret_access_key=s.minio_root_password,
        config=Config(retries={"max_attempts": 2}, connect_timeout=5, read_timeout=10),
    )
    for name in (s.lake_bucket, s.events_bucket):
        try:
            client.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise StackError(f"minio: bucket {name} could not be made: {error}") from error


def clickhouse_database(stack: Stack) -> None:
    """The marts' database."""
    s = stack.settings
    answer = requests.post(
        f"http://{s.clickhouse_host}:{s.clickhouse_http_port}/",
        data=f"CREATE DATABASE IF NOT EXISTS `{s.clickhouse_db}` ENGINE = Atomic",
        auth=(s.clickhouse_user, s.clickhouse_password),
        timeout=20,
    )
    if not answer.ok:
        raise StackError(
            f"clickhouse: database {s.clickhouse_db} could not be made: {answer.text.strip()[:200]}"
        )


def airflow_database(stack: Stack) -> None:
    """Airflow's metadata schema; once for each version, since asking costs ten seconds."""
    stamp = stack.data / f"airflow-{version('apache-airflow')}.migrated"
    if not stamp.exists():
        run_logged(stack, "airflow-db-migrate", ["airflow", "db", "migrate"])
        stamp.parent.mkdir(parents=True, exist_ok=True)  # not there where PostgreSQL is not ours
        stamp.touch()


def migrations(stack: Stack) -> None:
    """The numbered migrations of the warehouse and of the targets."""
    package = stack.root / "include/tallyhouse/migrate"
    if package.is_dir() or package.with_suffix(".py").exists():
        run_logged(stack, "migrations", ["python", "-m", "tallyhouse.migrate"])


def patiently(question: Callable[[], None], seconds: float, still: Callable[[], None]) -> None:
    """Ask until there is an answer.

    Args:
        question: raises while there is none.
        seconds: how long to go on.
        still: raises when there is no use in going on.

    Raises:
        TimeoutError: no answer in time; its cause is the last one got.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            question()
        except Exception as error:
            still()
            if time.monotonic() > deadline:
                raise TimeoutError(str(error).splitlines()[0][:200]) from error
            time.sleep(0.2)
        else:
            return
