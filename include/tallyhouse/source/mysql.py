"""The catalogue of a MySQL or MariaDB database."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any

from tallyhouse.contracts import ColumnType
from tallyhouse.source.catalogue import Catalogue, CatalogueColumn, CatalogueTable, UniqueIndex

_VALUE = re.compile(r"'((?:[^']|'')*)'")
_UNKNOWN = "longtext"
"""A type that is not known travels as the text that the server makes of it."""


def read(connection: Any) -> Catalogue:
    """Reads the catalogue of the connection's database.

    Args:
        connection: Of MySQL's own driver.
    """
    ((version, database, off),) = _ask(
        connection,
        "SELECT VERSION(), DATABASE(), TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), CURRENT_TIMESTAMP())",
    )
    columns: dict[str, list[CatalogueColumn]] = {}
    for table, *rest in _ask(
        connection,
        "SELECT table_name, column_name, column_type, data_type, is_nullable, extra, collation_name, "
        "column_comment FROM information_schema.columns WHERE table_schema = DATABASE() "
        "ORDER BY table_name, ordinal_position",
    ):
        columns.setdefault(table, []).append(_column(*rest))
    unique, indexed = _indexes(connection)
    refers: dict[str, set[str]] = {}
    for table, other in _ask(
        connection,
        "SELECT table_name, referenced_table_name FROM information_schema.key_column_usage "
        "WHERE table_schema = DATABASE() AND referenced_table_schema = DATABASE()",
    ):
        refers.setdefault(table, set()).add(other)
    kinds = {"BASE TABLE": "table", "SYSTEM VERSIONED": "table", "VIEW": "view"}
    tables = [
        CatalogueTable(
            schema="",
            name=name,
            kind=kinds[kind],
            columns=tuple(columns[name]),
            unique=tuple(unique.get(name, ())),
            indexed=frozenset(indexed.get(name, ())),
            refers_to=frozenset(refers.get(name, ())),
            comment="" if kind == "VIEW" else comment or "",
        )
        for name, kind, comment in _ask(
            connection,
            "SELECT table_name, table_type, table_comment FROM information_schema.tables "
            "WHERE table_schema = DATABASE()",
        )
        if kind in kinds and name in columns
    ]
    ((read_only,),) = _ask(connection, "SELECT @@read_only")
    return Catalogue("mysql", str(version), str(database), tuple(tables), bool(read_only), int(off))


def _column(
    name: str, type_: str, base: str, nullable: str, extra: str, collation: str | None, comment: str
) -> CatalogueColumn:
    extra = extra.lower()
    declared = base if base in ("enum", "set") else type_
    try:
        found = ColumnType.parse(declared)
    except ValueError:
        declared = _UNKNOWN
        found = ColumnType.parse(declared)
    return CatalogueColumn(
        name=name,
        declared=declared,
        type=found,
        nullable=nullable == "YES",
        counts_up="auto_increment" in extra,
        stamped="on update current_timestamp" in extra,
        values=tuple(v.replace("''", "'") for v in _VALUE.findall(type_)) if base == "enum" else (),
        folds=found.kind.is_text and collation is not None and not collation.endswith("_bin"),
        computed="generated" in extra.replace("default_generated", "") or "persistent" in extra,
        comment=comment,
    )


def _indexes(connection: Any) -> tuple[dict[str, list[UniqueIndex]], dict[str, set[str]]]:
    """By table, its unique indexes, and the columns with which an index begins."""
    unique: dict[str, list[UniqueIndex]] = {}
    indexed: dict[str, set[str]] = {}
    gathered: dict[tuple[str, str, bool], list[str | None]] = {}
    for table, index, not_unique, column in _ask(
        connection,
        "SELECT table_name, index_name, non_unique, column_name FROM information_schema.statistics "
        "WHERE table_schema = DATABASE() ORDER BY table_name, index_name, seq_in_index",
    ):
        gathered.setdefault((table, index, not int(not_unique)), []).append(column)
    for (table, index, is_unique), names in gathered.items():
        if names[0] is not None:
            indexed.setdefault(table, set()).add(names[0])
        plain = tuple(name for name in names if name is not None)
        # Unique by the first characters of a text is unique by the whole text, too.
        if is_unique and len(plain) == len(names):
            unique.setdefault(table, []).append(UniqueIndex(index, plain, index == "PRIMARY"))
    return unique, indexed


def _ask(connection: Any, query: str) -> list[tuple[Any, ...]]:
    with closing(connection.cursor()) as cursor:
        cursor.execute(query)
        # MySQL hands out some of its catalogue's texts as bytes.
        return [
            tuple(one.decode() if isinstance(one, bytes | bytearray) else one for one in row)
            for row in cursor.fetchall()
        ]
