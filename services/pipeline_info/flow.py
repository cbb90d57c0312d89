"""A run's ledger as a picture: which rows went where, and where it does not close.

The ledger is `extra.ledger` of a run: a list of lines, each one equation of one table, as the ledger of the
warehouse has them. What is not of that form is left out, because `extra` is anybody's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

ROWS = "rows"
# Where the two sides of each hop stand in the picture.
HOPS = {
    "source=raw": ("source", "raw"),
    "raw=accepted": ("raw", "accepted"),
    "raw=curated": ("raw", "curated"),
    "accepted=ods": ("accepted", "ods"),
    "ods=model": ("ods, as a whole", "star schema"),
    "postgres=clickhouse": ("star schema", "ClickHouse"),
}
# Parts that leave the way, each to a place of its own.
ASIDE = ("quarantined", "superseded", "kept aside")


@dataclass(frozen=True)
class Line:
    """One equation of a ledger: what left and what arrived."""

    table: str
    hop: str
    measure: str
    left: Decimal
    right: Decimal
    parts: dict[str, Decimal]

    @property
    def closed(self) -> bool:
        """Whether both sides are the same."""
        return self.left == self.right


@dataclass
class Flow:
    """Nodes and links of the picture, by rows."""

    nodes: list[str] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)


def _number(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    number = Decimal(str(value))
    if not number.is_finite():
        raise TypeError
    return number


def lines_of(extra: dict[str, Any]) -> list[Line]:
    """The lines of a run's ledger."""
    ledger = extra.get("ledger")
    found = []
    for item in ledger if isinstance(ledger, list) else []:
        try:
            parts = item.get("parts") or {}
            found.append(
                Line(
                    str(item["table"]),
                    str(item["hop"]),
                    str(item.get("measure", ROWS)),
                    _number(item["left"]),
                    _number(item["right"]),
                    {str(name): _number(value) for name, value in parts.items()},
                )
            )
        except (AttributeError, KeyError, TypeError, InvalidOperation):
            continue
    return found


def flow(lines: Iterable[Line], table: str | None = None) -> Flow:
    """The picture of a ledger, of all tables or of one.

    Each hop is a link as wide as the rows that arrived; rows that a hop lost or gained are a link of their
    own, to a node of that name.
    """
    totals: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    broken: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line in lines:
        if line.measure != ROWS or line.hop not in HOPS or table not in {None, line.table}:
            continue
        start, end = HOPS[line.hop]
        aside = {name: line.parts[name] for name in ASIDE if line.parts.get(name)}
        arrived = line.right - sum(aside.values())
        totals[start, end] += min(arrived, line.left - sum(aside.values()))
        for name, value in aside.items():
            totals[start, name] += value
        if not line.closed:
            missing = line.left - line.right
            link = (start, "lost") if missing > 0 else ("from nowhere", end)
            totals[link] += abs(missing)
            broken[start, end].append(line.table)
            broken[link].append(line.table)
    picture = Flow()
    for (start, end), rows in totals.items():
        if rows > 0:
            picture.links.append(
                {"source": start, "target": end, "value": int(rows), "broken": broken.get((start, end), [])}
            )
            picture.nodes += [name for name in (start, end) if name not in picture.nodes]
    return picture
