"""Events keep the schema of their type."""

from pathlib import Path

import orjson
import pytest

from services.common.problems import Problem
from services.ingest.events import Sent, decode
from services.ingest.schemas import Schemas
from services.ingest.settings import Settings

ORDER = {"type": "object", "required": ["total"], "properties": {"total": {"type": "number", "minimum": 0}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "order").mkdir()
    (tmp_path / "order/1.json").write_bytes(orjson.dumps(ORDER))
    (tmp_path / "order/10.json").write_bytes(orjson.dumps(ORDER | {"additionalProperties": False}))
    return tmp_path


def sent(payload: object, **more: object) -> Sent:
    return decode(orjson.dumps({"payload": payload} | more))


def test_the_newest_version_unless_another_is_named(folder):
    schemas = Schemas(folder)
    assert schemas.listing() == {"order": [1, 10]}
    assert schemas.check(sent({"total": 1}, event_type="order")) == 10
    assert schemas.check(sent({"total": 1, "more": 1}, event_type="order", schema_version=1)) == 1
    assert schemas.check(sent({"anything": 1}, event_type="visit")) == 0


@pytest.mark.parametrize(
    ("event", "where", "said"),
    [
        (({"total": 1, "more": 1}, {"event_type": "order"}), "body.payload", "more"),
        (({"total": -1}, {"event_type": "order"}), "body.payload.total", "minimum"),
        (({}, {"event_type": "order", "schema_version": 1}), "body.payload", "total"),
        (({"total": 1}, {"event_type": "order", "schema_version": 2}), "body.schema_version", "[1, 10]"),
        (({}, {"event_type": "visit", "schema_version": 1}), "body.event_type", "no schema"),
    ],
)
def test_what_does_not_keep_it_is_refused(folder, event, where, said):
    with pytest.raises(Problem) as refused:
        Schemas(folder).check(sent(event[0], **event[1]))
    assert refused.value.status == 422
    assert refused.value.errors[0]["where"] == where
    assert said in refused.value.detail


@pytest.mark.parametrize(
    "number", ["18446744073709551617", "1e999998", "1e" + "9" * 30, "0." + "0" * 400 + "1"]
)
def test_a_schema_sees_the_number_that_was_sent(tmp_path, number):
    (tmp_path / "small").mkdir()
    (tmp_path / "small/1.json").write_text('{"properties": {"n": {"const": 18446744073709551616}}}')
    with pytest.raises(Problem) as refused:
        Schemas(tmp_path).check(decode(b'{"event_type":"small","payload":{"n":%s}}' % number.encode()))
    assert refused.value.status == 422


def test_a_type_without_a_schema_may_be_refused(folder):
    with pytest.raises(Problem, match="visit has no schema"):
        Schemas(folder, required=True).check(sent({}, event_type="visit"))


@pytest.mark.parametrize(
    ("name", "text"), [("v1.json", "{}"), ("1.json", "{"), ("1.json", '{"type": "nothing"}')]
)
def test_a_file_that_is_no_schema_is_named(tmp_path, name, text):
    (tmp_path / "order").mkdir()
    (tmp_path / "order" / name).write_text(text)
    with pytest.raises(ValueError, match=name):
        Schemas(tmp_path)


def test_the_schemas_that_come_with_the_service_are_schemas():
    assert Schemas(Settings().schemas).listing()
