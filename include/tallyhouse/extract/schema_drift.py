"""Whether a table of the source is still what its contract and the last published batch say.

Asked before a byte moves, and again when a batch is complete: a definition that changed in between makes the
batch void.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from tallyhouse.contracts import Column, ColumnType, SourceContract, TableContract
from tallyhouse.contracts.evolve import evolved_table, holds
from tallyhouse.contracts.model import IDENTIFIER
from tallyhouse.errors import TallyhouseError
from tallyhouse.extract.statement import build
from tallyhouse.lake import Manifest

_COLUMNS = {
    "mysql": (
        # MariaDB spells the default of a column that has none.
        "SELECT column_name, column_type, is_nullable = 'YES', NULLIF(column_default, 'NULL') "
        "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s "
        "ORDER BY ordinal_position"
    ),
    "postgres": (
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, "
        "pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d "
        "ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE a.attrelid = to_regclass(%s) "
        "AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    ),
}


@dataclass(frozen=True)
class Declared:
    """A column as the source declares it.

    Attributes:
        name: Its name.
        type: Its type, in the source's words.
        nullable: Whether it may be NULL.
        default: Its default, in the source's words; None where it has none.
    """

    name: str
    type: str
    nullable: bool
    default: str | None


@dataclass(frozen=True)
class Change:
    """One difference between what was taken last and what the source has now.

    Attributes:
        column: Which column.
        what: In words, such as `is new: int(11), default 10`.
        follow: The column's type in the source's words, where `evolve` can follow it; None where it cannot.
    """

    column: str
    what: str
    follow: str | None = None


@dataclass(frozen=True)
class Checked:
    """A table that may be read.

    Attributes:
        contract: What is taken of it; more than is written down where its contract evolves.
        declared: Its columns in the source.
        evolved: What is taken beyond what is written down, for the manifest.
        whole: Whether rows differ now that no cursor shows, so that the whole table is to be taken.
    """

    contract: TableContract
    declared: tuple[Declared, ...] = ()
    evolved: tuple[dict[str, Any], ...] = ()
    whole: bool = False

    @property
    def declared_json(self) -> tuple[dict[str, Any], ...]:
        """What the manifest keeps of its columns."""
        return tuple(map(asdict, self.declared))


def declared_columns(connection: Any, dialect: str, contract: TableContract) -> tuple[Declared, ...]:
    """The columns of a table as the source declares them; none where there is no such table.

    Args:
        connection: An open DB-API connection with `%s` parameters.
        dialect: `mysql` or `postgres`.
        contract: The table.
    """
    table = build(dialect, contract, None).table if dialect == "postgres" else contract.in_source
    cursor = connection.cursor()
    cursor.execute(_COLUMNS[dialect], (table,))
    rows = cursor.fetchall()
    cursor.close()
    return tuple(
        Declared(_text(name), _text(type_), bool(nullable), _text(default))
        for name, type_, nullable, default in rows
    )


def check_definition(
    connection: Any, source: SourceContract, contract: TableContract, last: Manifest | None
) -> Checked:
    """Compares a table's definition with its contract and with what was taken last.

    Args:
        connection: An open DB-API connection to the source.
        source: The source's contract.
        contract: The table's, as it is written.
        last: The last published batch; None where there is none, or it is no longer in the lake.

    Raises:
        TallyhouseError: It changed, and the contract says `freeze`, or the change is none that can be
            followed.
    """
    engine = source.engine
    carried = tuple(one for one in (last.evolved if last else ()) if _is_beyond(contract, engine, one))
    known = evolved_table(contract, engine, carried)
    now = declared_columns(connection, engine, known)
    if not now:
        return Checked(known)  # of a table that is not there, somebody else speaks
    found = _changes(known, engine, now, last)
    stops = [one for one in found if contract.schema_changes == "freeze" or one.follow is None]
    if stops:
        raise _refusal(contract, stops, last)
    evolved = {one["name"]: dict(one) for one in carried}
    evolved |= {one.column: {"name": one.column, "type": one.follow} for one in found}
    taken = evolved_table(contract, engine, evolved.values())
    return Checked(taken, now, tuple(evolved.values()), _shows_no_cursor(taken, now, last))


def check_unchanged(connection: Any, dialect: str, checked: Checked) -> None:
    """Makes sure that nobody changed a table's definition while it was read.

    Raises:
        TallyhouseError: Somebody did; what was read is void.
    """
    if declared_columns(connection, dialect, checked.contract) != checked.declared:
        raise TallyhouseError(
            "its definition was changed while it was read",
            remedy="Nothing was committed; it is taken again by the next try",
            transient=True,
            table=checked.contract.qualified_name,
            rule="a table's definition does not change while it is read",
        )


def _is_beyond(contract: TableContract, engine: str, one: dict[str, Any]) -> bool:
    """Whether a column that was followed is still more than the contract has."""
    if one["name"] in contract.left_out:
        return False
    if one["name"] not in contract.column_names:
        return one["name"] not in {column.in_source for column in contract.source_columns}
    return not holds(contract.column(one["name"]).type, ColumnType.parse(one["type"], engine))


def _changes(
    contract: TableContract, engine: str, now: tuple[Declared, ...], last: Manifest | None
) -> list[Change]:
    # MySQL takes columns' names in any case.
    spelled = str.casefold if engine == "mysql" else str
    here = {spelled(column.name): column for column in now}
    before = {spelled(one["name"]): Declared(**one) for one in (last.declared if last else ())}
    names = {spelled(column.in_source) for column in contract.source_columns}
    left_out = {spelled(name) for name in contract.left_out}
    # What was there before the first batch, and was not written down, was left out by intention.
    added = [one for name, one in here.items() if before and name not in before and name not in names]
    found = []
    for column in contract.source_columns:
        was, is_ = (there.get(spelled(column.in_source)) for there in (before, here))
        if is_ is None:
            found.append(Change(column.in_source, _gone(was, added)))
        elif was and was.type != is_.type and (change := _retyped(column, engine, was, is_)):
            found.append(change)
    return found + [_added(one, engine) for one in added if spelled(one.name) not in left_out]


def _gone(before: Declared | None, added: Iterable[Declared]) -> str:
    twins = [one.name for one in added if before and one.type == before.type]
    return "is gone" + (f" (renamed to {twins[0]}?)" if len(twins) == 1 else "")


def _retyped(column: Column, engine: str, was: Declared, now: Declared) -> Change | None:
    """What became of a column's type; None where the contract holds it as it is now and says so."""
    try:
        parsed = ColumnType.parse(now.type, engine)
    except ValueError:
        if was.type.partition("(")[0] == now.type.partition("(")[0]:
            return None  # a SET or ENUM of other values is text all the same
        return Change(column.name, f"was {was.type} and is {now.type}, which is not supported")
    wider, narrower = holds(parsed, column.type), holds(column.type, parsed)
    if wider and narrower:
        return None
    if wider or narrower:
        how = "is wider" if wider else "is narrower"
        return Change(column.name, f"{how}: {was.type} before, {now.type} now", now.type)
    return Change(column.name, f"has another type: {was.type} before, {now.type} now")


