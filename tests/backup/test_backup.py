"""A backup of the running stack, restored into an empty one: all that was there is there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import mysql.connector
import psycopg
import pytest

from tallyhouse.settings import ROOT, Settings

pytestmark = pytest.mark.integration
OFFSET = 2500
"""Added to the ports of the tests' stack: the empty one's."""
STORES = ("auth", "catalog", "orders", "payments")


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the repository; what it says comes in lines of any length."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the tests' stack, with an object in the lake that has an awkward name."""
    settings = Settings()  # type: ignore[call-arg]
    client = boto3.client(
        "s3",
        endpoint_url=settings.minio_url,
        region_name=settings.lake_region,
        aws_access_key_id=settings.minio_root_user,
        aws_secret_access_key=settings.minio_root_password,
    )
    key = "backup-test/part é 1.parquet"
    client.put_object(Bucket=settings.lake_bucket, Key=key, Body=b"rows", ContentType="text/x-test")
    folder = tmp_path_factory.mktemp("backups") / "first"
    try:
        made = run(dict(os.environ), "scripts.backup", "create", "--to", str(folder))
    finally:
        client.delete_object(Bucket=settings.lake_bucket, Key=key)
    assert made.returncode == 0, made.stdout + made.stderr
    assert f"{folder}: " in made.stdout
    return folder


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of an empty stack of stores; it runs until the last test is over."""
    settings = Settings()  # type: ignore[call-arg]
    local = ROOT / ".local/backup-test"
    shutil.rmtree(local, ignore_errors=True)
    kept = ("PATH", "HOME", "LANG", "JAVA_HOME", "PYTHONPATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ} | {
        "TALLYHOUSE_LOCAL": str(local.relative_to(ROOT)),
        "TALLYHOUSE_CACHE": str(settings.cache),
        "PORT_OFFSET": str(settings.clickhouse_http_port - 8123 + OFFSET),
    }
    started = run(environment, "scripts.stack", "start", "--groups", "stores")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield environment
    finally:
        run(environment, "scripts.stack", "stop")
        shutil.rmtree(local, ignore_errors=True)


def of_stack(environment: dict[str, str]) -> dict[str, str]:
    """What the processes of a stack are told: addresses and passwords."""
    said = subprocess.run(
        ["bash", "-c", f'eval "$({sys.executable} -m scripts.stack env)" && env -0'],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return dict(line.split("=", 1) for line in said.split("\0") if "=" in line)


def rows(values: dict[str, str]) -> dict[str, list[tuple[object, ...]]]:
    """All rows of some tables, read by plain queries, in order."""
    found: dict[str, list[tuple[object, ...]]] = {}
    for store, table in (("orders", "order_items"), ("auth", "users"), ("payments", "payments")):
        key = f"MYSQL_{store.upper()}"
        with (
            mysql.connector.connect(
                host=values[f"{key}_HOST"],
                port=int(values[f"{key}_PORT"]),
                database=values[f"{key}_DB"],
                user="root",
                password=values["MYSQL_ROOT_PASSWORD"],
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(f"SELECT * FROM {table} ORDER BY id")
            found[table] = [tuple(row) for row in cursor.fetchall()]  # type: ignore[arg-type]
    for database, query in (
        (values["PANCAKE_DB"], "SELECT * FROM pancakes ORDER BY id"),
        (values["DWH_DB"], "SELECT * FROM dwh.dim_date ORDER BY 1"),
    ):
        with psycopg.connect(
            host=values["POSTGRES_HOST"],
            port=values["POSTGRES_PORT"],
            dbname=database,
            user=values["POSTGRES_USER"],
            password=values["POSTGRES_PASSWORD"],
        ) as connection:
            found[query] = connection.execute(query).fetchall()
    return found


def test_a_backup_that_is_altered_is_noticed_and_one_that_is_none_is_refused(
    backup: Path, empty: dict[str, str], tmp_path: Path
) -> None:
    altered = tmp_path / "altered"
    shutil.copytree(backup, altered)
    with (altered / "mysql/catalog.sql").open("a") as dump:
        dump.write("UPDATE products SET is_active = NOT is_active LIMIT 1;\n")
    said = run(empty, "scripts.backup", "restore", str(altered))
    assert said.returncode == 1
    assert said.stdout.count("instead of") == 1
    assert "mysql/catalog.products" in said.stdout

    (altered / "manifest.json").unlink()
    said = run(empty, "scripts.backup", "restore", str(altered))
    assert said.returncode == 1
    assert "no backup: its manifest.json cannot be read" in said.stdout


def test_a_restored_stack_holds_what_the_other_one_held(backup: Path, empty: dict[str, str]) -> None:
    restored = run(empty, "scripts.backup", "restore", str(backup), "--replace")
    assert restored.returncode == 0, restored.stdout + restored.stderr
    assert "restored, every digest equal" in restored.stdout

    # By plain queries, which share no code with the backup.
    before, after = rows(of_stack(dict(os.environ))), rows(of_stack(empty))
    assert before == after
    assert all(before.values())

    # And all of it once more: a backup of what was restored has the same digests.
    again = backup.with_name("again")
    made = run(empty, "scripts.backup", "create", "--to", str(again))
    assert made.returncode == 0, made.stdout + made.stderr
    first, second = (json.loads((one / "manifest.json").read_text())["digests"] for one in (backup, again))
    assert first == second


def test_stores_with_rows_are_not_overwritten_unasked(backup: Path, empty: dict[str, str]) -> None:
    said = run(empty, "scripts.backup", "restore", str(backup))
    assert said.returncode == 1
    assert "orders" in said.stdout and "has rows, which would be lost" in said.stdout


def test_a_backup_is_for_its_owner_alone_and_overwrites_nothing(backup: Path) -> None:
    assert backup.stat().st_mode & 0o077 == 0
    assert not [file for file in backup.rglob("*") if file.stat().st_mode & 0o077]
    said = run(dict(os.environ), "scripts.backup", "create", "--to", str(backup))
    assert said.returncode == 1
    assert "is there already" in said.stdout
