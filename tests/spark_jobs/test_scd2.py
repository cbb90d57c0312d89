"""Versions: intervals partition time, keys follow from what they are made of."""

from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_jobs.scd2 import OPEN_FUTURE, OPEN_PAST, assign, versions
from tests.spark_jobs.frames import surrogate

START = datetime(2026, 1, 1, tzinfo=UTC)
PAST, FUTURE = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (OPEN_PAST, OPEN_FUTURE))
SCHEMA = "member string, colour string, version_at timestamp"
moments = st.integers(0, 8).map(lambda n: START + timedelta(hours=n, microseconds=n))
members = st.sampled_from("abcdefghijkl")
histories = st.dictionaries(
    members, st.dictionaries(moments, st.sampled_from(["red", "blue"]), max_size=5), max_size=12
)
states = st.dictionaries(
    members, st.tuples(st.sampled_from(["red", "blue"]), moments), min_size=1, max_size=12
)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories, current=states, events=st.lists(st.tuples(members, moments), max_size=20))
def test_versions_partition_time(spark: SparkSession, history: dict, current: dict, events: list) -> None:
    now = spark.createDataFrame([(m, colour, at) for m, (colour, at) in current.items()], SCHEMA)
    before = [(m, c, at) for m, known in history.items() if m in current for at, c in known.items()]
    rows = versions(
        now,
        spark.createDataFrame(before, SCHEMA).withColumn("valid_to", F.lit(OPEN_FUTURE).cast("timestamp"))
        if before
        else None,
        natural_key="member",
        surrogate="key",
        source="s.t",
    ).persist()
    found: dict[str, list] = {}
    for row in sorted(rows.collect(), key=lambda row: row.version_at):
        found.setdefault(row.member, []).append(row)
    assert set(found) == set(current)
    for member, known in found.items():
        assert known[0].valid_from.astimezone(UTC) == PAST
        assert known[-1].valid_to.astimezone(UTC) == FUTURE
        assert [row.valid_to for row in known[:-1]] == [row.valid_from for row in known[1:]]
        assert all(row.valid_from < row.valid_to for row in known)
        assert [row.is_current for row in known] == [False] * (len(known) - 1) + [True]
        assert (
            known[-1].colour == current[member][0]
            or known[-1].version_at.astimezone(UTC) > current[member][1]
        )
        for row in known:
            at = row.version_at.astimezone(UTC)
            assert row.key == surrogate(f"s.t|{member}|{at:%Y-%m-%d %H:%M:%S.%f}")
        assert set(history.get(member, {})) <= {row.version_at.astimezone(UTC) for row in known}

    # Nothing is new when the same state comes again.
    again = versions(
        now,
        rows.select("member", "colour", "version_at", "valid_to"),
        natural_key="member",
        surrogate="key",
        source="s.t",
    )
    assert sorted(row.key for row in again.collect()) == sorted(row.key for row in rows.collect())

    # Each event points at the one version whose interval holds it.
    facts = spark.createDataFrame(
        [(n, m, at) for n, (m, at) in enumerate(events)], "n int, member string, at timestamp"
    )
    pointed = {
        row.n: row.key_there
        for row in assign(facts, rows, natural_key="member", at="at", take={"key": "key_there"}).collect()
    }
    assert set(pointed) == set(range(len(events)))
    for number, (member, at) in enumerate(events):
        holding = [
            r.key
            for r in found.get(member, [])
            if r.valid_from.astimezone(UTC) <= at < r.valid_to.astimezone(UTC)
        ]
        assert [pointed[number]] == (holding or [-1])
    rows.unpersist()
