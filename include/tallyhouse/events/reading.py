"""Judges the lines of raw objects: which is an event, and why another one is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jiter
import msgspec
import orjson

MOST = 200
"""Characters of an id or an event type."""
UNKNOWN = "unknown"
"""The type of an event that has none."""
AHEAD = timedelta(days=1)
"""How far a clock may be ahead of ours; later still is no time at which anything was received."""
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a line is.

    Attributes:
        problem: Why it is no event; None for an event, which has all of the rest.
        id: The event's id.
        event_type: Its type.
        received_at: When it was acknowledged, UTC, as `YYYY-MM-DD HH:MM:SS.ffffff`.
        payload: Its payload's own bytes, as they were sent.
    """

    problem: str | None
    id: str | None = None
    event_type: str | None = None
    received_at: str | None = None
    payload: bytes | None = None


class _Payload(msgspec.Struct):
    payload: msgspec.Raw


# The one reader that hands a part of a document over as it stands: parsed and written again, 1.10 would be
# 1.1, and a number of forty digits another one.
_payload = msgspec.json.Decoder(_Payload)


def documents(body: bytes) -> Iterator[bytes]:
    """The documents of an object: its lines, or all of it where it is one document over several lines.

    An object without anything in it is one empty document, so that it is accounted for.
    """
    lines = body.split(b"\n")
    if len(lines) > 1 and not lines[-1].strip():
        lines.pop()
    if len(lines) > 1 and _is_json(body):
        yield body
    else:
        yield from lines


def _is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


def read(text: bytes, now: datetime) -> Reading:
    """Judges one document.

    Args:
        text: As it stands in the object.
        now: The time of the reading, UTC.
    """
    if not text.strip():
        return Reading("empty line")
    try:
        # A name that stands twice has two values: the curated map holds one, and readers disagree which.
        document = jiter.from_json(
            text, allow_inf_nan=False, catch_duplicate_keys=True, float_mode="lossless-float"
        )
    except ValueError as error:
        return Reading(f"not JSON: {error}")
    if not isinstance(document, dict):
        return Reading("not a JSON object")
    id_, event_type = document.get("id"), document.get("event_type")
    event_type = UNKNOWN if event_type is None else event_type
    received_at = _time(document.get("received_at"))
    problem = (
        _name_problem("id", id_)
        or _name_problem("event_type", event_type)
        or (None if isinstance(document.get("payload"), dict) else "payload is not a JSON object")
        or _time_problem(received_at, now)
    )
    if problem or received_at is None:
        return Reading(problem)
    payload = bytes(_payload.decode(text).payload)
    return Reading(None, id_, event_type, f"{received_at:%Y-%m-%d %H:%M:%S.%f}", payload)


def _time_problem(received_at: datetime | None, now: datetime) -> str | None:
    if received_at is None:
        return "received_at is not a time with its zone"
    if not _EARLIEST <= received_at <= now + AHEAD:
        return "received_at lies in the future" if received_at > now else "received_at is too old"
    return None


def _name_problem(what: str, value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return f"{what} is missing or not text"
    if len(value) > MOST or not value.isprintable() or value != value.strip():
        return f"{what} is longer than {MOST} characters, or has control characters or spaces around it"
    return None


def _time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo else None
    except (TypeError, ValueError, OverflowError):
        return None
