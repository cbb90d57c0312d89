"""Which messages are events."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from services.consumer.documents import PoisonError, Row, read
from services.ingest.events import decode, make_event

ID = "c34e91d5-3043-8362-906e-dd60b586732e"
GOOD = (
    b'{"id":"%s","event_type":"event","payload":{"a":1.10},"received_at":"2026-11-21T14:51:17.493801Z"}'
    % (ID.encode())
)


def test_a_document_of_the_ingest_service_is_a_row():
    sent = decode(b'{"payload":{"a": "\xd1\x97\\n"},"event_type":"x"}')
    now = datetime.now(UTC)
    event = make_event(sent, key=None, sender="", unique=b"", version=4, now=now, bulk=None)
    assert read(event.body) == Row(event.id, "x", 4, '{"a": "ї\\n"}', now)


def test_a_payload_is_kept_to_the_letter():
    assert read(GOOD) == Row(
        UUID(ID), "event", 0, '{"a":1.10}', datetime(2026, 11, 21, 14, 51, 17, 493801, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        GOOD.replace(ID.encode(), b"1"),
        GOOD.replace(b'{"a":1.10}', b"1"),
        GOOD.replace(b'{"a":1.10}', b'{"a":1.1.0}'),
        GOOD.replace(b'{"a":1.10}', b'{"page":{"evil":1},"page":"a"}'),
        GOOD.replace(b'{"a":1.10}', b'{"a":{"b":1,"\\u0062":2}}'),
        GOOD.replace(b'"event_type":"event"', b'"event_type":"event","event_type":"other"'),
        GOOD.replace(b'"event_type":"event"', b'"event_type":""'),
        GOOD.replace(b"2026-11-21T14:51:17.493801Z", b"2026-11-21T14:51:17.493801"),
        GOOD.replace(b"2026-11-21T14:51:17.493801Z", b"1026-11-21T14:51:17Z"),
        GOOD.replace(b"2026-11-21T14:51:17.493801Z", b"yesterday"),
    ],
)
def test_what_is_no_event_is_poison(value):
    with pytest.raises(PoisonError):
        read(value)
