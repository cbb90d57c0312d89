"""An event: what a client sends, and the document that is kept of it, byte for byte the same everywhere."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.common import jsontext
from services.common.problems import Problem
from services.common.strict import refused_json

DEFAULT_TYPE = "event"
TYPE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
KEY_PATTERN = r"^[!-~]{1,200}$"
_TYPE, _KEY = re.compile(TYPE_PATTERN, re.ASCII), re.compile(KEY_PATTERN, re.ASCII)
_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


class Sent(msgspec.Struct, forbid_unknown_fields=True):
    """What a client sends. The payload's text is kept as it came: no number loses a digit."""

    payload: msgspec.Raw
    event_type: str = DEFAULT_TYPE
    schema_version: int | None = None
    idempotency_key: str | None = None


@dataclass(slots=True)
class Event:
    """An event that was taken in.

    Attributes:
        id: By what it is known, everywhere.
        event_type: Its sender's word for its kind.
        schema_version: Version of the schema that it keeps; 0 for none.
        content: What type and payload are known by.
        digest: MD5 of the document.
        object: Name of the object that holds it: its own id, or its bulk's.
        received_at: When it was taken in.
        body: The document.
    """

    id: UUID
    event_type: str
    schema_version: int
    content: UUID
    digest: UUID
    object: UUID
    received_at: datetime
    body: bytes


_decoder = msgspec.json.Decoder(Sent)
_bulk_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def decode(body: bytes) -> Sent:
    """What a body says.

    Raises:
        Problem: 400 when it is no JSON, 422 when it is no event.
    """
    body = jsontext.without_mark(body)
    _see_json(body, "the body")
    return _checked(body, "body")


def _see_json(text: bytes, what: str) -> None:
    """Look through all of a text, as msgspec does not: what it says must be one thing for every reader."""
    try:
        jsontext.check(text)
    except ValueError as error:
        raise refused_json(error, what) from error


def decode_bulk(body: bytes, media_type: str, most: int) -> list[Sent]:
    """What the body of a bulk says: a JSON array of events, or one event per line.

    Raises:
        Problem: 400 when it is no JSON, 413 when it holds too many events, 422 when one is no event.
    """
    body = jsontext.without_mark(body)
    parts = _lines(body) if media_type == "application/x-ndjson" else _items(body)
    if not parts:
        raise invalid("body", "there is no event in it")
    if len(parts) > most:
        raise Problem(413, f"the bulk holds {len(parts)} events, more than {most}: send it in parts")
    sent: list[Sent] = []
    wrong: list[Mapping[str, str]] = []
    for place, part in enumerate(parts):
        try:
            sent.append(_checked(part, f"body.{place}"))
        except Problem as problem:
            wrong += problem.errors
    if wrong:
        raise Problem(
            422,
            f"{wrong[0]['where']}: {wrong[0]['what']}; nothing of the bulk is stored",
            code="invalid",
            errors=wrong,
        )
    return sent


def _items(body: bytes) -> Sequence[bytes | msgspec.Raw]:
    _see_json(body, "the body")
    try:
        return _bulk_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid("body", "a bulk is an array of events") from error


def _lines(body: bytes) -> Sequence[bytes | msgspec.Raw]:
    lines = [line for line in body.split(b"\n") if line.strip()]
    for number, line in enumerate(lines):
        _see_json(line, f"line {number} of the body")
    return lines


def _checked(part: bytes | msgspec.Raw, where: str) -> Sent:
    try:
        sent = _decoder.decode(part)
    except msgspec.DecodeError as error:  # also a ValidationError
        raise invalid(where, str(error)) from error
    if bytes(sent.payload)[:1] != b"{":
        raise invalid(f"{where}.payload", "a payload is a JSON object")
    if not _TYPE.fullmatch(sent.event_type):
        raise invalid(f"{where}.event_type", f"a type matches {TYPE_PATTERN}")
    if sent.idempotency_key is not None:
        check_key(sent.idempotency_key, f"{where}.idempotency_key")
    if sent.schema_version is not None and not 1 <= sent.schema_version <= 2**31 - 1:
        raise invalid(f"{where}.schema_version", "a version is 1 or more")
    return sent


def check_key(key: str, where: str) -> None:
    """Refuse an idempotency key that cannot be one."""
    if not _KEY.fullmatch(key):
        raise invalid(where, "a key is 1 to 200 printable ASCII characters without spaces")


def invalid(where: str, what: str) -> Problem:
    """The problem of a wrong part of a body."""
    return Problem(422, f"{where}: {what}", code="invalid", errors=[{"where": where, "what": what}])


def _uuid8(*parts: bytes) -> UUID:
    """A UUID of 122 bits of SHA-256 (version 8 of RFC 9562: made as its maker likes)."""
    digest = hashlib.sha256(b"\0".join(parts)).digest()
    number = int.from_bytes(digest[:16])
    return UUID(int=number & ~(0xF << 76) & ~(0x3 << 62) | (0x8 << 76) | (0x2 << 62))


def make_event(
    sent: Sent, *, key: str | None, sender: str, unique: bytes, version: int, now: datetime, bulk: UUID | None
) -> Event:
    """The event of what was sent.

    Args:
        sent: What was sent.
        key: The idempotency key, if it came apart from the body.
        sender: Who sends it: keys and contents are known within what one sender sends.
        unique: Something that is different for each request, to know events by; empty to know them by
            their content.
        version: Version of the schema that it keeps; 0 for none.
        now: When it came, UTC.
        bulk: The bulk's object.
    """
    # A line end in JSON stands only between words, where a space does as well; the lake wants one line.
    payload = bytes(sent.payload).translate(_LINE_ENDS)
    kind = sent.event_type.encode()
    content = _uuid8(b"content", kind, payload)
    key = key or sent.idempotency_key
    if key is not None:
        known_by = _uuid8(b"key", sender.encode(), key.encode())
    else:
        # Two senders of the same are two events: neither learns what the other sent.
        known_by = _uuid8(b"unique", unique) if unique else _uuid8(b"event", sender.encode(), kind, payload)
    body = b'{"id":"%s","event_type":"%s","payload":%s,"received_at":"%s"%s}' % (
        str(known_by).encode(),
        kind,
        payload,
        now.isoformat(timespec="microseconds").removesuffix("+00:00").encode() + b"Z",
        b',"schema_version":%d' % version if version else b"",
    )
    digest = UUID(bytes=hashlib.md5(body, usedforsecurity=False).digest())
    return Event(known_by, sent.event_type, version, content, digest, bulk or known_by, now, body)


def id_of(body: bytes) -> bytes:
    """The id in a document, which always stands at the same place."""
    return body[7:43]


def payload_of(sent: Sent) -> Any:
    """The payload as Python has it, each number exactly, for its schema.

    Raises:
        Problem: 422 for an exponent of more digits than a number can have.
    """
    try:
        return jsontext.decimals(bytes(sent.payload))
    except ValueError as error:
        raise refused_json(error, "the payload") from error
