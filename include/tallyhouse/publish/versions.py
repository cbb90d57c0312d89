"""How many versions of a dimension with history a run opens and closes, as lines of its ledger."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg

from tallyhouse.ledger import CURRENT, VERSIONS, Hop, Line
from tallyhouse.models import Definition
from tallyhouse.publish import sql as statements


@dataclass(frozen=True)
class Versions:
    """Versions of the members that an increment touches.

    Attributes:
        versions: What the dimension has.
        current: Of these, the current ones.
        opened: New ones that the increment brings.
        opened_current: Of these, the current ones.
        reopened: Versions that it makes current again.
        closed: Versions that it ends.
    """

    versions: Decimal
    current: Decimal
    opened: Decimal
    opened_current: Decimal
    reopened: Decimal
    closed: Decimal


def count(connection: psycopg.Connection[Any], model: Definition, staged: str) -> Versions:
    """Counts them, before an increment is merged or after it.

    Args:
        connection: To the warehouse, in a transaction.
        model: A dimension with history.
        staged: The staging table of its increment.
    """
    query = statements.render(
        "dwh/models/history.sql",
        staging=f'staging."{staged}"',
        table=model.name,
        natural_key=model.natural_key,
        surrogate_key=model.key[0],
    )
    (found,) = connection.execute(query.encode()).fetchall()
    return Versions(*map(Decimal, found))


def lines(model: Definition, before: Versions, after: Versions) -> list[Line]:
    """What was there and what the increment brought is what is there."""
    opened = {"before": before.versions, "opened": before.opened}
    closed = {
        "before": before.current,
        "opened": before.opened_current,
        "opened again": before.reopened,
        "closed": -before.closed,
    }
    return [
        Line(model.name, Hop.ODS_MODEL, measure, found, sum(parts.values(), Decimal(0)), parts)
        for measure, found, parts in (
            (VERSIONS, after.versions, opened),
            (CURRENT, after.current, closed),
        )
    ]
