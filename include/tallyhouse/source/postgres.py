"""The catalogue of a PostgreSQL database."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from tallyhouse.contracts import ColumnType
from tallyhouse.source.catalogue import Catalogue, CatalogueColumn, CatalogueTable, UniqueIndex

_UNKNOWN = "text"
"""A type that is not known travels as the text that PostgreSQL prints."""
_TABLES = """
SELECT c.oid, n.nspname, c.relname,
    CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'table' END,
    coalesce(obj_description(c.oid, 'pg_class'), '')
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND NOT c.relispartition
    AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND n.nspname NOT LIKE 'pg\\_%'
    AND has_schema_privilege(n.oid, 'USAGE')
    AND has_any_column_privilege(c.oid, 'SELECT')
    AND NOT EXISTS (SELECT 1 FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
"""
_COLUMNS = """
SELECT a.attrelid, a.attnum, a.attname,
    CASE t.typtype
        WHEN 'e' THEN 'enum'
        WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod)
        ELSE format_type(a.atttypid, a.atttypmod)
    END,
    NOT (a.attnotnull OR t.typnotnull),
    a.attidentity <> '',
    a.attgenerated <> '',
    coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
    t.typname = 'citext',
    ARRAY(SELECT e.enumlabel::text FROM pg_enum AS e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
    coalesce(col_description(a.attrelid, a.attnum), '')
FROM pg_attribute AS a
JOIN pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped
    AND has_column_privilege(a.attrelid, a.attnum, 'SELECT')
ORDER BY a.attrelid, a.attnum
"""
_INDEXES = """
SELECT i.indrelid, c.relname, i.indisprimary,
    i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL,
    i.indpred IS NULL,
    (i.indkey::smallint[])[0:i.indnkeyatts - 1]
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = ANY($1) AND i.indisvalid
ORDER BY c.relname
"""
_REFERENCES = """
SELECT r.conrelid, c.relname FROM pg_constraint AS r JOIN pg_class AS c ON c.oid = r.confrelid
WHERE r.contype = 'f' AND r.conrelid = ANY($1)
"""
# Row by row, before an UPDATE, and not switched off; whether before an INSERT as well.
_TRIGGERS = """
SELECT t.tgrelid, p.prosrc, (t.tgtype & 4) = 4 FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND (t.tgtype & 19) = 19 AND t.tgrelid = ANY($1)
"""
_NOW = r"(?:now\s*\(|current_timestamp|(?:clock|transaction|statement)_timestamp\s*\()"
_STAMP = re.compile(rf'\bnew\s*\.\s*"?(?P<column>[^\s":=]+)"?\s*:?=\s*{_NOW}', re.IGNORECASE)
_DEFAULT_NOW = re.compile(_NOW, re.IGNORECASE)


def read(connection: psycopg.Connection[Any]) -> Catalogue:
    """Reads the catalogue of the connection's database."""
    asked = connection.execute(
        "SELECT version(), current_database(), pg_is_in_recovery(), "
        "extract(epoch FROM now()::timestamp - (now() AT TIME ZONE 'UTC'))::integer"
    ).fetchone()
    version, database, replica, off = asked or ("", "", False, 0)
    found = connection.execute(_TABLES).fetchall()
    oids = [row[0] for row in found]

    def ask(query: str) -> list[tuple[Any, ...]]:
        with psycopg.RawCursor(connection) as cursor:
            return cursor.execute(query, (oids,)).fetchall()

    stamps: dict[int, set[str]] = {}
    from_the_start: set[tuple[int, str]] = set()
    for oid, text, inserts in ask(_TRIGGERS):
        named = {match["column"] for match in _STAMP.finditer(text)}
        stamps.setdefault(oid, set()).update(named)
        from_the_start |= {(oid, name) for name in named if inserts}
    columns: dict[int, list[CatalogueColumn]] = {}
    numbered: dict[tuple[int, int], str] = {}
    for oid, number, name, declared, nullable, identity, computed, default, *rest in ask(_COLUMNS):
        counts_up = identity or default.startswith("nextval(")
        stamped = name in stamps.get(oid, ()) and (
            (oid, name) in from_the_start or _DEFAULT_NOW.match(default) is not None
        )
        column = _column(name, declared, nullable, counts_up, computed, *rest, stamped=stamped)
        columns.setdefault(oid, []).append(column)
        numbered[oid, number] = name
    unique: dict[int, list[UniqueIndex]] = {}
    indexed: dict[int, set[str]] = {}
    for oid, name, primary, is_unique, whole, numbers in ask(_INDEXES):
        names = tuple(numbered[oid, number] for number in numbers if (oid, number) in numbered)
        if whole and names and len(names) == len(numbers):
            indexed.setdefault(oid, set()).add(names[0])
        if is_unique and len(names) == len(numbers):
            unique.setdefault(oid, []).append(UniqueIndex(name, names, primary))
    refers: dict[int, set[str]] = {}
    for oid, other in ask(_REFERENCES):
        refers.setdefault(oid, set()).add(other)
    tables = tuple(
        CatalogueTable(
            schema=schema,
            name=name,
            kind=kind,
            columns=tuple(columns[oid]),
            unique=tuple(unique.get(oid, ())),
            indexed=frozenset(indexed.get(oid, ())),
            refers_to=frozenset(refers.get(oid, ())),
            comment=comment,
        )
        for oid, schema, name, kind, comment in found
        if oid in columns
    )
    return Catalogue("postgres", str(version), str(database), tables, bool(replica), int(off))


def _column(
    name: str,
    declared: str,
    nullable: bool,
    counts_up: bool,
    computed: bool,
    folds: bool,
    values: list[str],
    comment: str,
    *,
    stamped: bool,
) -> CatalogueColumn:
    try:
        found = ColumnType.parse(declared, "postgres")
        if (found.scale or 0) < 0 or (found.scale or 0) > (found.precision or found.scale or 0):
            raise ValueError(
                declared
            )  # rounded to tens, or all zeros after the point: no other engine has it
    except ValueError:
        declared = _UNKNOWN
        found = ColumnType.parse(declared, "postgres")
    return CatalogueColumn(
        name, declared, found, nullable, counts_up, stamped, tuple(values), folds, computed, comment
    )
