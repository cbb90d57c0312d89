"""A change of a table's definition does not wait for our reading for longer than a bound.

A reader's transaction keeps everybody from changing the table's definition until it ends, and who waits for
that keeps all later readers and writers waiting. So while a table is read, somebody looks whether a statement
waits for it; after the bound our session is ended, and the attempt is void.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Callable
from contextlib import closing, suppress
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

from tallyhouse.contracts import TableContract
from tallyhouse.errors import TallyhouseError, first_line

log = logging.getLogger(__name__)

_TOKEN = secrets.token_hex(4)
_WAITING = {
    "mysql": (
        "SELECT w.info, b.id FROM information_schema.processlist AS w "
        "JOIN information_schema.processlist AS b ON b.info LIKE %(mark)s AND b.id <> CONNECTION_ID() "
        "WHERE w.state = 'Waiting for table metadata lock' AND w.db = DATABASE() AND w.info REGEXP %(table)s "
        "AND w.time >= %(seconds)s"
    ),
    "postgres": (
        "SELECT w.query, b.pid FROM pg_stat_activity AS w "
        "CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS blocker "
        "JOIN pg_stat_activity AS b ON b.pid = blocker AND b.query LIKE %(mark)s "
        "WHERE w.wait_event_type = 'Lock' "
        "AND clock_timestamp() - w.query_start >= make_interval(secs => %(seconds)s)"
    ),
}
_END = {"mysql": "KILL {:d}", "postgres": "SELECT pg_terminate_backend({:d})"}


def mark() -> str:
    """A comment that tells this process's statements from all others on the server."""
    return f"/* tallyhouse {_TOKEN} {os.getpid()} */"


class GiveWay:
    """Watches, while its block runs, whether a change of the table's definition waits for our reading."""

    def __init__(
        self, connect: Callable[[], Any], dialect: str, contract: TableContract, seconds: float
    ) -> None:
        self._connect, self._dialect, self._contract, self._seconds = connect, dialect, contract, seconds
        self._done = Event()
        self._gave_way: str | None = None
        self._thread = Thread(target=self._watch, name="give-way", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._gave_way and error is not None:
            raise TallyhouseError(
                f"a change of its definition had waited for our reading for {self._seconds:g} s, which "
                f"was ended ({self._gave_way})",
                remedy="Nothing was committed; it is taken again by the next try",
                transient=True,
                table=self._contract.qualified_name,
                rule="reading gives way to a change of a table's definition",
            ) from error

    def _watch(self) -> None:
        # Without a watcher the reading goes on: it is no reason to fail.
        try:
            while not self._done.wait(max(self._seconds / 4, 0.2)):
                with closing(self._connect()) as connection:
                    self._look(connection)
        except Exception as error:  # each driver has classes of its own
            log.warning(
                "%s: nobody looks whether a change of its definition waits (%s)",
                *(self._contract.qualified_name, first_line(error)),
            )

    def _look(self, connection: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(
            _WAITING[self._dialect],
            {"mark": f"%{mark()}%", "table": _word(self._contract.in_source), "seconds": int(self._seconds)},
        )
        for statement, ours in cursor.fetchall():
            text = statement.decode() if isinstance(statement, bytes | bytearray) else str(statement)
            self._gave_way = " ".join(text.split())[:120]
            log.warning("%s: reading gives way to: %s", self._contract.qualified_name, self._gave_way)
            with suppress(Exception):  # it may have ended by itself
                cursor.execute(_END[self._dialect].format(ours))
        cursor.close()


def _word(name: str) -> str:
    """A pattern of MySQL and MariaDB that finds a table's name, and not that of another which contains it."""
    return rf"(?<![\w$]){re.escape(name)}(?![\w$])"