def _added(one: Declared, engine: str) -> Change:
    what = f"is new: {one.type}" + ("" if one.nullable else " NOT NULL")
    what += f" default {one.default}" if one.default is not None else ""
    if not IDENTIFIER.fullmatch(one.name):
        return Change(one.name, f"{what}, a name that needs another one in the contract")
    try:
        ColumnType.parse(one.type, engine)
    except ValueError:
        return Change(one.name, f"{what}, a type that is not supported")
    return Change(one.name, what, one.type)


def _shows_no_cursor(contract: TableContract, now: tuple[Declared, ...], last: Manifest | None) -> bool:
    """Whether a change of the definition may have changed rows that no cursor shows."""
    if last is None or not last.declared:
        return False
    if {one["name"] for one in last.columns} != set(contract.column_names):
        return True
    types = {one["name"].casefold(): one["type"] for one in last.declared}
    names = {column.in_source.casefold() for column in contract.source_columns}
    taken = [one for one in now if one.name.casefold() in names]
    return any(types.get(one.name.casefold(), one.type) != one.type for one in taken)


def _refusal(contract: TableContract, changes: list[Change], last: Manifest | None) -> TallyhouseError:
    said = "; ".join(f"{one.column} {one.what}" for one in changes)
    since = f" since run {last.run_id}" if last and last.declared else ""
    remedy = (
        "Nothing was read. Correct its DBML and contract, by `make source "
        f"NAME={contract.source} WRITE=1` where that made them"
    )
    if all(one.follow for one in changes):
        remedy += (
            ", or leave a new column out (`left_out`), or set `schema_changes: evolve` to follow by itself"
        )
    return TallyhouseError(
        f"the table in the source is another one{since}: {said}",
        remedy=remedy,
        table=contract.qualified_name,
        rule="a table's definition is as it was",
        count=len(changes),
        sample=[f"{one.column} {one.what}" for one in changes],
    )


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes | bytearray) else value
