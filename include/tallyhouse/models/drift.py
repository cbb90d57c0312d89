"""What the warehouse has against what definitions and contracts ask for, and the statements in between."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tallyhouse.models import postgres
from tallyhouse.models.definition import Definition, ModelKind
from tallyhouse.models.load import all_definitions

SCHEMAS = ("dwh", "ods")


@dataclass(frozen=True)
class Change:
    """A difference, and what ends it.

    Attributes:
        what: In words.
        statements: What brings the database to the definition; to be read before they are run.
        loses: Whether they throw data away.
    """

    what: str
    statements: tuple[str, ...]
    loses: bool = False


def postgres_changes(connection: psycopg.Connection[Any]) -> list[Change]:
    """How PostgreSQL's `dwh` and `ods` differ from definitions and contracts."""
    wanted = {table.qualified_name: table for table in postgres.tables()}
    found = {table.qualified_name: table for table in _postgres_tables(connection)}
    models = {f"dwh.{model.name}": model for model in all_definitions()}
    changes: list[Change] = []
    for name, table in wanted.items():
        if name not in found:
            seed = _postgres_seed(connection, models[name]) if name in models else ()
            changes.append(Change(f"{name} is missing", (*_create(table), *seed)))
        else:
            changes += _alter(table, found[name])
    for name in sorted(found.keys() - wanted.keys()):
        changes.append(
            Change(f"{name} is in no definition", (f"DROP TABLE {_name(found[name])}",), loses=True)
        )
    return changes


def _create(table: postgres.Table) -> tuple[str, ...]:
    columns = [f"    {_declared(column)}" for column in table.columns]
    body = ",\n".join([*columns, f"    PRIMARY KEY ({_names(table.key)})"])
    return (
        f"CREATE TABLE {_name(table)} (\n{body}\n)",
        *(_index(table, name) for name in table.indexes),
        _comment(table),
        *(_column_comment(table, column) for column in table.columns if column.comment),
    )


def quoted(name: str) -> str:
    """A name as PostgreSQL's SQL has it: a source's columns may be called `order` or `user`."""
    return sql.Identifier(name).as_string()


def _names(columns: Iterable[str]) -> str:
    return ", ".join(map(quoted, columns))


def _name(table: postgres.Table) -> str:
    return f"{table.schema}.{quoted(table.name)}"


def _declared(column: postgres.Column) -> str:
    return f"{quoted(column.name)} {column.type.upper()}{'' if column.nullable else ' NOT NULL'}"


def _index(table: postgres.Table, name: str) -> str:
    index = table.indexes[name]
    unique = "UNIQUE " if index.unique else ""
    return f"CREATE {unique}INDEX {name} ON {_name(table)} ({_names(index.columns)})"


def _comment(table: postgres.Table) -> str:
    return f"COMMENT ON TABLE {_name(table)} IS {_text(table.comment)}"


def _column_comment(table: postgres.Table, column: postgres.Column) -> str:
    return f"COMMENT ON COLUMN {_name(table)}.{quoted(column.name)} IS {_text(column.comment)}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'" if value else "NULL"


def _alter(wanted: postgres.Table, found: postgres.Table) -> Iterator[Change]:
    name = wanted.qualified_name
    mine, theirs = ({c.name: c for c in table.columns} for table in (wanted, found))
    for column in wanted.columns:
        where = f"{name}.{column.name}"
        if column.name not in theirs:
            yield Change(f"{where} is missing", _add(wanted, column))
            continue
        other = theirs[column.name]
        change = f"ALTER TABLE {_name(wanted)} ALTER COLUMN {quoted(column.name)}"
        if _spelled(column.type) != other.type:
            yield Change(
                f"{where} is {other.type}, not {column.type}", (f"{change} TYPE {column.type.upper()}",)
            )
        if column.nullable != other.nullable:
            yield Change(
                f"{where} {'must not' if other.nullable else 'may'} be NULL",
                (f"{change} {'DROP' if column.nullable else 'SET'} NOT NULL",),
            )
        if wanted.schema == "dwh" and column.comment != other.comment:
            yield Change(f"{where} has another comment", (_column_comment(wanted, column),))
    for extra in sorted(theirs.keys() - mine.keys()):
        statement = f"ALTER TABLE {_name(wanted)} DROP COLUMN {quoted(extra)}"
        yield Change(f"{name}.{extra} is in no definition", (statement,), loses=True)
    if wanted.key != found.key:
        yield Change(
            f"{name} has the key {', '.join(found.key)}, not {', '.join(wanted.key)}",
            (
                f"ALTER TABLE {_name(wanted)} DROP CONSTRAINT {wanted.name}_pkey",
                f"ALTER TABLE {_name(wanted)} ADD PRIMARY KEY ({_names(wanted.key)})",
            ),
        )
    for index in sorted(wanted.indexes.keys() - found.indexes.keys()):
        yield Change(f"index {index} is missing", (_index(wanted, index),))
    for index in sorted(found.indexes.keys() - wanted.indexes.keys()):
        yield Change(f"index {index} serves no join", (f"DROP INDEX {wanted.schema}.{index}",))
    if wanted.comment != found.comment:
        yield Change(f"{name} has another comment", (_comment(wanted),))


