"""Which rows of a model differ: from the warehouse to a target, and from `ods` to the model.

Between two stores each side is counted and digested in buckets of keys, by its own engine. Only of buckets
that differ are rows' digests fetched, in the order of their keys, and met side by side, so that memory does
not grow with the table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from secrets import token_hex
from typing import Any

import psycopg
from psycopg import sql

from tallyhouse.errors import first_line
from tallyhouse.extract.deletes import BUCKET_ROWS, MOST_BUCKETS
from tallyhouse.extract.keys import FETCH, ods_number
from tallyhouse.ledger import Line
from tallyhouse.models import definition
from tallyhouse.models.digest import number
from tallyhouse.models.load import own_key, table_of
from tallyhouse.models.postgres import differing_rows
from tallyhouse.publish.target import Target

log = logging.getLogger(__name__)

SHOWN = 20
"""Keys of a table that are named."""


@dataclass(frozen=True)
class Difference:
    """A row that is not the same on both sides.

    Attributes:
        key: Its key, such as `order_line_key=42`.
        how: Such as `missing in ClickHouse`.
        rows: How many rows too many or too few.
        value: The key's own value, as text.
        own: That of the key of the source row, as text.
    """

    key: str
    how: str
    rows: int = 1
    value: str = ""
    own: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.how}"


@dataclass(frozen=True)
class Buckets:
    """A table in buckets of keys, on both sides.

    Attributes:
        count: Into so many the keys fall.
        left: Rows of the first side.
        right: Rows of the second one.
        differing: The buckets that are not the same.
    """

    count: int
    left: int
    right: int
    differing: tuple[int, ...]

    def those(self, key: str) -> str:
        """A condition of SQL: the number of a key falls into a bucket that differs."""
        return f"MOD({key}, {self.count}) IN ({', '.join(map(str, self.differing))})"


def bucket_count(rows: int) -> int:
    """Into how many buckets the keys of a table of so many rows are put."""
    return max(1, min(MOST_BUCKETS, rows // BUCKET_ROWS))


def bucketed(rows: str, buckets: int) -> str:
    """A query of each bucket's rows and sums, over one that answers `k` and `d` of each row."""
    return f"SELECT MOD(k, {buckets}) AS b, COUNT(*), SUM(k), SUM(d) FROM ({rows}) AS x GROUP BY 1"


def compare_buckets(count: int, left: Iterable[Sequence[Any]], right: Iterable[Sequence[Any]]) -> Buckets:
    """What the query `bucketed` answered on either side."""
    here, there = (
        {int(b): (int(rows), int(keys), int(digests)) for b, rows, keys, digests in side}
        for side in (left, right)
    )
    differing = sorted(b for b in here.keys() | there.keys() if here.get(b) != there.get(b))
    of_left, of_right = (sum(one[0] for one in side.values()) for side in (here, there))
    return Buckets(count, of_left, of_right, tuple(differing))


def side_by_side(*sides: Iterable[Sequence[Any]]) -> Iterator[tuple[int, list[list[Sequence[Any]]]]]:
    """Rows of each side by their first column, by which all are in order.

    Yields:
        The number, and each side's rows of it.
    """
    grouped = [iter(groupby(rows, key=lambda row: int(row[0]))) for rows in sides]

    def following(side: Iterator[tuple[int, Iterator[Sequence[Any]]]]) -> Any:
        one = next(side, None)
        return (one[0], list(one[1])) if one else None

    heads = [following(side) for side in grouped]
    while any(heads):
        k = min(head[0] for head in heads if head)
        here = [bool(head and head[0] == k) for head in heads]
        yield k, [head[1] if there else [] for there, head in zip(here, heads, strict=True)]
        heads = [
            following(side) if there else head for there, side, head in zip(here, grouped, heads, strict=True)
        ]


def stream(connection: psycopg.Connection[Any], query: str) -> Iterator[tuple[Any, ...]]:
    """Answers of the warehouse, some thousands at once; in the caller's transaction."""
    # Several may be open at once.
    with connection.cursor(f"rows_{token_hex(4)}") as cursor:
        cursor.execute(query.encode())
        while rows := cursor.fetchmany(FETCH):
            yield from rows


