"""A run's ledger as a picture: which rows went where, and where it does not close.

The ledger is `extra.ledger` of a run: a list of lines, each one equation of one table, as the ledger of the
warehouse has them. What is not of that form is left out, because `extra` is anybody's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any

ROWS = "rows"
# Where the two sides of each hop stand in the picture.
HOPS = {
    "source=raw": ("source", "raw"),
    "raw=accepted": ("raw", "accepted"),
    "raw=curated": ("raw", "curated"),
    "accepted=ods": ("accepted", "ods"),
    "ods=model": ("whole ods", "star schema"),
}
TARGET, MARTS = "target", "marts"
# A run may go to several targets; the picture follows the first of them. Runs reported in the past have their
# marts at `model=mart`.
TO_TARGET = re.compile(r"postgres=(\w+)", re.ASCII)
TO_MARTS = ("=mart", "model=mart")
# What stands at a place where more rows leave than arrived, and where fewer do. The name goes into the
# picture, the sentence below it.
MORE = {
    "whole ods": (
        "earlier runs or several models",
        "from here on whole tables are compared, not the rows of this run: rows that earlier runs brought are"
        " counted too, and a row that several models are made of is counted for each of them",
    ),
    "star schema": (
        "rows checked by version",
        "models whose rows are versions (such as dim_customer) are checked by their current versions before"
        " this place, and with all their rows from here on",
    ),
}
FEWER = {
    "whole ods": (
        "in no model",
        "these rows are in tables that no model checked here is made of, or are joined into fewer rows",
    ),
    TARGET: ("in no mart", "only the facts that a mart is made of go on: dimensions end here"),
    "star schema": ("not shown", "models that are not published to a target end here"),
}
NO_FURTHER = ("went no further", "the ledger has no later equation about these tables")
OTHERWISE = "the equations before and after this place are about different tables; each closes by itself"
MAX_DIGITS = 38
"""Digits that a number of a ledger may have before the point, as many as a DECIMAL has."""
MAX_SCALE = 38
MAX_LINES = 2000
"""How many lines a page shows."""
# The exponent is short: `0E-8` is how Python writes a zero with eight decimals.
_NUMBER = re.compile(
    rf"[+-]?\d{{1,{MAX_DIGITS}}}(\.\d{{0,{MAX_SCALE}}})?(E[+-]?\d{{1,2}})?", re.ASCII | re.IGNORECASE
)
# What Python and others would read as a number; longer than this it is not looked at.
_NUMERIC = re.compile(r"\s*[+-]?[\d_]*\.?[\d_]*(e[+-]?[\d_]+)?\s*", re.IGNORECASE)
_PRECISION = 4 * MAX_DIGITS
# Parts that leave the way, each to a place of its own. Runs reported in the past say "kept aside" of what
# is quarantined.
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

    @property
    def difference(self) -> Decimal:
        """What arrived too much, or, negative, what is missing; to the last digit."""
        with localcontext(prec=_PRECISION):
            return self.right - self.left


@dataclass
class Flow:
    """Nodes and links of the picture, by rows.

    Attributes:
        nodes: The names of its places.
        links: From where to where, how many rows, and which tables do not close.
        notes: Why the flow is wider or narrower after some places, in words.
    """

    nodes: list[str] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _number(value: object) -> Decimal:
    """A number of a ledger, whose size is bounded: what is done with it costs next to nothing.

    Raises:
        ValueError: It is none, or has too many digits, or an exponent.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a number")
    # Looked at as text first: to make a number of a long one is what costs.
    text = value if isinstance(value, str) else repr(value) if isinstance(value, float) else f"{value:d}"
    if len(text) <= MAX_DIGITS + MAX_SCALE + 6 and _NUMBER.fullmatch(text):
        number = Decimal(text)
        _, _, exponent = number.as_tuple()
        if isinstance(exponent, int) and exponent >= -MAX_SCALE and number.adjusted() < MAX_DIGITS:
            return number
    raise ValueError(
        f"give a number of at most {MAX_DIGITS} digits before the point and {MAX_SCALE} after it"
    )


def _entries(extra: Mapping[str, Any]) -> list[Any]:
    ledger = extra.get("ledger")
    return ledger if isinstance(ledger, list) else []


