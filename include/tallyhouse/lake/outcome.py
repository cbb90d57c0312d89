"""How a job of a run ended, as the job itself wrote it into the lake."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.lake.store import Lake


@dataclass(frozen=True)
class Outcome:
    """`report/<pipeline>/run=<run_id>/outcome/<job>.json`; the newest attempt's replaces the one before.

    Attributes:
        attempt: Which attempt this is the outcome of, as the caller named it.
        success: Whether the job did its work.
        message: Why not, in one line; None after success.
        foreseen: Whether the job refused by itself; else something broke that nobody thought of.
        transient: Whether trying again later may help, as with a server that is down.
        error: What a `TallyhouseError` is made of, where it was one: table, rule, count and sample too.
    """

    attempt: str
    success: bool
    message: str | None = None
    foreseen: bool = False
    transient: bool = False
    error: dict[str, Any] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, attempt: str, error: Exception | None) -> Outcome:
        """The outcome of an attempt that raised this error, or none."""
        if error is None:
            return cls(attempt, success=True)
        if isinstance(error, TallyhouseError):
            return cls(
                attempt,
                success=False,
                message=str(error),
                foreseen=True,
                transient=error.transient,
                error=error.arguments(),
            )
        return cls(attempt, success=False, message=f"{type(error).__name__}: {first_line(error)}")

    def write(self, lake: Lake, pipeline: str, run_id: str, job: str) -> None:
        """Writes it into the lake."""
        lake.write_json(_key(pipeline, run_id, job), asdict(self))

    @classmethod
    def read(cls, lake: Lake, pipeline: str, run_id: str, job: str, attempt: str) -> Outcome | None:
        """The outcome of that very attempt; None where it left none, as when it was killed."""
        key = _key(pipeline, run_id, job)
        if key not in lake.keys(key.rpartition("/")[0]):
            return None
        found = cls(**lake.read_json(key))
        return found if found.attempt == attempt else None


def _key(pipeline: str, run_id: str, job: str) -> str:
    return f"report/{pipeline}/run={run_id}/outcome/{job}.json"