def _add(table: postgres.Table, column: postgres.Column) -> tuple[str, ...]:
    """A new column; rows that are there get a filler where NULL is not allowed, until a full refresh."""
    change = f"ALTER TABLE {_name(table)}"
    if column.nullable:
        added: tuple[str, ...] = (f"{change} ADD COLUMN {_declared(column)}",)
    else:
        added = (
            f"{change} ADD COLUMN {_declared(column)} DEFAULT {_filler(column.type)}",
            f"{change} ALTER COLUMN {quoted(column.name)} DROP DEFAULT",
        )
    return (*added, _column_comment(table, column)) if column.comment else added


def _filler(type_: str) -> str:
    if type_ == "boolean":
        return "FALSE"
    if type_.startswith(("timestamp", "date")):
        return "'1900-01-01'"
    return "''" if type_.startswith(("text", "char", "varchar")) else "0"


def _spelled(type_: str) -> str:
    """A type as PostgreSQL's format_type() writes it."""
    return re.sub(r"^char\(", "character(", type_).replace("varchar", "character varying")


def _postgres_seed(connection: psycopg.Connection[Any], model: Definition) -> tuple[str, ...]:
    """The unknown member of a new dimension."""
    if model.kind is not ModelKind.DIMENSION:
        return ()
    values = [sql.Literal(value).as_string(connection) for value in model.unknown_member.values()]
    columns = ", ".join(model.unknown_member)
    return (f"INSERT INTO dwh.{model.name} ({columns})\nVALUES ({', '.join(values)})",)


def _postgres_tables(connection: psycopg.Connection[Any]) -> Iterator[postgres.Table]:
    """The tables of the catalog."""
    columns: dict[tuple[str, str], list[postgres.Column]] = {}
    comments: dict[tuple[str, str], str] = {}
    for schema, table, comment, name, type_, nullable, said in connection.execute(
        "SELECT n.nspname, c.relname, coalesce(obj_description(c.oid, 'pg_class'), ''), a.attname, "
        "format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, "
        "coalesce(col_description(c.oid, a.attnum), '') "
        "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "WHERE n.nspname = ANY(%s) AND c.relkind = 'r' ORDER BY n.nspname, c.relname, a.attnum",
        (list(SCHEMAS),),
    ):
        columns.setdefault((schema, table), []).append(postgres.Column(name, type_, nullable, said))
        comments[schema, table] = comment
    keys: dict[tuple[str, str], tuple[str, ...]] = {}
    indexes: dict[tuple[str, str], dict[str, postgres.Index]] = {}
    for schema, table, name, primary, unique, names in connection.execute(
        "SELECT n.nspname, c.relname, i.relname, x.indisprimary, x.indisunique, "
        "(SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(x.indkey) WITH ORDINALITY "
        "AS k (attnum, place) JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum) "
        "FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indrelid "
        "JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname = ANY(%s)",
        (list(SCHEMAS),),
    ):
        if primary:
            keys[schema, table] = tuple(names)
        else:
            indexes.setdefault((schema, table), {})[name] = postgres.Index(tuple(names or ()), unique)
    for (schema, table), found in columns.items():
        yield postgres.Table(
            schema,
            table,
            tuple(found),
            keys.get((schema, table), ()),
            indexes.get((schema, table), {}),
            comments[schema, table],
        )
