"""Open work on PostgreSQL: `now()` is the start of the transaction, and the server tells it of each one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC
from typing import Any

from tallyhouse.extract.open_work import OpenWork

_CLOCK = "SELECT clock_timestamp()"
_RIGHTS = """
    SELECT
        pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
        pg_is_in_recovery() OR EXISTS (
            SELECT 1 FROM pg_subscription AS s JOIN pg_database AS d ON d.oid = s.subdbid
            WHERE s.subenabled AND d.datname = current_database()
        )
"""
# Whatever is open in this database, a session that has only read included: what it writes later bears the
# same now(). Processes that write no rows of their own are left out.
_OPEN = """
    SELECT
        min(a.xact_start),
        (SELECT min(p.gid) FROM pg_prepared_xacts AS p WHERE p.database = current_database())
    FROM pg_stat_activity AS a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
    AND a.backend_type NOT IN ('autovacuum worker', 'walsender')
"""


def open_work(connect: Callable[[], Any]) -> OpenWork:
    """Reads the server's clock, and then what is open in the database.

    Args:
        connect: Opens a DB-API connection of the account that extracts.
    """
    with closing(connect()) as connection:
        cursor = connection.cursor()

        def row(query: str) -> tuple[Any, ...]:
            cursor.execute(query)
            return tuple(cursor.fetchone())

        (at,) = row(_CLOCK)
        may_see, replica = row(_RIGHTS)
        oldest, prepared = row(_OPEN)
        return OpenWork(
            at.astimezone(UTC),
            oldest and oldest.astimezone(UTC),
            seen_by="pg_stat_activity",
            unseen=None
            if may_see
            else "the account may not see when others' transactions began; grant it pg_read_all_stats",
            # When it was prepared is known, when it began is not.
            held=f"transaction {prepared!r} is prepared; commit it or roll it back" if prepared else None,
            replica=bool(replica),
        )
