"""Open work on MySQL and MariaDB, as seen from outside.

`performance_schema` knows when each statement and each transaction began. InnoDB's own list does not: a
statement that waited for a metadata lock enters it only after the wait, with `NOW()` from before, and a
prepared transaction that outlived a restart starts anew there. It is a cache besides, which is not filled
again while anybody reads it more often than every 0.1 s. So it is believed only once it shows a transaction
of our own that was begun after the clock was read (the canary).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tallyhouse.contracts import SourceContract
from tallyhouse.errors import first_line
from tallyhouse.extract.open_work import OpenWork

_LEFT_ALONE = 0.15
"""Seconds between two looks at InnoDB's list; it is filled again after 0.1 s without one."""
_LOOKS = 12
_DRIFT = 0.001
"""How far a server's monotonic timer may run apart from its clock, as part of the time that is measured."""
_ZERO = timedelta(0)

_CONSUMERS = (
    "global_instrumentation",
    "thread_instrumentation",
    "events_statements_current",
    "events_statements_history",
    "events_transactions_current",
)
_CAN_TELL = f"""
    SELECT
        (SELECT COUNT(*) FROM performance_schema.setup_consumers
         WHERE ENABLED = 'YES' AND NAME IN {_CONSUMERS!r}) = {len(_CONSUMERS)}
        AND (SELECT COUNT(*) FROM performance_schema.setup_instruments
             WHERE NAME = 'transaction' AND ENABLED = 'YES' AND TIMED = 'YES') = 1
        AND (SELECT COUNT(*) FROM performance_schema.setup_instruments
             WHERE (NAME LIKE 'statement/sql/%' OR NAME LIKE 'statement/com/%')
             AND (ENABLED <> 'YES' OR TIMED <> 'YES')) = 0
        AND (SELECT COUNT(*) FROM performance_schema.threads
             WHERE TYPE = 'FOREGROUND' AND INSTRUMENTED <> 'YES') = 0
"""
_LOST = "SHOW GLOBAL STATUS LIKE 'Performance_schema_thread_instances_lost'"
# Ages in picoseconds. Of what has not ended, TIMER_WAIT is the time until this very look.
_STATEMENTS = """
    SELECT UTC_TIMESTAMP(6), t.PROCESSLIST_ID, s.TIMER_WAIT
    FROM performance_schema.events_statements_current AS s
    JOIN performance_schema.threads AS t ON t.THREAD_ID = s.THREAD_ID
    WHERE s.END_EVENT_ID IS NULL AND s.TIMER_WAIT IS NOT NULL AND t.PROCESSLIST_ID IS NOT NULL
"""
# With each transaction the statement that opened it: without BEGIN it may have waited for a lock first, and
# its rows bear the time before the wait.
_TRANSACTIONS = """
    SELECT
        UTC_TIMESTAMP(6), t.PROCESSLIST_ID, x.ACCESS_MODE, x.TIMER_WAIT, x.TIMER_START,
        (SELECT MIN(s.TIMER_START) FROM performance_schema.events_statements_current AS s
         WHERE s.THREAD_ID = x.THREAD_ID AND s.TIMER_START <= x.TIMER_START
         AND (s.END_EVENT_ID IS NULL OR s.TIMER_END >= x.TIMER_START)),
        (SELECT MIN(s.TIMER_START) FROM performance_schema.events_statements_history AS s
         WHERE s.THREAD_ID = x.THREAD_ID AND s.TIMER_START <= x.TIMER_START
         AND s.TIMER_END >= x.TIMER_START)
    FROM performance_schema.events_transactions_current AS x
    JOIN performance_schema.threads AS t ON t.THREAD_ID = x.THREAD_ID
    WHERE x.STATE = 'ACTIVE' AND t.PROCESSLIST_ID IS NOT NULL
"""
_INNODB = """
    SELECT trx_mysql_thread_id, trx_started, trx_is_read_only, trx_state
    FROM information_schema.INNODB_TRX
"""
_PROCESSES = """
    SELECT UTC_TIMESTAMP(6), ID, USER, COMMAND, TIME FROM information_schema.PROCESSLIST
"""
_IDLE = ("Sleep", "Daemon", "Binlog Dump", "Binlog Dump GTID")