def compare_target(connection: psycopg.Connection[Any], target: Target, model: str) -> Buckets:
    """Compares a model's table with that of a target, bucket by bucket.

    Args:
        connection: To the warehouse, in a transaction.
        target: The target; in a change, that is compared.
        model: The model.
    """
    query = sql.SQL("SELECT count(*) FROM dwh.{}").format(sql.Identifier(model))
    ((live,),) = connection.execute(query).fetchall()
    count = bucket_count(live)
    return compare_buckets(
        count,
        connection.execute(bucketed(_rows("postgres", model), count).encode()).fetchall(),
        target.ask(bucketed(_rows(target.engine, model), count)),
    )


def differences(
    connection: psycopg.Connection[Any], target: Target, model: str, buckets: Buckets
) -> Iterator[Difference]:
    """The rows of a model that a target does not have as the warehouse has them.

    Args:
        connection: To the warehouse, in the transaction of `compare_target`.
        target: The target.
        model: The model.
        buckets: What `compare_target` found.
    """
    if not buckets.differing:
        return
    left, right = (
        f"SELECT k, d, named, own FROM ({_rows(engine, model)}) AS x WHERE {buckets.those('k')} ORDER BY k"
        for engine in ("postgres", target.engine)
    )
    for _, (ours, its) in side_by_side(stream(connection, left), target.ask(right)):
        if [int(row[1]) for row in ours] == [int(row[1]) for row in its]:
            continue
        rows = 1
        if len(its) > 1:
            how, rows = f"{len(its)} times in {target.title}", len(its) - 1
        elif len(ours) > 1:
            how, rows = f"{len(ours)} times in PostgreSQL", len(ours) - 1
        elif ours and its:
            how = f"differs in {target.title}"
        else:
            how = f"missing in {target.title}" if ours else f"only in {target.title}"
        _, _, value, own = (ours or its)[0]
        yield Difference(f"{definition(model).key[0]}={value}", how, rows, value, own)


def unlike_ods(connection: psycopg.Connection[Any], model: str) -> Iterator[Difference]:
    """The rows of a model that are not what `ods` says, by its checks over all rows.

    Those of the checks that each model has; what a model checks besides in SQL of its own names no rows.

    Args:
        connection: To the warehouse, in a transaction.
        model: A model that is built from tables.
    """
    defined = definition(model)
    contract = table_of(defined, defined.driver)
    driver = defined.driver
    if set(contract.key) & set(contract.pii):
        named = f"'key number ' || {ods_number(contract, f'"{driver}"')}"
    else:
        named = " || ' ' || ".join(f'\'{one}=\' || "{driver}"."{one}"::TEXT' for one in contract.key)
    for key, how, rows in stream(connection, differing_rows(defined, named)):
        yield Difference(key, how, rows)


def with_keys(
    connection: psycopg.Connection[Any],
    lines: list[Line],
    found: dict[tuple[str, str], Iterator[Difference]],
    errors: tuple[type[Exception], ...] = (),
) -> list[Line]:
    """Lines that do not close, with some keys of the rows that differ.

    Where these cannot be had, the lines stay as they are: what they say counts more.

    Args:
        connection: To the warehouse.
        lines: All lines.
        found: By table and hop, the rows that differ; asked only where a line does not close.
        errors: What may come up beside the warehouse's own errors.
    """
    named: dict[tuple[str, str], tuple[str, ...]] = {}
    told: tuple[type[Exception], ...] = (psycopg.Error, *errors)
    try:
        with connection.transaction():
            for line in lines:
                at = (line.table, line.hop)
                if not line.closed and at in found and at not in named:
                    named[at] = tuple(map(str, islice(found[at], SHOWN)))
    except told as error:
        log.warning("which rows differ could not be found: %s", first_line(error))
    return [
        line if line.closed else replace(line, keys=named.get((line.table, line.hop), ())) for line in lines
    ]


def _rows(engine: str, model: str) -> str:
    defined = definition(model)
    (key,) = defined.key
    quote, text = ("`", "toString({})") if engine == "clickhouse" else ('"', "CAST({} AS text)")
    named, own = (text.format(f"{quote}{column}{quote}") for column in (key, own_key(defined)[0]))
    return (
        f"SELECT {number(engine, defined, defined.key)} AS k, {number(engine, defined)} AS d, "
        f"{named} AS named, {own} AS own FROM dwh.{quote}{model}{quote}"
    )