def too_large(extra: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where the ledger of a run has a number that cannot be used, and why; for the moment it comes in.

    What is no number at all is another form of ledger, which is left out of the pages.
    """
    for place, item in enumerate(_entries(extra)):
        if not isinstance(item, dict):
            continue
        parts = item.get("parts")
        values = [("left", item.get("left")), ("right", item.get("right"))]
        values += (
            [(f"parts.{name}", value) for name, value in parts.items()] if isinstance(parts, dict) else []
        )
        for name, value in values:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number or (isinstance(value, str) and (len(value) > 1000 or _NUMERIC.fullmatch(value))):
                try:
                    _number(value)
                except ValueError as error:
                    yield f"extra.ledger.{place}.{name[:100]}", str(error)


def lines_of(extra: Mapping[str, Any]) -> list[Line]:
    """The lines of a run's ledger, as many as a page shows; those of another form are left out."""
    found = []
    for item in _entries(extra)[:MAX_LINES]:
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
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return found


def not_shown(extra: Mapping[str, Any], lines: list[Line]) -> int:
    """How many entries of a run's ledger are not among its lines."""
    return len(_entries(extra)) - len(lines)


def flow(lines: Iterable[Line], table: str | None = None) -> Flow:
    """The picture of a ledger, of all tables or of one.

    Each hop is a link as wide as the rows that arrived; rows that a hop lost or gained are a link of their
    own, to a node of that name. Where a hop counts other rows than the one before it, the difference is a
    link of its own too, and a note says why.
    """
    with localcontext(prec=_PRECISION):
        return _flow(lines, table)


def _flow(lines: Iterable[Line], table: str | None) -> Flow:
    lines = list(lines)
    found = sorted(match[1] for line in lines if (match := TO_TARGET.fullmatch(line.hop)))
    hops = HOPS | dict.fromkeys(TO_MARTS[1:], (TARGET, MARTS))
    if found:
        hops |= {f"postgres={found[0]}": ("star schema", TARGET), f"{found[0]}{TO_MARTS[0]}": (TARGET, MARTS)}
    totals: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    broken: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line in lines:
        if line.measure != ROWS or line.hop not in hops or table not in {None, line.table}:
            continue
        start, end = hops[line.hop]
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
    _join(totals, picture.notes)
    for (start, end), rows in totals.items():
        if rows > 0:
            picture.links.append(
                {"source": start, "target": end, "value": int(rows), "broken": broken.get((start, end), [])}
            )
            picture.nodes += [name for name in (start, end) if name not in picture.nodes]
    return picture


def _join(totals: dict[tuple[str, str], Decimal], notes: list[str]) -> None:
    """Make the hops one flow: rows that a place has too many or too few come from, or go, aside."""
    arriving: dict[str, Decimal] = defaultdict(Decimal)
    leaving: dict[str, Decimal] = defaultdict(Decimal)
    for (start, end), rows in totals.items():
        leaving[start] += max(rows, Decimal())
        arriving[end] += max(rows, Decimal())
    whole = "whole ods"
    if leaving[whole] and arriving["ods"]:
        # What this run brought to ods is part of what the models are checked against.
        totals["ods", whole] = arriving[whole] = min(arriving["ods"], leaving[whole])
        if (rest := arriving["ods"] - leaving[whole]) > 0:
            name, why = FEWER[whole]
            totals["ods", name] = rest
            notes.append(f"{_rows(rest)} {name}: {why}.")
    for place in (whole, "star schema", TARGET, "accepted", "raw"):
        if not arriving[place] or not leaving[place]:
            continue
        difference = leaving[place] - arriving[place]
        if difference > 0:
            name, why = MORE.get(place, ("from other tables", OTHERWISE))
            totals[name, place] = difference
            notes.append(f"{_rows(difference)} more at {place} ({name}): {why}.")
        elif difference < 0:
            name, why = FEWER.get(place, NO_FURTHER)
            totals[place, name] = -difference
            notes.append(f"{_rows(-difference)} fewer after {place} ({name}): {why}.")


def _rows(number: Decimal) -> str:
    return f"{int(number):,} rows".replace(",", "\u202f")
