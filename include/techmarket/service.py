"""One service's store while a day is played: small transactions, counted."""

import random
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from mysql.connector.abstracts import MySQLConnectionAbstract

from techmarket.batches import Batch
from techmarket.business_time import FIRST_DAY, HOUR, SECOND, midnight, times_on, to_datetime, weight
from techmarket.load import statements
from techmarket.randomness import Randomness

Row = tuple[Any, ...]
Changes = Counter[tuple[str, str, str]]
"""Rows per store, table and kind of change."""

_SLICE = 25


@dataclass(frozen=True)
class Today:
    """The day that is played.

    Attributes:
        day: business day of Kyiv.
        seed: of all draws.
    """

    day: date
    seed: int

    @property
    def key(self) -> str:
        """Seed of this day's draws."""
        return f"{self.seed}/{self.day.isoformat()}"

    @property
    def number(self) -> int:
        """Days since the history began."""
        return (self.day - FIRST_DAY).days

    @property
    def start(self) -> datetime:
        """Its first moment, naive UTC."""
        return to_datetime(midnight(self.day))

    def dice(self, step: str) -> random.Random:
        """Draws of one step; Python's generator gives the same numbers on every machine."""
        return random.Random(f"{self.key}/{step}")  # noqa: S311 - repeatable on purpose

    def randomness(self) -> Randomness:
        """Draws by position, for rows made like the history's."""
        return Randomness(self.key)

    def share(self) -> float:
        """This day's events as a share of all events before it."""
        before = sum(weight(FIRST_DAY + timedelta(days=d)) for d in range(self.number))
        return weight(self.day) / before

    def moments(self, name: str, count: int) -> list[datetime]:
        """Times of ``count`` events, in order, naive UTC."""
        return times_on(self.day, count, name, self.randomness())

    def at_work(self, dice: random.Random) -> datetime:
        """Some time between 9 and 19 o'clock in Kyiv, naive UTC."""
        return to_datetime(midnight(self.day) + 9 * HOUR + dice.randrange(10 * 3600) * SECOND)


class Service:
    """A store, its transactions, and what was changed in it.

    Args:
        name: of the service.
        connection: to its store, without autocommit.
        changes: where changed rows are counted.
    """

    def __init__(self, name: str, connection: MySQLConnectionAbstract, changes: Changes) -> None:
        self.name = name
        self._connection = connection
        self._changes = changes

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits at the end, or rolls back what an error interrupts."""
        # Reads before it opened a snapshot; changes belong to a transaction of their own.
        self._connection.commit()
        counted = Counter(self._changes)
        try:
            yield
            self._connection.commit()
        except BaseException:
            self._connection.rollback()
            self._changes.clear()
            self._changes.update(counted)
            raise

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """What a query finds."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, tuple(values))
            return [tuple(row) for row in cursor.fetchall()]

    def rows_in(self, statement: str, keys: Sequence[Any]) -> list[Row]:
        """What a query with one ``IN ({})`` finds for many keys."""
        found: list[Row] = []
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            found += self.rows(statement.format(", ".join(["%s"] * len(part))), part)
        return found

    def count(self, table: str) -> int:
        """Rows of a table."""
        return int(self.rows(f"SELECT COUNT(*) FROM {table}")[0][0])

    def sample(
        self,
        table: str,
        columns: str,
        count: int,
        dice: random.Random,
        *,
        where: str = "TRUE",
        key: str = "id",
    ) -> list[Row]:
        """Some rows, without reading the whole table: short runs of keys from random places.

        Args:
            table: where from.
            columns: to be read; the first one tells rows apart.
            count: how many at most; fewer when the table has few that fit.
            dice: decides which.
            where: condition they meet.
            key: a key column of random UUIDs.
        """
        found: dict[Any, Row] = {}
        for _ in range(3 + 4 * count // _SLICE):
            if len(found) >= count:
                break
            statement = (
                f"SELECT {columns} FROM {table} WHERE {key} >= %s AND {where} ORDER BY {key} LIMIT {_SLICE}"
            )
            # Behind the last key the search goes on from the first.
            for row in self.rows(statement, (new_uuid(dice),)) or self.rows(statement, ("",)):
                found[row[0]] = row
        return list(found.values())[:count]

    def insert(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows; all have the same columns."""
        if not rows:
            return
        columns = ", ".join(rows[0])
        marks = ", ".join(["%s"] * len(rows[0]))
        with self._connection.cursor() as cursor:
            values = [tuple(row.values()) for row in rows]
            cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)
        self._changes[self.name, table, "inserted"] += len(rows)

    def put(self, batch: Batch) -> None:
        """Add rows that were made like the history's."""
        for statement in statements(batch):
            with self._connection.cursor() as cursor:
                cursor.execute(statement)
        self._changes[self.name, batch.table, "inserted"] += len(batch)

    def update(self, table: str, assignments: str, values: Sequence[Any], where: str = "id = %s") -> None:
        """Change one row."""
        with self._connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET {assignments} WHERE {where}", tuple(values))
            self._changes[self.name, table, "updated"] += cursor.rowcount

    def delete(self, table: str, column: str, keys: Sequence[Any]) -> None:
        """Remove the rows with these keys."""
        for start in range(0, len(keys), 500):
            part = tuple(keys[start : start + 500])
            marks = ", ".join(["%s"] * len(part))
            with self._connection.cursor() as cursor:
                cursor.execute(f"DELETE FROM {table} WHERE {column} IN ({marks})", part)
                self._changes[self.name, table, "deleted"] += cursor.rowcount


def new_uuid(dice: random.Random) -> str:
    """A UUID, version 4."""
    return str(uuid.UUID(int=dice.getrandbits(128), version=4))


def several(expected: float, dice: random.Random) -> int:
    """A whole number with this mean."""
    return int(expected) + (dice.random() < expected % 1)
