"""Decides what a contract says of a table, and says why: key, cursor, personal data, totals, policies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tallyhouse.contracts import Kind
from tallyhouse.contracts.types import SPARK_DIGITS
from tallyhouse.source import personal
from tallyhouse.source.catalogue import Catalogue, CatalogueColumn, CatalogueTable, UniqueIndex
from tallyhouse.source.profile import ColumnProfile, TableProfile

_MOST_TOTALS = 4
_SUMMED_DIGITS = SPARK_DIGITS - 10
"""Digits of a decimal of which ten thousand million can be summed exactly."""
_UPDATE_NAMES = ("updat", "modif", "chang", "last_", "mtime", "touched")
_SOFT_DELETES = ("deleted_at", "deletedat", "deleted", "is_deleted", "isdeleted", "deleted_on", "removed_at")


@dataclass(frozen=True)
class Judgement:
    """What a contract will say of a table. Columns are named as the source names them.

    Attributes:
        key: Columns that tell its rows apart; none where nothing does.
        collated: Those of the key that are compared as their collation does.
        cursor: The column by which a window is taken, or None.
        pii: By column, why it is taken for personal data.
        totals: Columns that are summed.
        policies: By column, what becomes of values that cannot be held.
        reasons: What was decided and why, one line each, for people.
    """

    key: tuple[str, ...]
    collated: tuple[str, ...] = ()
    cursor: str | None = None
    pii: dict[str, str] = field(default_factory=dict)
    totals: tuple[str, ...] = ()
    policies: dict[str, str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


def judge(catalogue: Catalogue, table: CatalogueTable, profile: TableProfile) -> Judgement:
    """Judges a table by its catalogue and its profile."""
    key, why = _key(table)
    reasons = [why]
    collated = tuple(name for name in key if _varies(table.column(name), profile.columns[name]))
    reasons += [
        f"{name} of the key is compared as its collation does: `A` and `a` can be the same key"
        for name in collated
    ]
    cursor, said = _cursor(catalogue, table, has_key=bool(key))
    reasons += said
    pii = {
        column.name: found
        for column in table.columns
        if (found := personal.guess(column.name, _samples(column, profile.columns[column.name])))
    }
    reasons += [f"{name} is taken for personal data: {found}" for name, found in pii.items()]
    exact = {*key, cursor}
    policies = {
        column.name: "null"
        for column in table.columns
        if profile.columns[column.name].bad and column.name not in exact
    }
    reasons += [
        f"{name} has {profile.columns[name].bad} values that no store downstream holds: they become NULL, "
        "and the ledger counts them (`on_bad_value`)"
        for name in policies
    ]
    reasons += [
        f"{name} has {profile.columns[name].bad} values that cannot be held; a run will stop at them"
        for name in exact
        if name and profile.columns[name].bad
    ]
    reasons += _of_values(table, profile)
    totals = tuple(
        column.name
        for column in table.columns
        if column.type.kind is Kind.DECIMAL
        and (column.type.precision or 0) <= _SUMMED_DIGITS
        and column.name not in exact
        and column.name not in policies
        and not column.counts_up
    )[:_MOST_TOTALS]
    return Judgement(key, collated, cursor, pii, totals, policies, tuple(reasons))


def _key(table: CatalogueTable) -> tuple[tuple[str, ...], str]:
    """The columns that tell rows apart, and why these."""
    fitting = [
        index
        for index in table.unique
        if all(
            not table.column(name).nullable and table.column(name).type.kind not in (Kind.DOUBLE, Kind.JSON)
            for name in index.columns
        )
    ]
    refused = [index for index in table.unique if index not in fitting]
    if fitting:
        best = min(fitting, key=_rank)
        names = ", ".join(best.columns)
        what = "its primary key" if best.primary else f"the unique index {best.name}, all of it NOT NULL"
        return best.columns, f"key {names}: {what}"
    why = "it is a view" if "view" in table.kind and not table.unique else "it has no primary key"
    if refused:
        why += f", and {refused[0].name} can hold NULL or numbers that are not exact"
    elif "view" not in table.kind:
        why += " and no unique index"
    return (), (
        f"no key: {why}; its rows are told apart by their content, and a changed row is another row. "
        "Say `key: [...]` in the contract if you know one"
    )


def _rank(index: UniqueIndex) -> tuple[bool, int, str]:
    return not index.primary, len(index.columns), index.name


def _varies(column: CatalogueColumn, profile: ColumnProfile) -> bool:
    """Whether a key's collation may take values for equal that differ, by what the values are."""
    if not column.folds:
        return False
    letters = "".join(profile.sample)
    return not letters.isascii() or (letters != letters.lower() and letters != letters.upper())


