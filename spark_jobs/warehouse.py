"""The warehouse as the jobs read it: rows of `ods` and versions of dimensions, by queries."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import psycopg
from cryptography.hazmat.primitives import serialization
from psycopg import sql
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from tallyhouse.contracts import ColumnType, Kind, TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.models import Definition
from tallyhouse.servers import PostgresServer


@dataclass(frozen=True)
class Warehouse:
    """A server and an account, and what to tell Spark of them."""

    server: PostgresServer

    @classmethod
    def from_environment(cls) -> Warehouse:
        """The warehouse of `DWH_CONNINFO`, a connection string of libpq.

        Raises:
            TallyhouseError: It is not set, or is none.
        """
        try:
            return cls(PostgresServer.parse(os.environ["DWH_CONNINFO"]))
        except (KeyError, psycopg.ProgrammingError) as error:
            raise TallyhouseError(
                "DWH_CONNINFO is not set, or no connection string of PostgreSQL",
                where="environment of the Spark job",
                remedy="Pass the warehouse's address and account in the job's environment.",
            ) from error

    @property
    def address(self) -> str:
        """The connection string, account included; for COPY."""
        return self.server.conninfo

    def connect(self) -> psycopg.Connection[Any]:
        """Opens a connection of the driver's own, each statement its own transaction.

        Raises:
            TallyhouseError: The server does not answer, or refuses the account.
        """
        try:
            return self.server.connect(autocommit=True)
        except psycopg.OperationalError as error:
            raise TallyhouseError(
                f"the warehouse does not answer, or refuses the account: {str(error).splitlines()[0]}",
                where="Spark job",
                remedy="Check that PostgreSQL runs and that the connection pg_dwh is right.",
            ) from error

    def filled(self, tables: Sequence[TableContract]) -> set[str]:
        """Names of the tables that have a row in `ods`."""
        probes = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {} WHERE EXISTS (SELECT 1 FROM ods.{})").format(
                sql.Literal(table.name), sql.Identifier(table.name)
            )
            for table in tables
        )
        with self.connect() as connection:
            return {name for (name,) in connection.execute(probes).fetchall()}

    def read(self, spark: SparkSession, query: str, types: Mapping[str, ColumnType], *more: str) -> DataFrame:
        """The rows of a query, streamed by JDBC, in Spark's types.

        Args:
            spark: The session.
            query: In PostgreSQL's SQL.
            types: Of the query's columns, by name.
            more: Columns beside those, as the driver has them.
        """
        columns = [*(f"{_said(*one)} AS {_quoted(one[0])}" for one in types.items()), *map(_quoted, more)]
        rows = (
            spark.read.format("jdbc")
            .options(
                **_with_readable_key(self.server.jdbc),
                driver="org.postgresql.Driver",
                query=f"SELECT {', '.join(columns)} FROM ({query}) AS q",
                fetchsize="10000",
            )
            .load()
        )
        return rows.select(*(_value(*one) for one in types.items()), *more)

    def typed(self, spark: SparkSession, contract: TableContract, query: str) -> DataFrame:
        """The rows of a query over an `ods` table, in the contract's Spark types, and `_deleted_at`."""
        types = {column.name: column.type for column in contract.columns}
        return self.read(spark, query, types, "_snapshot", "_run", "_deleted_at")

    def model_rows(self, spark: SparkSession, model: Definition, query: str) -> DataFrame:
        """The rows of a query over a model, in its definition's Spark types."""
        return self.read(spark, query, {name: column.column_type for name, column in model.columns.items()})


def _with_readable_key(options: dict[str, str]) -> dict[str, str]:
    """Options whose client key is in the one form that Java's driver reads, PKCS 8 in DER; libpq has PEM."""
    file = options.get("sslkey")
    if file is None or not Path(file).read_bytes().startswith(b"-----BEGIN"):
        return options
    password = options.get("sslpassword")
    return {**options, "sslkey": _java_key(file, password)}


@cache
def _java_key(file: str, password: str | None) -> str:
    key = serialization.load_pem_private_key(Path(file).read_bytes(), password.encode() if password else None)
    folder = mkdtemp(prefix="tallyhouse-")  # for this account alone, and for as long as the job runs
    atexit.register(rmtree, folder, ignore_errors=True)
    copy = Path(folder) / "key.pk8"
    copy.touch(mode=0o600)
    copy.write_bytes(
        key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return str(copy)


def _quoted(name: str) -> str:
    return f'"{name}"'


def _said(name: str, type_: ColumnType) -> str:
    """How PostgreSQL says a value so that nothing on the way to Spark changes it."""
    value = _quoted(name)
    if type_.kind is Kind.DATE:
        # As numbers: Java's own dates would move those that the Julian calendar did not have.
        return f"{value} - DATE '1970-01-01'"
    if type_.kind is Kind.TIMESTAMP:
        return f"CAST(EXTRACT(EPOCH FROM {value}) * 1000000 AS bigint)"
    if type_.kind is Kind.CHAR or type_.is_wide:
        return f"CAST({value} AS text)"  # without the blanks that fill a CHAR; with every digit
    return value


def _value(name: str, type_: ColumnType) -> Column:
    if type_.kind is Kind.DATE:
        return F.date_from_unix_date(name).alias(name)
    if type_.kind is Kind.TIMESTAMP:
        return F.timestamp_micros(name).alias(name)
    return F.col(name).cast(type_.spark).alias(name)
