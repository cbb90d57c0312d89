"""Where the next window starts: before everything that may still commit rows with an older time.

A row becomes visible when its transaction commits, but its cursor was stamped when the statement, or in
PostgreSQL the transaction, began. So a snapshot may lack rows whose cursor lies before it. What is looked
at, in this order, is the server's clock (t0), the work that is open, and only then the snapshot: a row that
the snapshot lacks was stamped after t0, or by work that was seen open. `docs/decisions/0013` has the proof,
and what each server can tell.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from tallyhouse.contracts import SourceContract
from tallyhouse.errors import TallyhouseError

log = logging.getLogger(__name__)

SKEW = timedelta(seconds=2)
"""What the method itself cannot see: a cursor that keeps whole seconds lies up to one second before its
statement, and a statement that has just read the clock may not be listed yet."""


@dataclass(frozen=True)
class OpenWork:
    """What was open on a source after its clock was read, and before any snapshot of the run.

    Attributes:
        at: The server's clock, read first of all; UTC.
        oldest: The earliest time that rows still to be committed may bear; None where nothing was open.
        seen_by: How it was found out, for the log.
        unseen: Why open work could not be seen at all, and what to do; None where it could.
        held: Why nothing can be said of the past, as of a prepared transaction whose start is not known;
            the watermark then stays where it is.
        replica: Whether the server only repeats what another one commits.
    """

    at: datetime
    oldest: datetime | None = None
    seen_by: str = ""
    unseen: str | None = None
    held: str | None = None
    replica: bool = False


def next_watermark(work: OpenWork, contract: SourceContract, current: datetime | None) -> datetime | None:
    """Where the next window starts, once this run is published.

    Args:
        work: What was open before the run's snapshots.
        contract: The source; its `overlap` stands for what cannot be seen, its `replica_lag` for a replica.
        current: Where the window of this run starts; None on a table's first run.

    Returns:
        The time, UTC. None where the watermark has to stay and there is none: the next run then takes the
        whole table again.
    """
    if work.held:
        return current
    back = SKEW
    if work.replica:
        back += timedelta(seconds=contract.replica_lag or 0)
    if work.unseen or contract.clock == "application":
        back += timedelta(seconds=contract.overlap)
    return min(work.at, work.oldest or work.at) - back


def check_primary(work: OpenWork, contract: SourceContract) -> None:
    """Makes sure that the server is where rows are committed first, or that its lag is told.

    Raises:
        TallyhouseError: It is a replica of unknown lag: what it has not repeated yet bears older times.
    """
    if work.replica and contract.replica_lag is None:
        raise TallyhouseError(
            "the server is a replica, or read-only: rows that it has not repeated yet would fall before the "
            "watermark",
            remedy=f"Let {contract.conn_id} lead to the primary, or say in the contract's `replica_lag` how "
            "many seconds a row can take to arrive, the longest transaction of the primary included",
        )


def behind(work: OpenWork, watermark: datetime | None) -> bool:
    """Whether the server's clock has been set back to before a watermark that it gave.

    Rows that are written until it has caught up would lie before every window.
    """
    return watermark is not None and work.at < watermark


def tell(work: OpenWork, contract: SourceContract) -> None:
    """Logs what was found: one line, and one warning where the watermark cannot be exact or has to stay."""
    where = f"source {contract.name}"
    if work.unseen:
        log.warning(
            "%s: %s. Until then the next window reaches %s s back, and a transaction that stays open for "
            "longer can be missed",
            where,
            work.unseen,
            contract.overlap,
        )
    if work.held:
        log.warning("%s: the watermark stays where it is: %s", where, work.held)
    log.info(
        "%s: server time %s, oldest open work %s, seen by %s",
        where,
        work.at.isoformat(),
        work.oldest.isoformat() if work.oldest else "none",
        work.seen_by or "nothing",
    )
