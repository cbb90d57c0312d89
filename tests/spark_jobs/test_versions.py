"""Versions of a member keep their order, whatever time the newest state carries."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from pyspark.sql import SparkSession

from spark_jobs.scd2 import versions

DAY = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA = "member string, colour string, version_at timestamp"
MOMENT = timedelta(microseconds=1)
OPEN_FUTURE = datetime(2299, 12, 31, tzinfo=UTC)


def at(day: int) -> datetime:
    return DAY + timedelta(days=day)


def build(spark: SparkSession, current: tuple, existing: list[tuple]) -> list[tuple]:
    """(colour, version_at, is_current) of every version, oldest first."""
    # Each version ends where the next one begins, the last one in the open future.
    ends = [version_at for _, version_at in existing[1:]] + [OPEN_FUTURE]
    known = [("m", *row, end) for row, end in zip(existing, ends, strict=bool(existing))]
    before = spark.createDataFrame(known, f"{SCHEMA}, valid_to timestamp") if existing else None
    rows = versions(
        spark.createDataFrame([("m", *current)], SCHEMA),
        before,
        natural_key="member",
        surrogate="key",
        source="s",
    ).collect()
    found = sorted((row.version_at, row.colour, row.valid_from, row.valid_to, row.is_current) for row in rows)
    for (_, _, _, ends, _), (_, _, begins, _, _) in itertools.pairwise(found):
        assert ends == begins
    assert [row[4] for row in found] == [False] * (len(found) - 1) + [True]
    return [(colour, version_at) for version_at, colour, *_ in found]


@pytest.mark.parametrize(
    ("current", "existing", "expected"),
    [
        pytest.param(("red", at(1)), [], [("red", at(1))], id="first"),
        pytest.param(("red", at(1)), [("red", at(1))], [("red", at(1))], id="seen again"),
        pytest.param(("blue", at(2)), [("red", at(1))], [("red", at(1)), ("blue", at(2))], id="changed"),
        pytest.param(
            ("grey", at(1)),
            [("red", at(1)), ("blue", at(5))],
            [("red", at(1)), ("blue", at(5)), ("grey", at(5) + MOMENT)],
            id="changed without a time of its own",
        ),
        pytest.param(
            ("grey", at(1)),
            [("red", at(1)), ("blue", at(5)), ("grey", at(5) + MOMENT)],
            [("red", at(1)), ("blue", at(5)), ("grey", at(5) + MOMENT)],
            id="and seen again",
        ),
        pytest.param((None, at(1)), [("red", at(5))], [("red", at(5)), (None, at(5) + MOMENT)], id="to NULL"),
    ],
)
def test_versions_follow_one_another(
    spark: SparkSession, current: tuple, existing: list[tuple], expected: list[tuple]
) -> None:
    session_zone = [(colour, version_at.replace(tzinfo=None)) for colour, version_at in expected]
    assert [(c, v.replace(tzinfo=None)) for c, v in build(spark, current, existing)] == session_zone
