"""Keys as numbers: the digest of a row's key, the same in the source, in raw and in `ods`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg

from tallyhouse.contracts import Column, Kind, TableContract
from tallyhouse.extract.digest import row_digest
from tallyhouse.extract.give_way import mark
from tallyhouse.extract.statement import build, key_number, pin, plain, row_number

FETCH = 20_000
"""Keys that are held at once."""


def ods_number(contract: TableContract, alias: str = "o") -> str:
    """The number of a row's key in `ods`, as PostgreSQL's SQL."""
    columns = (contract.column(name) for name in contract.key)
    return row_digest("postgres", [(column.type, ods_value(column, alias)) for column in columns])


def ods_row(contract: TableContract, columns: Collection[Column] | None = None) -> str:
    """The digest of a row of `ods.<table> AS o`, in SQL; that of the source is `statement.row_as_ods`."""
    chosen = contract.source_columns if columns is None else columns
    return row_digest("postgres", [(column.type, ods_value(column)) for column in chosen])


def ods_value(column: Column, alias: str = "o") -> str:
    """A value in `ods`, as the wire carries it; times in full."""
    value = f'{alias}."{column.name}"'
    if column.type.kind is Kind.TIMESTAMP:
        return f"to_char({value} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
    if column.type.kind is Kind.BOOLEAN:
        return f"{value}::integer"
    if column.type.kind in (Kind.SMALLINT, Kind.INTEGER, Kind.BIGINT, Kind.BINARY):
        return value
    return f"{value}::text"


class Snapshot:
    """One consistent snapshot of a source's table, in which keys are counted and fetched.

    Attributes:
        at: The source's clock when it was opened, UTC.
    """

    def __init__(self, connection: Any, dialect: str, contract: TableContract) -> None:
        self.connection, self.cursor = connection, connection.cursor()
        self.contract, self.dialect = contract, dialect
        self.table = build(dialect, contract, None).table
        self.number = key_number(dialect, contract)
        pin(self.cursor, dialect)
        connection.commit()
        if dialect == "mysql":
            self.cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            self.cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            now = "UTC_TIMESTAMP(6)"
        else:
            self.cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            now = "clock_timestamp()"
        self.at = _utc(self._one(f"SELECT {now}"))

    def name(self, column: str) -> str:
        """A column of the table, which stands under the alias `w`."""
        return plain(self.dialect, self.contract, column)

    def newest(self, column: str) -> Any:
        """The greatest value of a column, a time as UTC; None where there is no row."""
        condition = "TRUE"
        if column == self.contract.cursor:
            # Neither infinity nor a year that Python does not know; values are judged later.
            condition = f"{self.name(column)} < '9999-12-31'"
        found = self._one(f"SELECT MAX({self.name(column)}) FROM {self.table} AS w WHERE {condition}")
        return _utc(found) if isinstance(found, datetime) else found

    def buckets(self, buckets: int) -> dict[int, tuple[int, int]]:
        """By bucket, its keys and the sum of their numbers."""
        self.cursor.execute(
            f"SELECT {mark()} MOD(k, {buckets}) AS b, COUNT(*), SUM(k) FROM (SELECT {self.number} AS k "
            f"FROM {self.table} AS w {self._once}) AS x GROUP BY b"
        )
        return {int(b): (int(count), int(total)) for b, count, total in self.cursor.fetchall()}

    def keys(self, buckets: int, wanted: list[int]) -> Iterator[tuple[int, Any]]:
        """The numbers of the keys in some buckets, each with its row's cursor as PostgreSQL takes it."""
        if wanted:
            condition = f"MOD({self.number}, {buckets}) IN ({_list(wanted)})"
            for key, at in self.stream(f"{self.number}, {self._cursor_text()}", condition):
                yield int(key), _with_zone(at)

    def window_keys(self, window: str, slice_: str) -> Iterator[tuple[int]]:
        """The numbers of the keys of a window."""
        for (key,) in self.stream(self.number, f"{window} AND {slice_.format(k=self.number)}"):
            yield (int(key),)

    def row_buckets(self, outside: str, slice_: str, bucket: str) -> dict[int, tuple[int, int, int]]:
        """By bucket, its rows outside the window, and the sums of their keys' and their own digests."""
        columns = f"{self.number} AS k, {row_number(self.dialect, self.contract)} AS d"
        rows = f"SELECT {columns} FROM {self.table} AS w WHERE {outside} AND {slice_.format(k=self.number)}"
        self.cursor.execute(
            f"SELECT {mark()} {bucket.format(k='k')} AS b, COUNT(*), SUM(k), SUM(d) "
            f"FROM ({rows} {self._once}) AS x GROUP BY b"
        )
        return {int(b): (int(count), int(keys), int(rows)) for b, count, keys, rows in self.cursor.fetchall()}

    def rows(self, outside: str, slice_: str, bucket: str, wanted: list[int]) -> Iterator[tuple[int, int]]:
        """The rows in some buckets: number of the key, digest."""
        if wanted:
            chosen = f"{bucket.format(k=self.number)} IN ({_list(wanted)})"
            columns = f"{self.number}, {row_number(self.dialect, self.contract)}"
            condition = f"{outside} AND {slice_.format(k=self.number)} AND {chosen}"
            for key, digest in self.stream(columns, condition):
                yield int(key), int(digest)

    @property
    def _once(self) -> str:
        """Ends a sub-query whose columns would otherwise be computed again wherever they are named."""
        return "OFFSET 0" if self.dialect == "postgres" else "LIMIT 18446744073709551615"

    def close(self) -> None:
        """Ends the snapshot."""
        self.cursor.execute("ROLLBACK")
        self.cursor.close()

    def _cursor_text(self) -> str:
        if self.contract.cursor is None:
            return "NULL"
        value = self.name(self.contract.cursor)
        return f"CAST({value} AS CHAR)" if self.dialect == "mysql" else value

    def stream(self, columns: str, condition: str) -> Iterator[tuple[Any, ...]]:
        """Rows, a bounded number of them at a time."""
        # By its own wish, MySQL's driver leaves on the server what was not asked for; psycopg has to be told.
        streaming = self.connection.cursor(*(("keys",) if self.dialect == "postgres" else ()))
        with closing(streaming) as cursor:
            cursor.execute(f"SELECT {mark()} {columns} FROM {self.table} AS w WHERE {condition}")
            while rows := cursor.fetchmany(FETCH):
                yield from rows

    def _one(self, query: str) -> Any:
        self.cursor.execute(query)
        return self.cursor.fetchone()[0]


def stage(connection: psycopg.Connection[Any], into: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Copies rows into a temporary table of the warehouse."""
    with connection.cursor() as cursor, cursor.copy(f"COPY {into} FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row(row)


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(str(int(number)) for number in numbers)


def _with_zone(at: Any) -> Any:
    return f"{at}+00" if isinstance(at, str) else at


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
