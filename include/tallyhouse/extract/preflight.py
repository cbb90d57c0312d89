"""What is asked of a source before a snapshot is opened: is the table what its contract says?"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from tallyhouse.contracts import TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.extract.statement import build, pin

log = logging.getLogger(__name__)

_COLUMNS = {
    "mysql": "SELECT column_name, is_nullable FROM information_schema.columns "
    "WHERE table_schema = DATABASE() AND table_name = %s",
    # PostgreSQL's information_schema leaves materialized views out.
    "postgres": "SELECT a.attname, CASE WHEN a.attnotnull THEN 'NO' ELSE 'YES' END FROM pg_class AS c "
    "JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid "
    "WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped "
    "AND has_any_column_privilege(c.oid, 'SELECT')",
}


def check_columns(connection: Any, dialect: str, contract: TableContract) -> None:
    """Compares a table's columns with its contract.

    Columns that the contract does not know are reported in the log and left where they are.

    Args:
        connection: An open DB-API connection with `%s` parameters.
        dialect: `mysql` or `postgres`.
        contract: The table.

    Raises:
        TallyhouseError: The table, or a column of its contract, is not there, or its cursor may be NULL.
    """
    cursor = connection.cursor()
    place = (contract.in_source,) if dialect == "mysql" else (contract.schema, contract.in_source)
    cursor.execute(_COLUMNS[dialect], place)
    # MySQL takes columns' names in any case.
    spelled = str.casefold if dialect == "mysql" else str
    present = {spelled(name): nullable for name, nullable in cursor.fetchall()}
    promised = {spelled(column.in_source): column.in_source for column in contract.source_columns}
    cursor.close()
    if not present:
        raise TallyhouseError(
            "the source has no such table, or the account may not read it",
            remedy="Create it, grant SELECT on it, or take it out of the contract",
            table=contract.qualified_name,
        )
    if missing := [name for spelling, name in promised.items() if spelling not in present]:
        raise TallyhouseError(
            f"the source lacks {', '.join(missing)}",
            remedy="Add what is missing to the source, or take it out of the DBML and the contract",
            table=contract.qualified_name,
        )
    if contract.cursor and present[spelled(contract.column(contract.cursor).in_source)] == "YES":
        raise TallyhouseError(
            f"its cursor {contract.cursor} may be NULL, and no window would find such a row",
            remedy="Make the column NOT NULL, or set `cursor: null` in the contract to take the table whole",
            table=contract.qualified_name,
        )
    if unknown := sorted(present.keys() - promised.keys()):
        log.warning(
            "%s: columns %s are not in the contract and are not taken",
            *(contract.qualified_name, ", ".join(unknown)),
        )


_FIRST_INDEXED = {
    "mysql": "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() "
    "AND table_name = %s AND column_name = %s AND seq_in_index = 1",
    "postgres": "SELECT 1 FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid "
    "AND a.attnum = i.indkey[0] WHERE i.indrelid = to_regclass(%s) AND a.attname = %s "
    "AND i.indpred IS NULL",
}


def warn_of_slow_cursor(connection: Any, dialect: str, contract: TableContract) -> None:
    """Warns where no index serves a table's window, with the source's plan: each run reads the whole table.

    Args:
        connection: An open DB-API connection with `%s` parameters.
        dialect: `mysql` or `postgres`.
        contract: The table; its columns are there.
    """
    if contract.cursor is None:
        return
    cursor = connection.cursor()
    pin(cursor, dialect)
    table = build(dialect, contract, None).table
    cursor.execute(
        _FIRST_INDEXED[dialect],
        (
            contract.in_source if dialect == "mysql" else table,
            contract.column(contract.cursor).in_source,
        ),
    )
    if not cursor.fetchall():
        window = build(dialect, contract, datetime(2999, 1, 1, tzinfo=UTC)).condition
        cursor.execute(f"EXPLAIN SELECT 1 FROM {table} AS w WHERE {window}")
        plan = "; ".join(
            " ".join(str(value) for value in row if value is not None) for row in cursor.fetchall()
        )
        log.warning(
            "%s: no index begins with its cursor %s, so every run reads the whole table (plan: %s); add "
            "one to the source",
            *(contract.qualified_name, contract.cursor, plan),
        )
    cursor.close()


def check_clock(connection: Any) -> None:
    """Makes sure that a MySQL server stamps `updated_at` in UTC.

    DATETIME keeps the session's wall clock, so a server in another zone shifts every cursor.

    Raises:
        TallyhouseError: The server's default time zone is not UTC.
    """
    cursor = connection.cursor()
    cursor.execute("SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), CURRENT_TIMESTAMP())")
    (seconds,) = cursor.fetchone()
    cursor.close()
    if abs(int(seconds)) > 1:
        raise TallyhouseError(
            f"the server's clock is {seconds} s away from UTC, so every updated_at would be shifted",
            remedy="Set default_time_zone = '+00:00' on the server",
        )
