"""What becomes of rows that the source no longer has: marked in `ods`, and gone from the facts they were."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from tallyhouse.contracts import Kind, TableContract
from tallyhouse.extract.keys import ods_number
from tallyhouse.lake import Lake, Manifest
from tallyhouse.ledger import ROWS, Hop, Line
from tallyhouse.models import Definition
from tallyhouse.models.load import own_key


def evidence(lake: Lake, manifest: Manifest, contract: TableContract) -> list[tuple[Any, ...]]:
    """The deleted keys of a batch, each as its columns' values on the wire."""
    batches = lake.read_batches([part.key for part in manifest.deleted])
    return [tuple(row[name] for name in contract.key) for batch in batches for row in batch.to_pylist()]


def copy_keys(
    connection: psycopg.Connection[Any],
    table: sql.Identifier,
    contract: TableContract,
    keys: list[tuple[Any, ...]],
    *,
    temporary: bool,
) -> None:
    """Puts keys into a new table that has the key's columns of the contract's table.

    Args:
        connection: To the warehouse.
        table: The new table.
        contract: Whose keys.
        keys: Values as the wire carries them.
        temporary: Whether it goes with the transaction.
    """
    columns = sql.SQL(", ").join(map(sql.Identifier, contract.key))
    kind = sql.SQL("TEMP" if temporary else "UNLOGGED")
    end = sql.SQL("ON COMMIT DROP " if temporary else "")
    connection.execute(
        sql.SQL("CREATE {} TABLE {} {}AS SELECT {} FROM ods.{} WITH NO DATA").format(
            kind, table, end, columns, sql.Identifier(contract.name)
        )
    )
    times = [contract.column(name).type.kind is Kind.TIMESTAMP for name in contract.key]
    with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("COPY {} FROM STDIN").format(table)) as copy,
    ):
        for key in keys:
            copy.write_row([f"{v}+00" if is_time else v for v, is_time in zip(key, times, strict=True)])
    connection.execute(sql.SQL("ANALYZE {}").format(table))


def marked_keys(contract: TableContract) -> sql.Identifier:
    """The temporary table that `mark` leaves of the keys that it marked, where there are any."""
    return sql.Identifier(f"deleted_{contract.name}")


def mark(
    connection: psycopg.Connection[Any], lake: Lake, contract: TableContract, manifest: Manifest
) -> list[Line]:
    """Marks deleted rows in `ods`, in the publishing transaction, and proves that its keys are the source's.

    Returns:
        The ledger's lines from the source's whole to `ods`; none where nobody counted its keys.
    """
    if manifest.census is None:
        return []
    marked = 0
    if manifest.deleted:
        name = marked_keys(contract)
        copy_keys(connection, name, contract, evidence(lake, manifest, contract), temporary=True)
        marked = connection.execute(
            sql.SQL(
                "UPDATE ods.{} AS o SET _deleted_at = %s FROM {} AS d WHERE {} AND o._deleted_at IS NULL"
            ).format(sql.Identifier(contract.name), name, _same("o", "d", contract.key, contract.key)),
            (datetime.fromisoformat(manifest.census["at"]),),
        ).rowcount
    row = connection.execute(
        sql.SQL(
            "SELECT count(*), coalesce(sum(k), 0) FROM (SELECT {} AS k FROM ods.{} AS o "
            "WHERE o._deleted_at IS NULL) AS x"
        ).format(sql.SQL(ods_number(contract)), sql.Identifier(contract.name))
    ).fetchone()
    live, digest = row or (0, 0)
    _note_missing(connection, lake, contract, manifest)
    said = manifest.census
    table = contract.qualified_name
    lines = [
        _line(table, ROWS, said["rows"], live, said["left"], said["came"], said.get("missing", 0)),
        Line(table, Hop.SOURCE_ODS, "deleted", Decimal(said["deleted"]), Decimal(marked)),
    ]
    if contract.proof == "digest":
        lines.append(
            _line(
                *(table, "digest(keys)", said["digest"], digest, said["left_digest"], said["came_digest"]),
                said.get("missing_digest", 0),
            )
        )
    return lines


def remove(
    connection: psycopg.Connection[Any], model: Definition, contract: TableContract, manifest: Manifest
) -> None:
    """Takes a model's rows out whose source rows are deleted, after `mark`.

    Not those of a dimension with history: its versions end instead.
    """
    if not manifest.deleted:
        return
    connection.execute(
        sql.SQL("DELETE FROM dwh.{} AS m USING {} AS d WHERE {}").format(
            sql.Identifier(model.name),
            marked_keys(contract),
            _same("m", "d", own_key(model), contract.key),
        )
    )


def _note_missing(
    connection: psycopg.Connection[Any], lake: Lake, contract: TableContract, manifest: Manifest
) -> None:
    """Keeps what a replica lacked, for the next run to look for again."""
    of_table = (contract.source, contract.name)
    connection.execute("DELETE FROM etl.missing_key WHERE source = %s AND table_name = %s", of_table)
    if not manifest.missing:
        return
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY etl.missing_key (source, table_name, k, missed_at) FROM STDIN") as copy,
    ):
        for batch in lake.read_batches([part.key for part in manifest.missing]):
            for row in batch.to_pylist():
                copy.write_row((*of_table, row["k"], row["missed_at"]))


def _line(table: str, measure: str, source: Any, live: Any, left: Any, came: Any, missing: Any) -> Line:
    """The source's keys are those live in `ods`, but for what left and came since the batch was read.

    And for what a replica lacks and may still have.
    """
    parts = {"live": Decimal(live), "gone since": -Decimal(left), "come since": Decimal(came)}
    if missing:
        parts["missing once"] = -Decimal(missing)
    return Line(table, Hop.SOURCE_ODS, measure, Decimal(source), sum(parts.values(), Decimal(0)), parts)


def _same(left: str, right: str, its: tuple[str, ...], others: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, one), sql.Identifier(right, other))
        for one, other in zip(its, others, strict=True)
    )
