"""A message's document: `{"id", "event_type", "payload", "received_at"}`, as the ingest service writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, NamedTuple
from uuid import UUID

import msgspec

from services.common import jsontext

# What ClickHouse's DateTime64(6) holds.
_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2299, 12, 31, tzinfo=UTC)


class Row(NamedTuple):
    """A row of `ingested_events`."""

    id: UUID
    event_type: str
    schema_version: int
    payload: str
    created_at: datetime


class _Document(msgspec.Struct):
    id: UUID
    event_type: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    payload: msgspec.Raw
    received_at: Annotated[datetime, msgspec.Meta(tz=True)]
    schema_version: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0


class PoisonError(ValueError):
    """A message that is no event, and why."""


_decoder = msgspec.json.Decoder(_Document)


def read(value: bytes | None) -> Row:
    """The row of a message.

    Raises:
        PoisonError: It is no event.
    """
    if value is None:
        raise PoisonError("the message is empty")
    try:
        jsontext.check(value)  # also the payload, which msgspec does not look into
        document = _decoder.decode(value)
    except (jsontext.NotJsonError, jsontext.AmbiguousError, msgspec.DecodeError) as error:
        raise PoisonError(str(error)) from error
    payload = bytes(document.payload)
    if payload[:1] != b"{":
        raise PoisonError("the payload is no JSON object")
    if not _FIRST <= document.received_at <= _LAST:
        raise PoisonError(f"received_at is {document.received_at}: beyond what can be stored")
    return Row(
        document.id, document.event_type, document.schema_version, payload.decode(), document.received_at
    )
