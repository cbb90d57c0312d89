from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from services.pipeline_info.models import PipelineInfo, human


def test_what_can_be_derived_is_derived():
    run = PipelineInfo.model_validate(
        {"start_local": "2026-01-02T02:00:00+02:00", "end_local": "2026-01-02T02:01:30.5+02:00"}
    )
    assert run.start_utc == datetime(2026, 1, 2, tzinfo=UTC)
    assert run.elapsed_seconds == 90.5
    assert run.elapsed_human == human(90.5) == "1m 30s"
    assert run.date_code == "20260102"


def test_a_local_time_takes_its_offset_from_the_utc_time():
    run = PipelineInfo.model_validate(
        {"start_local": "2026-01-02T02:00:00", "start_utc": "2026-01-02T00:00:00Z"}
    )
    assert run.start_local is not None
    assert run.start_local.utcoffset() == timedelta(hours=2)


def test_what_is_given_is_kept():
    run = PipelineInfo.model_validate(
        {
            "start_utc": "2026-01-02T00:00:00",
            "end_utc": "2026-01-02T00:00:10Z",
            "elapsed_seconds": 9,
            "elapsed_human": "about 9",
            "date_code": "D1",
        }
    )
    assert (run.elapsed_seconds, run.elapsed_human, run.date_code) == (9, "about 9", "D1")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "needs its start"),
        ({"start_local": "2026-01-02T02:00:00"}, "no offset"),
        ({"start_local": "2026-01-02T02:00:00+01:00", "start_utc": "2026-01-02T00:00:00Z"}, "do not agree"),
        ({"start_local": "2026-01-02T02:00:07", "start_utc": "2026-01-02T00:00:00Z"}, "do not agree"),
        ({"start_local": "2026-01-05T02:00:00", "start_utc": "2026-01-02T00:00:00Z"}, "do not agree"),
        ({"start_utc": "2026-01-02T00:00:01Z", "end_utc": "2026-01-02T00:00:00Z"}, "before it starts"),
        ({"start_utc": "1999-12-31T23:59:59Z"}, "give a time from 2000"),
        ({"start_utc": "9999-12-31T23:59:59-14:00"}, "give a time|out of range"),
        ({"start_utc": 1767312000}, "give a time as"),
        ({"start_utc": "1767312000"}, "give a time as"),
        ({"start_utc": "2026-01-02"}, "give a time as"),
        ({"start_utc": "2026-01-02T00:00:00Z", "rowcount": -1}, "greater than or equal"),
        ({"start_utc": "2026-01-02T00:00:00Z", "rowcount": "7"}, "valid integer"),
        ({"start_utc": "2026-01-02T00:00:00Z", "elapsed_seconds": float("nan")}, "finite|greater"),
        ({"start_utc": "2026-01-02T00:00:00Z", "pipeline_name": "a\x00"}, "match pattern"),
        ({"start_utc": "2026-01-02T00:00:00Z", "extra": {"a": ["\x00"]}}, "NUL"),
        ({"start_utc": "2026-01-02T00:00:00Z", "pipline_name": "a"}, "Extra inputs"),
    ],
)
def test_what_contradicts_itself_is_refused(fields, reason):
    with pytest.raises(ValidationError, match=reason):
        PipelineInfo.model_validate(fields)


def test_deep_nesting_is_refused():
    deep: dict = {}
    for _ in range(40):
        deep = {"a": deep}
    with pytest.raises(ValidationError, match="nested deeper"):
        PipelineInfo.model_validate({"start_utc": "2026-01-02T00:00:00Z", "extra": deep})


def test_the_fingerprint_is_of_the_content():
    one = PipelineInfo.model_validate({"start_utc": "2026-01-02T00:00:00Z", "extra": {"a": 1, "b": 2}})
    same = PipelineInfo.model_validate({"extra": {"b": 2, "a": 1}, "start_utc": "2026-01-02T00:00:00+00:00"})
    other = PipelineInfo.model_validate({"extra": {"b": 2, "a": 2}, "start_utc": "2026-01-02T00:00:00Z"})
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
