"""What the warehouse remembers of rows, so that a change can be found that no cursor shows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from tallyhouse.contracts import TableContract
from tallyhouse.extract.keys import ods_number
from tallyhouse.lake import Manifest
from tallyhouse.ledger import Hop, Line
from tallyhouse.publish.deletes import marked_keys


def remember(
    connection: psycopg.Connection[Any],
    contract: TableContract,
    manifest: Manifest,
    staged: str | None,
) -> list[Line]:
    """Remembers the digests of a batch, in the publishing transaction, after deleted rows were marked.

    Args:
        connection: To the warehouse.
        contract: The table.
        manifest: Its batch.
        staged: The staging table of its digests; None where it has none.

    Returns:
        The ledger's line of the rows that were compared; none where none were.
    """
    table = sql.Identifier("digest", contract.name)
    if contract.row_digests is None or (manifest.rows and staged is None):
        # Not to be compared with later: what was taken since would be missing there.
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
        return []
    if manifest.full:
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
    if staged is not None:
        _merge(connection, contract, table, sql.Identifier("staging", staged))
    if manifest.deleted and _exists(connection, contract):
        connection.execute(
            sql.SQL("DELETE FROM {} AS r USING {} AS d WHERE r.k = {}").format(
                table, marked_keys(contract), sql.SQL(ods_number(contract, "d"))
            )
        )
    return _note_compared(connection, contract, manifest)


def _merge(
    connection: psycopg.Connection[Any],
    contract: TableContract,
    table: sql.Identifier,
    staged: sql.Identifier,
) -> None:
    # A key that stands twice in a batch is taken again when its row is compared, unless by chance.
    rows = sql.SQL("SELECT k, min(d) AS d FROM {} GROUP BY k").format(staged)
    if _exists(connection, contract):
        connection.execute(
            sql.SQL(
                "INSERT INTO {} AS r (k, d) {} ON CONFLICT (k) "
                "DO UPDATE SET d = excluded.d WHERE r.d <> excluded.d"
            ).format(table, rows)
        )
        return
    # An index that is made afterwards takes half the time.
    connection.execute(sql.SQL("CREATE TABLE {} AS {}").format(table, rows))
    connection.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (k)").format(table))


def _note_compared(
    connection: psycopg.Connection[Any], contract: TableContract, manifest: Manifest
) -> list[Line]:
    """Says which slice was compared; a whole table has all of them."""
    slices = contract.row_digests
    said = manifest.compared
    slice_ = None if manifest.full else said and said["slice"]
    if not manifest.full and said is None:
        return []
    connection.execute(
        "DELETE FROM etl.compared WHERE source = %(source)s AND table_name = %(table)s "
        "AND slices <> %(slices)s",
        {"source": contract.source, "table": contract.name, "slices": slices},
    )
    connection.execute(
        "INSERT INTO etl.compared (source, table_name, slices, slice, run_id, compared_at) "
        "SELECT %(source)s, %(table)s, %(slices)s, s, %(run)s, %(at)s "
        "FROM generate_series(0, %(slices)s - 1) AS s WHERE s = coalesce(%(slice)s, s) "
        "ON CONFLICT (source, table_name, slice) DO UPDATE "
        "SET run_id = excluded.run_id, compared_at = excluded.compared_at",
        {
            "source": contract.source,
            "table": contract.name,
            "slices": slices,
            "slice": slice_,
            "run": manifest.run_id,
            "at": manifest.snapshot_at,
        },
    )
    if manifest.full or said is None:
        return []
    parts = {"as taken": Decimal(said["same"]), "taken again": Decimal(said["taken_again"])}
    compared = Line(
        contract.qualified_name,
        Hop.SOURCE_ODS,
        f"rows compared, slice {said['slice'] + 1} of {said['slices']}",
        Decimal(said["rows"]),
        sum(parts.values(), Decimal(0)),
        parts,
    )
    return [compared]


def _exists(connection: psycopg.Connection[Any], contract: TableContract) -> bool:
    row = connection.execute(
        sql.SQL("SELECT to_regclass({}) IS NOT NULL").format(sql.Literal(f"digest.{contract.name}"))
    ).fetchone()
    return bool(row and row[0])