def open_work(connect: Callable[[], Any], contract: SourceContract) -> OpenWork:
    """Reads the server's clock, and then what is open on it.

    Args:
        connect: Opens a DB-API connection of the account that extracts.
        contract: The source; where only InnoDB can tell, its `overlap` covers waits for metadata locks.
    """
    with closing(connect()) as connection, closing(connect()) as canary:
        ask = _Session(connection)
        at = _utc(ask.one("SELECT UTC_TIMESTAMP(6)"))
        try:
            processes = ask.rows(_PROCESSES)
            ask.rows(_INNODB)
        except Exception as error:  # the driver's own class: the account may not see others' transactions
            return OpenWork(
                at,
                unseen=f"the account may not see open transactions ({first_line(error)}); grant it PROCESS, "
                "and SELECT on performance_schema",
                replica=ask.read_only(),
            )
        replica = ask.read_only() or any(
            user == "system user" and command != "Daemon" for _, _, user, command, _ in processes
        )
        mine = {ask.id, _Session(canary).id}
        listed = _fresh(ask, canary)
        if listed is None:
            return OpenWork(
                at,
                unseen=f"information_schema.INNODB_TRX was not refreshed in {_LOOKS * _LEFT_ALONE:.0f} s, "
                "since somebody reads it all the time; let monitoring ask less often",
                replica=replica,
            )
        known = _by_performance_schema(ask, mine)
        work = known or _Seen()
        seen_by = "performance_schema" if known else "InnoDB's list of transactions"
        if known is None:
            _running(work, processes, mine, listed)
        for one in listed:
            if one.thread == 0:
                if one.state != "ROLLING BACK" and not one.read_only:
                    work.held = "a prepared (XA) transaction has no session to ask; commit it or roll it back"
            elif one.thread not in mine and one.thread not in work.threads and not one.read_only:
                # A whole second, since InnoDB keeps no fractions; the overlap for a wait before it began.
                work.note(at + one.after_canary - timedelta(seconds=1 + contract.overlap))
        return OpenWork(at, work.oldest, seen_by, held=work.held, replica=replica)


class _Session:
    """Questions to the server, each in no transaction of its own."""

    def __init__(self, connection: Any) -> None:
        self.cursor = connection.cursor()
        self.id = int(self.one("SELECT CONNECTION_ID()"))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        self.cursor.execute(query)
        return list(self.cursor.fetchall())

    def one(self, query: str) -> Any:
        return self.rows(query)[0][0]

    def read_only(self) -> bool:
        return bool(int(self.one("SELECT @@GLOBAL.read_only")))


class _Seen:
    """The oldest time that was seen, and whose work has been looked at."""

    def __init__(self) -> None:
        self.oldest: datetime | None = None
        self.threads: set[int] = set()
        self.held: str | None = None

    def note(self, began: datetime) -> None:
        self.oldest = min(began, self.oldest or began)


@dataclass(frozen=True)
class _Listed:
    """A transaction of InnoDB's list; its start is told from the canary's, whatever zone the server is in."""

    thread: int
    after_canary: timedelta
    read_only: bool
    state: str


def _fresh(ask: _Session, canary: Any) -> list[_Listed] | None:
    """InnoDB's list once it shows our canary; None where it never does."""
    own = _Session(canary)
    own.cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    try:
        for _ in range(_LOOKS):
            time.sleep(_LEFT_ALONE)
            rows = ask.rows(_INNODB)
            begun = [started for thread, started, _, _ in rows if thread == own.id]
            if begun:
                return [
                    _Listed(
                        int(thread), started - begun[0] if started else _ZERO, bool(read_only), str(state)
                    )
                    for thread, started, read_only, state in rows
                ]
        return None
    finally:
        own.cursor.execute("ROLLBACK")


def _by_performance_schema(ask: _Session, mine: set[int]) -> _Seen | None:
    """What performance_schema knows; None where it does not know all, or may not be asked."""
    try:
        if not int(ask.one(_CAN_TELL) or 0) or any(int(row[1]) for row in ask.rows(_LOST)):
            return None
        # Statements first: one that ends meanwhile is either committed or an open transaction below.
        statements, transactions = ask.rows(_STATEMENTS), ask.rows(_TRANSACTIONS)
    except Exception:  # the driver's own class: switched off, or no right to read it
        return None
    seen = _Seen()
    harmless = {int(thread) for _, thread, mode, *_ in transactions if mode == "READ ONLY"}
    for now, thread, age in statements:
        if int(thread) not in mine | harmless:
            seen.note(_began(now, int(age)))
    for now, thread, mode, age, began, running, ended in transactions:
        seen.threads.add(int(thread))
        if int(thread) in mine or mode == "READ ONLY":
            continue
        openers = [int(opened) for opened in (running, ended) if opened is not None]
        if not openers:
            seen.held = (
                f"connection {thread} has a transaction whose first statement is no longer known; a longer "
                "performance_schema_events_statements_history_size keeps it"
            )
            continue
        seen.note(_began(now, int(age) + int(began) - min(openers)))
    return seen


def _running(seen: _Seen, processes: list[tuple[Any, ...]], mine: set[int], listed: list[_Listed]) -> None:
    """Statements that run, by the list of processes: whole seconds, so one more."""
    harmless = {one.thread for one in listed if one.read_only}
    for now, thread, user, command, seconds in processes:
        if int(thread) not in mine | harmless and command not in _IDLE and user != "system user":
            seen.note(_utc(now) - timedelta(seconds=int(seconds or 0) + 1))


def _began(now: datetime, picoseconds: int) -> datetime:
    age = timedelta(microseconds=picoseconds / 1_000_000)
    return _utc(now) - age - age * _DRIFT


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC)
