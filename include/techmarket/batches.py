"""What the generator hands to a store: columns of one table, as text ready for SQL."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from techmarket.randomness import Bools, Ints

CHUNK = 10_000
"""Rows made at once; memory is bounded by it, values do not depend on it."""

_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\0": "\\0"})
_NULL = "NULL"


@dataclass(frozen=True)
class Batch:
    """Rows of one table.

    Attributes:
        table: its name.
        columns: for each column its literals, in SQL's notation; all equally long.
    """

    table: str
    columns: dict[str, Sequence[str]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def rows(self) -> Iterator[str]:
        """Each row as ``(literal,literal,...)``."""
        return (f"({','.join(row)})" for row in zip(*self.columns.values(), strict=True))


def chunks(total: int, size: int = CHUNK) -> Iterator[Ints]:
    """The indexes 0 to ``total - 1`` in pieces."""
    for start in range(0, total, size):
        yield np.arange(start, min(start + size, total), dtype=np.int64)


def literal(value: str | None) -> str:
    """Any text as a literal (with MySQL's backslash escapes, the session's mode must allow them)."""
    return _NULL if value is None else f"'{value.translate(_ESCAPES)}'"


def safe(values: Iterable[str]) -> list[str]:
    """Texts that need no escaping: identifiers, codes."""
    return [f"'{value}'" for value in values]


def picked(pool: Sequence[str | None], index: Ints) -> list[str]:
    """Values of a pool, escaped once for all rows."""
    ready = [literal(value) for value in pool]
    return [ready[at] for at in index.tolist()]


def texts(values: Iterable[str | None]) -> list[str]:
    """Any texts."""
    return [literal(value) for value in values]


def numbers(values: Ints) -> list[str]:
    """Whole numbers."""
    return list(map(str, values.tolist()))


def flags(values: Bools) -> list[str]:
    """Booleans."""
    return ["1" if value else "0" for value in values.tolist()]


def money(cents: Ints) -> list[str]:
    """Amounts given in hundredths, none negative."""
    return [f"{value // 100}.{value % 100:02d}" for value in cents.tolist()]


def times(micros: Ints) -> list[str]:
    """Times given in microseconds UTC."""
    return [f"'{text}'" for text in np.datetime_as_string(micros.astype("datetime64[us]")).tolist()]


def dates(epoch_days: Ints) -> list[str]:
    """Dates given in days since 1970."""
    return [f"'{date(1970, 1, 1) + timedelta(days=day)}'" for day in epoch_days.tolist()]


def null_where(absent: Bools, values: Sequence[str]) -> list[str]:
    """NULL in the marked rows."""
    return [_NULL if gone else value for gone, value in zip(absent.tolist(), values, strict=True)]