def _cursor(catalogue: Catalogue, table: CatalogueTable, *, has_key: bool) -> tuple[str | None, list[str]]:
    """The column by which a window is taken, and what was thought of each one that could have been."""
    chosen: str | None = None
    said: list[str] = []
    for column in table.columns:
        verdict = _as_cursor(catalogue, table, column, has_key=has_key)
        if verdict is None:
            continue
        fits, why = verdict
        if fits and chosen is None:
            chosen = column.name
            said.append(f"cursor {column.name}: {why}")
        else:
            said.append(f"not the cursor: {column.name}, {'there is one already' if fits else why}")
    if chosen is None:
        said.append("no cursor: the whole table is taken every night, in batches of bounded size")
    return chosen, said


def _as_cursor(
    catalogue: Catalogue, table: CatalogueTable, column: CatalogueColumn, *, has_key: bool
) -> tuple[bool, str] | None:
    """Whether a column can be the cursor, and why; None of one that nobody would take for it."""
    if column.counts_up:
        return False, (
            "a number that counts up: it is given out before its row is committed, and tells nothing of "
            "updates"
        )
    named = any(part in column.name.lower() for part in _UPDATE_NAMES)
    if column.type.kind is not Kind.TIMESTAMP or not (column.stamped or named):
        return None
    if why := next(_against(catalogue, column, has_key=has_key), None):
        return False, why
    index = (
        "an index begins with it"
        if column.name in table.indexed
        else "but no index begins with it, so each run reads the whole table; add one to the source"
    )
    return True, f"NOT NULL, the server stamps it at each change, {index}"


def _against(catalogue: Catalogue, column: CatalogueColumn, *, has_key: bool) -> Iterator[str]:
    """What speaks against a time as the cursor."""
    if not column.stamped:
        yield (
            "the server does not stamp it when a row changes. If your applications do so each time, say "
            f"`cursor: {column.name}` and `clock: application` in the contract"
        )
    if column.nullable:
        yield "it may be NULL, and no window would find such a row"
    if not has_key:
        yield "without a key a changed row cannot be recognised"
    if catalogue.replica:
        yield "the server is a replica: say `replica_lag` and `cursor` in the contract"
    if catalogue.clock_off and not column.declared.endswith("with time zone"):
        yield f"the server's wall clock is {catalogue.clock_off} s away from UTC"


def _samples(column: CatalogueColumn, profile: ColumnProfile) -> tuple[str, ...]:
    return profile.sample if column.type.kind.is_text else ()


def _of_values(table: CatalogueTable, profile: TableProfile) -> Iterator[str]:
    """What is worth knowing of types and values before anything is moved."""
    if profile.rows == 0:
        yield "it has no rows yet: personal data and the suite's ranges could not be told from values"
    for column in table.columns:
        if column.type.is_wide:
            yield (
                f"{column.name} is {column.declared}: more than Spark's 38 digits, so it stays exact text on "
                "its way and a number in ods"
            )
        if column.type.kind is Kind.DOUBLE:
            yield f"{column.name} is floating point: it is carried, and left out of the digest"
        if column.name.lower() in _SOFT_DELETES:
            yield (
                f"{column.name} looks as if the source marked its deleted rows itself; rows that are gone "
                "are marked in ods all the same, unless the contract says `deletes: ignore`"
            )
