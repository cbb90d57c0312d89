"""Backs up every store of the running stack, and restores it: `make backup`, `make restore FROM=backups/…`.

    python -m scripts.backup create [--to FOLDER]
    python -m scripts.backup restore FOLDER [--replace]

A backup is a folder: `mysql/<store>.sql` (mariadb-dump), `postgres/<database>/` (one snapshot of each
database, a file of COPY's binary form per table), `clickhouse/` (definitions, and rows in ClickHouse's Native
form), `minio/<bucket>.tar`, and `manifest.json`, which is written last: a folder without it is no backup. The
manifest has the rows and a digest of each table, computed by the server itself, and of each bucket. A restore
compares them with what it has brought back, and fails where one differs.

Not in it: passwords (`.local/secrets.json`: keep it in a safe place), Kafka's log (its events are in the lake
as well), Prometheus' metrics.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import clickhouse_connect
import psycopg
from psycopg import sql
from rich.console import Console

from scripts.stack import lifecycle, readiness
from scripts.stack.context import MYSQL_STORES, Stack, StackError
from scripts.stack.service import run_logged
from scripts.stack.services import services
from scripts.stack.supervise import RUNNING, Supervisor
from tallyhouse.settings import ROOT

console = Console(highlight=False)

Digests = dict[str, str]
"""What a store holds: a table or bucket, and `<rows or objects>:<digest>`."""

TABLES = """
    SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'digest')
    ORDER BY 1, 2
"""
REMEMBERED = "SELECT tablename FROM pg_tables WHERE schemaname = 'digest'"
"""What the warehouse remembers of rows, to compare them: no part of a backup, it is made anew."""
COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    ORDER BY attname
"""
TABLES_OF_SERVICES = {
    "pipeline-info": ("dwh_db", "pipeline_info"),
    "ingest": ("ingest_db", "ingest"),
    "pancake": ("pancake_db", "public"),
    "kaggle-data-api": ("kaggle_data_db", "public"),
}
"""Services that make their tables themselves: the setting that names the database, and the schema in it."""
SEQUENCES = "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2"


# -- MySQL ------------------------------------------------------------------------------------------


def mysql_arguments(stack: Stack, store: str) -> list[str]:
    """How MariaDB's programs reach a store; the password is in the environment."""
    key = f"MYSQL_{store.upper()}"
    values = stack.environment
    return [
        *("--no-defaults", f"--host={values[f'{key}_HOST']}", f"--port={values[f'{key}_PORT']}"),
        *("--protocol=tcp", "--user=root", "--skip-ssl", "--default-character-set=utf8mb4"),
    ]


def mysql_program(stack: Stack, name: str) -> tuple[str, dict[str, str]]:
    """A program of MariaDB, and the environment that it runs with.

    Raises:
        StackError: the stores run on MySQL, whose own programs nobody has fetched.
    """
    if stack.settings.stores_engine != "mariadb":
        raise StackError(
            "backup: with STORES_ENGINE=mysql by MySQL's own mysqldump, which is not fetched here"
        )
    environment = os.environ | {"MYSQL_PWD": stack.settings.mysql_root_password}
    return str(stack.mariadb / "bin" / name), environment


