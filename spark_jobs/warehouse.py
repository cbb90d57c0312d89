"""The warehouse as the jobs read it: rows of `ods` and versions of dimensions, by queries."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from tallyhouse.contracts import ColumnType, Kind, TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.models import Definition

_JDBC_URL = re.compile(r"^jdbc:(postgresql://[^?]+)")


@dataclass(frozen=True)
class Warehouse:
    """A connection's address, and what to tell Spark of it."""

    jdbc_url: str
    user: str
    password: str

    @classmethod
    def from_environment(cls) -> Warehouse:
        """The warehouse of `DWH_JDBC_URL`, `DWH_USER` and `DWH_PASSWORD`.

        Raises:
            TallyhouseError: One of them is not set.
        """
        names = ("DWH_JDBC_URL", "DWH_USER", "DWH_PASSWORD")
        if missing := [name for name in names if not os.environ.get(name)]:
            raise TallyhouseError(
                f"{', '.join(missing)} not set",
                where="environment of the Spark job",
                remedy="Pass the warehouse's address and account in the job's environment.",
            )
        return cls(*(os.environ[name] for name in names))

    @property
    def address(self) -> str:
        """The libpq URI, account included; for COPY."""
        place = self.jdbc_url.removeprefix("jdbc:postgresql://").partition("?")[0]
        return f"postgresql://{quote(self.user, safe='')}:{quote(self.password, safe='')}@{place}"

    def connect(self) -> psycopg.Connection[Any]:
        """Opens a connection of the driver's own, each statement its own transaction.

        Raises:
            TallyhouseError: The server does not answer, or refuses the account.
        """
        match = _JDBC_URL.match(self.jdbc_url)
        if match is None:
            raise TallyhouseError(
                f"DWH_JDBC_URL {self.jdbc_url!r} is not jdbc:postgresql://<host>:<port>/<database>",
                where="environment of the Spark job",
                remedy="Correct it.",
            )
        try:
            return psycopg.connect(
                match[1], user=self.user, password=self.password, autocommit=True, connect_timeout=5
            )
        except psycopg.OperationalError as error:
            raise TallyhouseError(
                f"the warehouse at {match[1]} does not answer or refuses {self.user}: "
                f"{str(error).splitlines()[0]}",
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
                url=self.jdbc_url,
                user=self.user,
                password=self.password,
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
