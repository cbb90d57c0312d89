"""Real questions to each server: does it answer, and who holds a port that should be free."""

import socket
from pathlib import Path
from typing import Any

import mysql.connector
import psycopg
import requests
from confluent_kafka.admin import AdminClient

from tallyhouse.settings import Settings


def http(url: str, login: tuple[str, str] | None = None) -> None:
    """Raise unless the URL answers 200, to a user with a password if it asks for one."""
    requests.get(url, auth=login, timeout=2).raise_for_status()


def mysql_connection(values: dict[str, str], store: str, reader: bool = False) -> Any:
    """A connection to a store as its root, or as the account that extracts."""
    key = f"MYSQL_{store.upper()}"
    login = (
        ("root", "MYSQL_ROOT_PASSWORD") if not reader else (values["ETL_READER_USER"], "ETL_READER_PASSWORD")
    )
    return mysql.connector.connect(
        host=values[f"{key}_HOST"],
        port=int(values[f"{key}_PORT"]),
        database=values[f"{key}_DB"],
        user=login[0],
        password=values[login[1]],
        connection_timeout=5,
        autocommit=True,
    )


def mysql_store(values: dict[str, str], store: str) -> None:
    """Raise unless the store answers a query."""
    with mysql_connection(values, store) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchall()


def postgres_connection(settings: Settings, database: str = "postgres") -> psycopg.Connection:
    """A connection to the server as its superuser."""
    return psycopg.connect(
        host=settings.postgres_host,
        port=settings.postgres_port,
        user=settings.postgres_user,
        password=settings.postgres_password,
        dbname=database,
        connect_timeout=5,
        autocommit=True,
    )


def warehouse_connection(settings: Settings) -> psycopg.Connection:
    """A connection to the warehouse as the role that only reads."""
    return psycopg.connect(
        host=settings.postgres_host,
        port=settings.postgres_port,
        user=settings.dwh_reader_user,
        password=settings.dwh_reader_password,
        dbname=settings.dwh_db,
        connect_timeout=5,
        autocommit=True,
    )


def pancake_connection(settings: Settings) -> psycopg.Connection:
    """A connection to the pancake shop's database as the account that extracts."""
    return psycopg.connect(
        host=settings.pancake_db_host,
        port=settings.pancake_db_port,
        user=settings.etl_reader_user,
        password=settings.etl_reader_password,
        dbname=settings.pancake_db,
        connect_timeout=5,
        autocommit=True,
    )


def postgres(settings: Settings) -> None:
    """Raise unless PostgreSQL answers a query."""
    with postgres_connection(settings) as connection:
        connection.execute("SELECT 1")


def kafka(settings: Settings) -> None:
    """Raise unless the broker tells of its cluster."""
    client = AdminClient({"bootstrap.servers": settings.kafka_bootstrap, "log_level": 0})
    client.list_topics(timeout=1)


def airflow_part(settings: Settings, part: str) -> None:
    """Raise unless Airflow's monitor says that the part is healthy."""
    answer = requests.get(f"{settings.airflow_url}/api/v2/monitor/health", timeout=5).json()
    state = (answer.get(part) or {}).get("status")
    if state != "healthy":
        raise RuntimeError(f"{part} is {state}")


def port_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def listeners() -> dict[int, tuple[str, int]]:
    """Listening TCP sockets of this machine.

    Returns:
        By inode, the address in /proc's hexadecimal and the port.
    """
    found: dict[int, tuple[str, int]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                address, port = fields[1].rsplit(":", 1)
                if fields[3] == "0A":
                    found[int(fields[9])] = (address, int(port, 16))
    return found


def holder(port: int) -> str:
    """Who listens on a port, as far as this user may see."""
    inodes = {f"socket:[{inode}]" for inode, (_, p) in listeners().items() if p == port}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                    words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    return f"pid {process.name} ({words.strip()[:60]})"
            except OSError:
                continue
    return "another program"
