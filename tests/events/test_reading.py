"""What is an event, and what is quarantined with which reason."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from tallyhouse.events.reading import documents, read

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def event(**other: Any) -> bytes:
    fields = {
        "id": "e1",
        "event_type": "order",
        "payload": {"a": 1},
        "received_at": "2026-01-02T03:04:05.123456Z",
    }
    return orjson.dumps(fields | other)


def test_an_event_is_read_in_utc() -> None:
    found = read(event(received_at="2026-01-02T05:04:05.1+02:00"), NOW)
    assert (found.problem, found.id, found.event_type) == (None, "e1", "order")
    assert found.received_at == "2026-01-02 03:04:05.100000"


def test_an_event_without_a_type_is_of_unknown_type() -> None:
    assert read(event(event_type=None), NOW).event_type == "unknown"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "empty line"),
        (b"  ", "empty line"),
        (b'{"id": "e1", ', "not JSON: "),
        (b'{"id": "\xff"}', "not JSON: "),
        (b"{'id': 'e1'}", "not JSON: "),
        (event() + b"{}", "not JSON: "),
        (b'{"id": NaN}', "not JSON: "),
        (
            event(payload={"a": 1}).replace(b'{"a":1}', b'{"a":1,"a":2}'),
            'not JSON: Detected duplicate key "a"',
        ),
        (event().replace(b'"id":"e1"', b'"id":"e1","id":"e2"'), 'not JSON: Detected duplicate key "id"'),
        (b'["e1"]', "not a JSON object"),
        (event(id=None), "id is missing or not text"),
        (event(id=7), "id is missing or not text"),
        (event(id=""), "id is missing or not text"),
        (event(id="x" * 201), "id is longer than 200"),
        (event(id="a\nb"), "id is longer than 200 characters, or has control characters"),
        (event(event_type={}), "event_type is missing or not text"),
        (event(event_type=" a"), "event_type is longer than 200 characters, or has"),
        (event(payload="text"), "payload is not a JSON object"),
        (event(payload=None), "payload is not a JSON object"),
        (event(received_at=None), "received_at is not a time with its zone"),
        (event(received_at=1767315845), "received_at is not a time with its zone"),
        (event(received_at="2026-01-02T03:04:05"), "received_at is not a time with its zone"),
        (event(received_at="0001-01-01T00:00:00+14:00"), "received_at is not a time with its zone"),
        (event(received_at="2026-01-04T03:04:05Z"), "received_at lies in the future"),
        (event(received_at="1999-12-31T00:00:00Z"), "received_at is too old"),
    ],
)
def test_what_is_no_event_says_why(text: bytes, reason: str) -> None:
    found = read(text, NOW)
    assert found.problem is not None
    assert found.problem.startswith(reason), found.problem
    assert found.id is None


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"{}", [b"{}"]),
        (b"{}\n", [b"{}"]),
        (b"{}\n{}", [b"{}", b"{}"]),
        (b"{}\n\n{}\n", [b"{}", b"", b"{}"]),
        (b'{\n "a": 1\n}\n', [b'{\n "a": 1\n}\n']),
        (b'{"a":\n{}\nx', [b'{"a":', b"{}", b"x"]),
        (b"", [b""]),
    ],
)
def test_an_object_is_its_lines_or_one_document(body: bytes, found: list[bytes]) -> None:
    assert list(documents(body)) == found
