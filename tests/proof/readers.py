"""Readers that poll both stores while runs are published."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

SECONDS = 0.05
"""Between two looks."""


class Readers:
    """Reads both stores again and again, and keeps every state that is not of a whole run.

    Each query answers one number twice, from two tables, which are the same in each state of a whole run.

    Attributes:
        odd: States that are of no whole run.
        seen: How many states were looked at.
    """

    postgres = (
        "SELECT (SELECT sum(fluffiness_level) FROM ods.pancakes WHERE _deleted_at IS NULL), "
        "(SELECT sum(fluffiness_level) FROM dwh.fact_pancake_rating)"
    )
    clickhouse = (
        "SELECT (SELECT sum(fluffiness_level) FROM dwh.fact_pancake_rating), "
        "(SELECT sum(total_fluffiness) FROM dwh.mart_pancake_quality)"
    )

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[Any]],
        client: Callable[[], Client],
        allowed: set[int],
    ) -> None:
        self.connect, self.client, self.allowed = connect, client, allowed
        self.odd, self.seen = list[str](), 0
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=one)
            for one in (("PostgreSQL", self._postgres), ("ClickHouse", self._clickhouse))
        ]

    def _postgres(self) -> Iterator[tuple[int, int]]:
        with self.connect() as connection:
            while True:
                yield connection.execute(self.postgres.encode()).fetchall()[0]

    def _clickhouse(self) -> Iterator[tuple[int, int]]:
        with self.client() as client:
            while True:
                yield client.query(self.clickhouse).result_rows[0]

    def _read(self, name: str, states: Callable[[], Iterator[tuple[int, int]]]) -> None:
        while not self._done.is_set():
            try:
                for left, right in states():
                    self.seen += 1
                    if left != right or (left or 0) not in self.allowed:
                        self.odd.append(f"{name}: {left}, {right}")
                    if self._done.wait(SECONDS):
                        return
            except (psycopg.OperationalError, ClickHouseError):
                self._done.wait(0.2)  # the server was killed

    @property
    def said(self) -> str:
        """What they saw, for the page."""
        return "; ".join(self.odd[:3]) or f"whole runs only, {self.seen} times"

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
