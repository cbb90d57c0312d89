"""What a body says, and the document that is kept of it."""

import json
from datetime import UTC, datetime
from uuid import uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.problems import Problem
from services.ingest.events import decode, decode_bulk, id_of, make_event

NOW = datetime(2026, 11, 21, 1, 2, 3, 4, tzinfo=UTC)


def made(body: bytes, **options):
    given = {"key": None, "sender": "me", "unique": b"", "version": 0, "now": NOW, "bulk": None} | options
    return make_event(decode(body), **given)


def test_the_document_is_what_was_sent_and_when():
    event = made(b'{"payload": {"a":\n [1.10, 12345678901234567890123, "\\u0000"]}, "event_type": "x.y"}')
    assert event.body == (
        b'{"id":"%s","event_type":"x.y","payload":{"a":  [1.10, 12345678901234567890123, "\\u0000"]},'
        b'"received_at":"2026-11-21T01:02:03.000004Z"}' % str(event.id).encode()
    )
    assert id_of(event.body) == str(event.id).encode()
    assert event.id.version == 8
    assert event.object == event.id


def test_a_schema_version_is_in_the_document():
    assert orjson.loads(made(b'{"payload":{}}', version=3).body)["schema_version"] == 3


def test_what_an_event_is_known_by():
    same = made(b'{"payload":{"a":1}}')
    assert made(b'{"event_type":"event","payload":{"a":1}}', now=datetime.now(UTC)).id == same.id
    assert made(b'{"payload":{"a":1},"event_type":"other"}').id != same.id
    assert made(b'{"payload":{"a":2}}').id != same.id
    assert made(b'{"payload":{"a":1}}', unique=b"1").id != same.id

    keyed = made(b'{"payload":{"a":1}}', key="k")
    assert keyed.id != same.id
    assert keyed.content == same.content
    assert made(b'{"payload":{"a":2}}', key="k").id == keyed.id
    assert made(b'{"payload":{"a":2},"idempotency_key":"k"}').id == keyed.id
    assert made(b'{"payload":{"a":2}}', key="k", sender="you").id != keyed.id
    assert made(b'{"payload":{"a":2}}', key="k", unique=b"1").id == keyed.id


def test_two_senders_of_the_same_are_two_events():
    mine = made(b'{"payload":{"a":1}}')
    yours = made(b'{"payload":{"a":1}}', sender="you")
    assert yours.id != mine.id
    assert yours.content == mine.content, "what a key is compared by is the content alone"


@pytest.mark.parametrize(
    "event",
    [
        b'{"payload":{"page":{"evil":1},"page":"a"}}',
        b'{"payload":{"a":[{"b":1,"\\u0062":2}]}}',
        b'{"payload":{"a":1},"payload":{"a":2}}',
        b'{"payload":{},"event_type":"a","event_type":"b"}',
    ],
)
def test_a_name_that_stands_twice_is_refused_alone_and_in_bulk(event: bytes):
    for send in (
        lambda: decode(event),
        lambda: decode_bulk(b"[%s]" % event, "application/json", 10),
        lambda: decode_bulk(b'{"payload":{}}\n%s\n' % event, "application/x-ndjson", 10),
    ):
        with pytest.raises(Problem, match="stands twice") as refused:
            send()
        assert refused.value.status == 422


def test_a_byte_order_mark_is_passed_over():
    plain = made(b'{"payload":{"a":1}}')
    assert made(b'\xef\xbb\xbf{"payload":{"a":1}}').id == plain.id
    for media_type in ("application/json", "application/x-ndjson"):
        body = b'[{"payload":{}}]' if media_type == "application/json" else b'{"payload":{}}'
        assert len(decode_bulk(b"\xef\xbb\xbf" + body, media_type, 10)) == 1


