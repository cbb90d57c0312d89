"""The warehouse as the jobs read it: rows of `ods` and versions of dimensions, for given keys only.

The keys of what changed are pushed into a table of the run's own in `staging`; PostgreSQL closes them
over the models' joins, and what is read is a join with them. Nothing is read whole but the few tables
that are small by nature.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tallyhouse.contracts import Kind, TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.publish import sql as statements
from tallyhouse.publish.run import STAGING_SUFFIX, staging_suffix

_JDBC_URL = re.compile(r"^jdbc:(postgresql://[^?]+)")
KEY_SCHEMA = "kind string, id string, since timestamp"


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

    @contextmanager
    def keys(self, spark: SparkSession, subject: str, run_id: str) -> Iterator[Keys]:
        """A table of keys in `staging` for as long as the block runs; dropped whatever happens in it.

        Tables that killed runs of the same subject left behind are dropped first.
        """
        name = f"key_{subject}_{staging_suffix(run_id)}"
        with self.connect() as connection:
            for (left,) in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'staging' AND tablename ~ %s",
                (f"\\Akey_{subject}_{STAGING_SUFFIX}\\Z",),
            ).fetchall():
                connection.execute(sql.SQL("DROP TABLE staging.{}").format(sql.Identifier(left)))
            connection.execute(
                sql.SQL(
                    "CREATE UNLOGGED TABLE staging.{} "
                    "(kind text NOT NULL, id text NOT NULL, since timestamptz)"
                ).format(sql.Identifier(name))
            )
            try:
                yield Keys(spark, self, connection, name)
            finally:
                connection.execute(sql.SQL("DROP TABLE staging.{}").format(sql.Identifier(name)))

    def read(self, spark: SparkSession, query: str) -> DataFrame:
        """The rows of a query, streamed by JDBC."""
        return (
            spark.read.format("jdbc")
            .options(
                url=self.jdbc_url,
                user=self.user,
                password=self.password,
                driver="org.postgresql.Driver",
                query=query,
                fetchsize="10000",
            )
            .load()
        )


@dataclass(frozen=True)
class Keys:
    """The keys that a run touches, in PostgreSQL."""

    spark: SparkSession
    warehouse: Warehouse
    connection: psycopg.Connection[Any]
    table: str

    def push(self, keys: DataFrame) -> None:
        """Adds keys.

        Args:
            keys: `kind`, `id` as text, and `since` (UTC): from when on facts are touched, or NULL.
        """
        keys.where("id IS NOT NULL").write.format("jdbc").mode("append").options(
            url=f"{self.warehouse.jdbc_url}?reWriteBatchedInserts=true&stringtype=unspecified",
            user=self.warehouse.user,
            password=self.warehouse.password,
            driver="org.postgresql.Driver",
            dbtable=f"staging.{self.table}",
            batchsize="10000",
        ).save()

    def run(self, statement: str) -> None:
        """Runs a statement of `sql/dwh/closure/`, `{{ keys }}` being the table of keys.

        Its statistics are refreshed before and after, or the planner would take it for empty.
        """
        analyze = sql.SQL("ANALYZE staging.{}").format(sql.Identifier(self.table))
        self.connection.execute(analyze)
        self.connection.execute(
            statements.render(f"dwh/closure/{statement}", keys=f"staging.{self.table}").encode()
        )
        self.connection.execute(analyze)

    def rows(self, contract: TableContract, column: str, kind: str) -> DataFrame:
        """Rows of an `ods` table whose column is one of the keys of a kind.

        Returns:
            The accepted columns, and `_deleted_at`.
        """
        return self.typed(contract, f"SELECT t.* FROM ods.{contract.name} AS t {self._having(column, kind)}")

    def all_rows(self, contract: TableContract) -> DataFrame:
        """Every row of an `ods` table; for tables that are small by nature."""
        return self.typed(contract, f"SELECT t.* FROM ods.{contract.name} AS t")

    def model_rows(self, model: str, column: str, kind: str) -> DataFrame:
        """Rows of a model whose column is one of the keys of a kind."""
        return self.warehouse.read(
            self.spark, f"SELECT t.* FROM dwh.{model} AS t {self._having(column, kind)}"
        )

    def typed(self, contract: TableContract, query: str) -> DataFrame:
        """The rows of a query over an `ods` table, in the contract's Spark types."""
        rows = self.warehouse.read(self.spark, query)
        # PostgreSQL hands CHAR(n) out padded; the source's form has no trailing spaces.
        values = [
            (F.rtrim(column.name) if column.type.kind is Kind.CHAR else F.col(column.name))
            .cast(column.type.spark)
            .alias(column.name)
            for column in contract.columns
        ]
        return rows.select(*values, "_snapshot", "_run", "_deleted_at")

    def _having(self, column: str, kind: str) -> str:
        # bpchar is the type of CHAR(n): compared as text, the column's index would not serve.
        keys = f"SELECT k.id::bpchar FROM staging.{self.table} AS k WHERE k.kind = '{kind}'"
        return f"WHERE t.{column} IN ({keys})"
