"""Lines of the ledger: on each hop of a table, what left and what arrived must be the same number."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from tallyhouse.errors import TallyhouseError

log = logging.getLogger(__name__)

ROWS = "rows"
VERSIONS = "versions of touched members"
"""Of a dimension with history; the part `opened` says how many are new."""
CURRENT = "current versions of touched members"
"""The part `closed`, negative, says how many ended."""


class Hop(StrEnum):
    """The arrows of a row's way, up to the targets."""

    SOURCE_RAW = "source=raw"
    RAW_CURATED = "raw=curated"
    RAW_ACCEPTED = "raw=accepted"
    ACCEPTED_ODS = "accepted=ods"
    SOURCE_ODS = "source=ods"
    ODS_MODEL = "ods=model"


def shown_in(target: str) -> str:
    """The hop of a model from the warehouse to a target."""
    return f"postgres={target}"


def mart_in(target: str) -> str:
    """The hop from a target's models to its marts."""
    return f"{target}=mart"


@dataclass(frozen=True)
class Line:
    """One equation.

    Attributes:
        table: The source table or the model it speaks of.
        hop: The arrow: a `Hop`, or that of a target.
        measure: `rows`, or what is summed.
        left: What left.
        right: What arrived; the sum of its parts where there are any.
        parts: How the right side is made up, such as accepted and superseded.
        keys: Of a line that does not close, some rows that differ: key, and how.
    """

    table: str
    hop: str
    measure: str
    left: Decimal
    right: Decimal
    parts: dict[str, Decimal] = field(default_factory=dict)
    keys: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is of, such as `orders.orders source=raw rows`."""
        return f"{self.table} {self.hop} {self.measure}"

    @property
    def closed(self) -> bool:
        """Whether both sides are the same number."""
        return self.left == self.right

    @property
    def difference(self) -> Decimal:
        """What arrived too much, or, negative, what is missing."""
        return self.right - self.left


def check_closed(lines: Iterable[Line], run_id: str) -> None:
    """Makes sure that every line closes.

    Raises:
        TallyhouseError: One does not; the message names the first table, hop and difference.
    """
    broken = [line for line in lines if not line.closed]
    if broken:
        first = broken[0]
        for line in broken:
            named = f"; rows: {', '.join(line.keys)}" if line.keys else ""
            log.error("%s: %s != %s%s", line.name, line.left, line.right, named)
        more = f" (and {len(broken) - 1} more lines)" if len(broken) > 1 else ""
        raise TallyhouseError(
            f"the ledger does not close: {first.hop} differs by {first.difference} {first.measure}, "
            f"{first.left} against {first.right}{more}",
            remedy=f'Nothing of this run was published further; see `make ledger ARGS="--run {run_id}"`',
            table=first.table,
            rule=f"{first.hop} {first.measure}",
            count=int(first.difference) if first.difference == int(first.difference) else None,
            sample=first.keys or [f"{line.name}: {line.left} against {line.right}" for line in broken],
        )