def test_of_many_wrong_events_a_few_are_shown():
    with pytest.raises(Problem) as refused:
        decode_bulk(b"[" + b",".join([b"1"] * 5000) + b"]", "application/json", 10_000)
    assert len(refused.value.response().body) < 5000
    assert refused.value.error_count == 5000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(payload=st.dictionaries(st.text(), JSON), indent=st.sampled_from([None, 2]), escaped=st.booleans())
def test_a_payload_comes_back_as_it_was_and_on_one_line(payload, indent, escaped):
    text = json.dumps(payload, indent=indent, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    body = b'{"payload":' + text + b"}"
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:  # a lone surrogate
        with pytest.raises(Problem):
            decode(body)
        return
    event = made(body)
    assert b"\n" not in event.body and b"\r" not in event.body
    document = json.loads(event.body)
    assert document["payload"] == json.loads(text)
    assert document["id"] == str(event.id)
    assert made(body).id == event.id


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"payload":{"a":NaN}}', 400),
        (b'{"payload":{"a":"\xff"}}', 400),
        (b'{"payload":{"a":"\\ud800"}}', 400),
        (b'{"payload":{}} x', 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"payload":[]}', 422),
        (b'{"payload":"{}"}', 422),
        (b'{"payload":null}', 422),
        (b'{"payload":{},"more":1}', 422),
        (b'{"payload":{},"event_type":""}', 422),
        (b'{"payload":{},"event_type":null}', 422),
        (b'{"payload":{},"event_type":"a b"}', 422),
        (b'{"payload":{},"event_type":"a\\n"}', 422),
        (b'{"payload":{},"event_type":"%s"}' % (b"a" * 65), 422),
        (b'{"payload":{},"schema_version":0}', 422),
        (b'{"payload":{},"schema_version":1.5}', 422),
        (b'{"payload":{},"schema_version":true}', 422),
        (b'{"payload":{},"idempotency_key":""}', 422),
        (b'{"payload":{},"idempotency_key":"\xc3\xa4"}', 422),
    ],
)
def test_what_is_no_event_is_refused(body, status):
    with pytest.raises(Problem) as refused:
        decode(body)
    assert refused.value.status == status
    with pytest.raises(Problem) as refused:
        decode_bulk(b'[{"payload":{}},' + body + b"]" if body else b"[", "application/json", 10)
    assert refused.value.status == status


def test_a_bulk_is_an_array_or_lines():
    array = decode_bulk(b'[{"payload":{"a":1}}, {"payload":{"a":2}}]', "application/json", 2)
    lines = decode_bulk(b'{"payload":{"a":1}}\r\n\n{"payload":{"a":2}}\n', "application/x-ndjson", 2)
    assert [bytes(sent.payload) for sent in array] == [bytes(sent.payload) for sent in lines]
    bulk = uuid4()
    events = [
        make_event(s, key=None, sender="", unique=b"", version=0, now=NOW, bulk=bulk)
        for s in (array[0], lines[0])
    ]
    assert events[0] == events[1]
    assert events[0].object == bulk


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"[]", "application/json", 422),
        (b"{}", "application/json", 422),
        (b"[1]", "application/json", 422),
        (b"", "application/x-ndjson", 422),
        (b'{"payload":{}}{"payload":{}}', "application/x-ndjson", 400),
        (b'{"payload":{}},\n{"payload":{}}', "application/x-ndjson", 400),
        (b'[{"payload":{}},{"payload":{}},{"payload":{}}]', "application/json", 413),
    ],
)
def test_what_is_no_bulk_is_refused(body, media_type, status):
    with pytest.raises(Problem) as refused:
        decode_bulk(body, media_type, 2)
    assert refused.value.status == status


def test_a_wrong_event_of_a_bulk_is_named():
    with pytest.raises(Problem) as refused:
        decode_bulk(b'[{"payload":{}},{"payload":1},{"event_type":"a"}]', "application/json", 9)
    assert [error["where"] for error in refused.value.errors] == ["body.1.payload", "body.2"]
    assert "nothing of the bulk is stored" in refused.value.detail