def dump_mysql(stack: Stack, store: str, to: Path) -> Digests:
    """Dump a store in one snapshot, with what it holds."""
    program, environment = mysql_program(stack, "mariadb-dump")
    database = stack.environment[f"MYSQL_{store.upper()}_DB"]
    options = ("--single-transaction", "--hex-blob", "--no-tablespaces", "--routines", "--triggers")
    with (to / f"{store}.sql").open("wb") as sink:
        command = [program, *mysql_arguments(stack, store), *options, database]
        done = subprocess.run(command, env=environment, stdout=sink, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise StackError(f"backup: {database}: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return mysql_digests(stack, store)


def mysql_digests(stack: Stack, store: str) -> Digests:
    """Rows and checksum of each table of a store, by the server."""
    found = {}
    with readiness.mysql_connection(stack.environment, store) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'")
        for table, _ in cursor.fetchall():
            cursor.execute(f"SELECT COUNT(*) FROM `{table}`")
            rows = cursor.fetchall()[0][0]
            cursor.execute(f"CHECKSUM TABLE `{table}` EXTENDED")
            found[str(table)] = f"{rows}:{cursor.fetchall()[0][1]}"
    return found


def restore_mysql(stack: Stack, store: str, source: Path) -> Digests:
    """Put a dump in the place of what a store holds."""
    program, environment = mysql_program(stack, "mariadb")
    database = stack.environment[f"MYSQL_{store.upper()}_DB"]
    with (source / f"{store}.sql").open("rb") as text:
        command = [program, *mysql_arguments(stack, store), database]
        done = subprocess.run(command, env=environment, stdin=text, capture_output=True, check=False)
    if done.returncode:
        raise StackError(f"restore: {database}: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return mysql_digests(stack, store)


# -- PostgreSQL -------------------------------------------------------------------------------------


def databases(stack: Stack) -> list[str]:
    """The databases of the server that belong to the platform; what was rebuilt to compare can be rebuilt."""
    with readiness.postgres_connection(stack.settings) as connection:
        rows = connection.execute(
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> ALL(%s) ORDER BY 1",
            [["postgres", stack.settings.dwh_rebuild_db]],
        ).fetchall()
    return [str(row[0]) for row in rows]


@contextmanager
def transaction(stack: Stack, database: str) -> Iterator[psycopg.Connection]:
    """One snapshot of a database, as the superuser; committed at the end."""
    with readiness.postgres_connection(stack.settings, database) as connection:
        connection.autocommit = False
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SET LOCAL statement_timeout = 0")
        yield connection


def tables(connection: psycopg.Connection) -> dict[str, list[tuple[str, str]]]:
    """Every table of a database, as `schema.table`, with the names and types of its columns."""
    found = {}
    for schema, table in connection.execute(TABLES).fetchall():
        name = f"{schema}.{table}"
        quoted = sql.Identifier(schema, table).as_string(connection)
        found[name] = [(str(c), str(t)) for c, t in connection.execute(COLUMNS, [quoted]).fetchall()]
    return found


def copy(name: str, columns: list[tuple[str, str]], direction: str) -> sql.Composed:
    """COPY's statement for a table, its columns in the order of their names."""
    return sql.SQL("COPY {} ({}) {} (FORMAT binary)").format(
        sql.Identifier(*name.split(".", 1)),
        sql.SQL(", ").join(sql.Identifier(column) for column, _ in columns),
        sql.SQL(direction),
    )


def postgres_digests(connection: psycopg.Connection, found: dict[str, list[tuple[str, str]]]) -> Digests:
    """Rows and the sum of the hashes of each table's rows, whatever their order, by the server."""
    digests = {}
    for name, columns in found.items():
        text = sql.SQL(", ").join(sql.Identifier(column) for column, _ in columns)
        row = connection.execute(
            sql.SQL(
                "SELECT count(*), coalesce(sum(('x' || left(encode(sha256(convert_to(ROW({})::text, 'UTF8')),"
                " 'hex'), 15))::bit(60)::bigint::numeric), 0) FROM {}"
            ).format(text, sql.Identifier(*name.split(".", 1)))
        ).fetchone()
        digests[name] = f"{row[0]}:{row[1]}" if row else ""
    return digests


def dump_postgres(stack: Stack, database: str, to: Path) -> Digests:
    """Dump a database in one snapshot, with what it holds."""
    folder = to / database
    folder.mkdir()
    with transaction(stack, database) as connection, connection.cursor() as cursor:
        found = tables(connection)
        for name, columns in found.items():
            with (
                (folder / f"{name}.copy").open("wb") as sink,
                cursor.copy(copy(name, columns, "TO STDOUT")) as rows,
            ):
                for part in rows:
                    sink.write(part)
        sequences = connection.execute(SEQUENCES).fetchall()
        (folder / "tables.json").write_text(json.dumps({"columns": found, "sequences": sequences}, indent=1))
        return postgres_digests(connection, found)


def restore_postgres(stack: Stack, database: str, source: Path) -> Digests:
    """Put a dump in the place of a database's rows, in one transaction.

    Raises:
        StackError: the tables differ: the dump is of another version of the schema.
    """
    folder = source / database
    kept = json.loads((folder / "tables.json").read_text())
    with transaction(stack, database) as connection, connection.cursor() as cursor:
        here = {name: [list(column) for column in columns] for name, columns in tables(connection).items()}
        if here != kept["columns"]:
            names = {*here, *kept["columns"]}
            differ = sorted(name for name in names if here.get(name) != kept["columns"].get(name))
            raise StackError(
                f"restore: {database}: {', '.join(differ)}: not as in the backup, which another version of "
                "the code made; check that version out, restore, and move on with the migrations"
            )
        # Rows come table by table: no trigger and no foreign key looks at them on the way.
        connection.execute("SET LOCAL session_replication_role = replica")
        if here:
            everything = sql.SQL(", ").join(sql.Identifier(*name.split(".", 1)) for name in here)
            connection.execute(sql.SQL("TRUNCATE {}").format(everything))
        # Of rows that are no longer as they are remembered; the next run takes its tables whole.
        for (name,) in connection.execute(REMEMBERED).fetchall():
            connection.execute(sql.SQL("DROP TABLE digest.{}").format(sql.Identifier(name)))
        for name, columns in kept["columns"].items():
            with (
                (folder / f"{name}.copy").open("rb") as text,
                cursor.copy(copy(name, columns, "FROM STDIN")) as rows,
            ):
                while part := text.read(1 << 20):
                    rows.write(part)
        for schema, sequence, value in kept["sequences"]:
            connection.execute(
                "SELECT setval(%s::regclass, %s, %s)",
                [sql.Identifier(schema, sequence).as_string(connection), value or 1, value is not None],
            )
        return postgres_digests(connection, tables(connection))


# -- ClickHouse -------------------------------------------------------------------------------------


def clickhouse(stack: Stack) -> Any:
    """A client of ClickHouse."""
    s = stack.settings
    return clickhouse_connect.get_client(
        host=s.clickhouse_host,
        port=s.clickhouse_http_port,
        username=s.clickhouse_user,
        password=s.clickhouse_password,
        compress=False,
        query_retries=0,
    )


def clickhouse_tables(client: Any) -> list[tuple[str, str, str, str]]:
    """Database, name, engine and definition of each table and view that is ours; tables first."""
    rows = client.query(
        "SELECT database, name, engine, create_table_query FROM system.tables WHERE database NOT IN"
        " ('system', 'information_schema', 'INFORMATION_SCHEMA', '_temporary_and_external_tables')"
        " AND NOT is_temporary ORDER BY engine LIKE '%View', database, name"
    ).result_rows
    return [tuple(map(str, row)) for row in rows]  # type: ignore[misc]


def clickhouse_digests(client: Any) -> Digests:
    """Rows and a digest of each table, whatever their order, by the server."""
    found = {}
    for database, name, engine, _ in clickhouse_tables(client):
        if not engine.endswith("View"):
            query = f"SELECT count(), sum(toUInt128(cityHash64(*))) FROM `{database}`.`{name}`"
            rows, digest = client.query(query).result_rows[0]
            found[f"{database}.{name}"] = f"{rows}:{digest}"
    return found


def dump_clickhouse(stack: Stack, to: Path) -> Digests:
    """Dump definitions and rows, with what the tables hold."""
    with closing(clickhouse(stack)) as client:
        found = clickhouse_tables(client)
        for database, name, engine, _ in found:
            if not engine.endswith("View"):
                source = client.raw_stream(f"SELECT * FROM `{database}`.`{name}`", fmt="Native")
                with source, (to / f"{database}.{name}.native").open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
        (to / "tables.json").write_text(json.dumps(found, indent=1))
        return clickhouse_digests(client)


def restore_clickhouse(stack: Stack, source: Path) -> Digests:
    """Make the tables and views anew, with their rows."""
    kept = json.loads((source / "tables.json").read_text())
    with closing(clickhouse(stack)) as client:
        for database, name, engine, _ in reversed(clickhouse_tables(client)):
            client.command(f"DROP {'VIEW' if engine.endswith('View') else 'TABLE'} `{database}`.`{name}`")
        for database in sorted({one[0] for one in kept}):
            client.command(f"CREATE DATABASE IF NOT EXISTS `{database}` ENGINE = Atomic")
        for database, name, engine, definition in kept:
            client.command(definition)
            file = source / f"{database}.{name}.native"
            if not engine.endswith("View") and file.stat().st_size:
                with file.open("rb") as rows:
                    client.raw_insert(f"`{database}`.`{name}`", insert_block=rows, fmt="Native")
        return clickhouse_digests(client)


# -- MinIO ------------------------------------------------------------------------------------------


def s3(stack: Stack) -> Any:
    """A client of the lake's server."""
    s = stack.settings
    return boto3.client(
        "s3",
        endpoint_url=s.minio_url,
        region_name=s.lake_region,
        aws_access_key_id=s.minio_root_user,
        aws_secret_access_key=s.minio_root_password,
    )


def keys(client: Any, bucket: str) -> list[str]:
    """Every key of a bucket."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


class BucketDigest:
    """The digest of a bucket: of each key with its content, in the order of the keys."""

    def __init__(self) -> None:
        self.objects: list[tuple[str, str]] = []

    def add(self, key: str, content: bytes) -> None:
        """Take an object in."""
        self.objects.append((key, hashlib.sha256(content).hexdigest()))

    def __str__(self) -> str:
        """Objects and digest."""
        return f"{len(self.objects)}:{hashlib.sha256(json.dumps(sorted(self.objects)).encode()).hexdigest()}"


def dump_minio(stack: Stack, to: Path) -> Digests:
    """Copy every bucket into an archive, with what it holds."""
    client, digests = s3(stack), {}
    for bucket in sorted(found["Name"] for found in client.list_buckets()["Buckets"]):
        digest = BucketDigest()
        with tarfile.open(to / f"{bucket}.tar", "w") as archive, ThreadPoolExecutor(8) as pool:
            every = keys(client, bucket)
            for key, found in zip(
                every,
                pool.map(lambda key, b=bucket: client.get_object(Bucket=b, Key=key), every),
                strict=True,
            ):
                content = found["Body"].read()
                member = tarfile.TarInfo(key)
                member.size = len(content)
                member.pax_headers = {"TALLYHOUSE.type": found.get("ContentType", "binary/octet-stream")}
                archive.addfile(member, io.BytesIO(content))
                digest.add(key, content)
        digests[bucket] = str(digest)
    return digests


def restore_minio(stack: Stack, source: Path) -> Digests:
    """Put the archives in the place of what the buckets hold."""
    client, digests = s3(stack), {}
    there = {found["Name"] for found in client.list_buckets()["Buckets"]}
    for file in sorted(source.glob("*.tar")):
        bucket = file.stem
        if bucket not in there:
            client.create_bucket(Bucket=bucket)
        with ThreadPoolExecutor(8) as pool, tarfile.open(file) as archive:
            list(
                pool.map(lambda key, b=bucket: client.delete_object(Bucket=b, Key=key), keys(client, bucket))
            )
            for member in archive:
                body = archive.extractfile(member)
                kind = member.pax_headers.get("TALLYHOUSE.type", "binary/octet-stream")
                if body is not None:
                    client.put_object(Bucket=bucket, Key=member.name, Body=body.read(), ContentType=kind)
        digest = BucketDigest()
        for key in keys(client, bucket):
            digest.add(key, client.get_object(Bucket=bucket, Key=key)["Body"].read())
        digests[bucket] = str(digest)
    return digests


# -- all of it --------------------------------------------------------------------------------------


def open_runs(stack: Stack) -> list[str]:
    """Runs that are under way: what they write is in some stores and not yet in others."""
    with readiness.postgres_connection(stack.settings, stack.settings.dwh_db) as connection:
        rows = connection.execute("SELECT run_id FROM etl.run WHERE status = 'running' ORDER BY 1").fetchall()
    return [str(row[0]) for row in rows]


def create(stack: Stack, to: Path) -> Path:
    """Back everything up.

    Args:
        stack: that runs.
        to: a folder that is not there yet.

    Returns:
        The folder.

    Raises:
        StackError: a run is under way, the folder is there, or a store could not be dumped.
    """
    if runs := open_runs(stack):
        raise StackError(f"backup: {', '.join(runs)} is under way; wait until it has ended ('make ledger')")
    if to.exists():
        raise StackError(f"{to}: is there already; choose another folder")
    making = to.with_name(f".{to.name}.part")
    shutil.rmtree(making, ignore_errors=True)
    for part in ("mysql", "postgres", "clickhouse", "minio"):
        (making / part).mkdir(parents=True)
    making.chmod(0o700)  # everything the platform knows is in it
    digests: dict[str, Digests] = {}
    for store in MYSQL_STORES:
        digests[f"mysql/{store}"] = dump_mysql(stack, store, making / "mysql")
    # The warehouse before the lake and ClickHouse: they have at least what it speaks of.
    for database in databases(stack):
        digests[f"postgres/{database}"] = dump_postgres(stack, database, making / "postgres")
    digests["clickhouse"] = dump_clickhouse(stack, making / "clickhouse")
    digests["minio"] = dump_minio(stack, making / "minio")
    manifest = {"made_at": datetime.now(UTC).isoformat(timespec="seconds"), "digests": digests}
    (making / "manifest.json").write_text(json.dumps(manifest, indent=1))
    making.rename(to)
    return to


def restore(stack: Stack, source: Path, replace: bool = False) -> dict[str, Digests]:
    """Bring a backup back, and compare every digest.

    Args:
        stack: that runs; what uses the stores is stopped meanwhile.
        source: the backup.
        replace: whether stores that have rows may lose them.

    Returns:
        What each store holds now.

    Raises:
        StackError: it is no backup, the stores have rows, or something differs from the backup.
    """
    try:
        manifest = json.loads((source / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise StackError(f"{source}: no backup: its manifest.json cannot be read ({error})") from error
    filled = [
        s for s in MYSQL_STORES if any(not d.startswith("0:") for d in mysql_digests(stack, s).values())
    ]
    if filled and not replace:
        raise StackError(
            f"restore: {', '.join(filled)} has rows, which would be lost: 'make stop clean', "
            "'make start GROUPS=stores' first, or REPLACE=1"
        )
    found: dict[str, Digests] = {}
    with clients_stopped(stack):
        make_tables_of_services(stack, source / "postgres")
        for part in manifest["digests"]:
            kind, _, name = part.partition("/")
            if kind == "mysql":
                found[part] = restore_mysql(stack, name, source / kind)
            elif kind == "postgres":
                found[part] = restore_postgres(stack, name, source / kind)
        found["clickhouse"] = restore_clickhouse(stack, source / "clickhouse")
        found["minio"] = restore_minio(stack, source / "minio")
    wrong = [
        f"restore: {part}.{name}: {found[part].get(name)} instead of {digest}"
        for part, digests in manifest["digests"].items()
        for name, digest in digests.items()
        if found[part].get(name) != digest
    ]
    if wrong:
        raise StackError("\n".join(wrong))
    return found


def make_tables_of_services(stack: Stack, dumps: Path) -> None:
    """Let each service make its tables that made them where the backup is of: here it may never have run.

    Args:
        stack: whose services.
        dumps: of the databases.

    Raises:
        StackError: a migration failed.
    """
    environments = {service.name: service.environment for service in services(stack)}
    for name, (setting, schema) in TABLES_OF_SERVICES.items():
        dump = dumps / getattr(stack.settings, setting) / "tables.json"
        if dump.exists() and f"{schema}.alembic_version" in json.loads(dump.read_text())["columns"]:
            command = [sys.executable, "-m", f"services.{name.replace('-', '_')}.migrate", "up"]
            run_logged(stack, f"{name}-migrations", command, environments[name])


@contextmanager
def clients_stopped(stack: Stack) -> Iterator[None]:
    """Stop what uses the stores and start it again afterwards, also after an error."""
    supervisor = Supervisor(stack)
    states = supervisor.states()
    up = [s.name for s in services(stack) if s.after and states.get(s.name, {}).get("statename") in RUNNING]
    groups = lifecycle.asked_for(stack)
    for name in up:
        supervisor.stop(name)
    try:
        yield
    finally:
        if up:
            lifecycle.start(stack, groups)


def total(digests: dict[str, Digests]) -> str:
    """How much there is, for the last line."""
    found = [
        int(digest.split(":")[0])
        for part, one in digests.items()
        if part != "minio"
        for digest in one.values()
    ]
    objects = sum(int(digest.split(":")[0]) for digest in digests["minio"].values())
    return f"{len(found)} tables, {sum(found):,} rows, {objects:,} objects"


def main() -> int:
    """Run one command; what a person has to fix is said in a line each."""
    parser = argparse.ArgumentParser(prog="backup", description="Backs up and restores the stack.")
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("create", help="back every store up")
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    sub.add_argument(
        "--to", type=Path, default=ROOT / "backups" / now, help="a folder (default: backups/<time>)"
    )
    sub = commands.add_parser("restore", help="bring a backup back, and compare every digest")
    sub.add_argument("folder", type=Path)
    sub.add_argument("--replace", action="store_true", help="stores that have rows may lose them")
    args = parser.parse_args()
    os.umask(0o077)
    stack = Stack()
    try:
        if not Supervisor(stack).alive():
            raise StackError(f"{args.command}: the stack does not run; 'make start' first")
        if args.command == "create":
            folder = create(stack, args.to)
            digests = json.loads((folder / "manifest.json").read_text())["digests"]
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            console.print(f"{folder}: {total(digests)}, {size / 2**20:.1f} MB", soft_wrap=True)
        else:
            console.print(f"restored, every digest equal: {total(restore(stack, args.folder, args.replace))}")
    except StackError as error:
        for line in str(error).splitlines():
            console.print(f"✗ {line}", soft_wrap=True, markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
