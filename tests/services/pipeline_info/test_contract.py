"""What every backend has to do, run against each of them."""

import itertools
import threading
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.pipeline_info.models import PipelineInfo, PipelineRun, RunFilter
from services.pipeline_info.repository import NewRun, Outcome, PipelineInfoRepository, Result, StoredRun
from services.pipeline_info.summary import summarise

START = datetime(2026, 1, 30, tzinfo=UTC)
ALL = RunFilter()


def at(hours: float = 0, **fields) -> PipelineInfo:
    return PipelineInfo(start_utc=START + timedelta(hours=hours), **fields)


def everything(store: PipelineInfoRepository, wanted: RunFilter = ALL) -> list[PipelineRun]:
    return [stored.run() for batch in store.iter_pipeline_info(wanted, batch=7) for stored in batch]


def test_an_empty_store_answers(store):
    assert store.get_pipeline_info(ALL, limit=10) == []
    assert store.count_pipeline_info(ALL) == store.count_pipeline_info(ALL, bound=5) == 0
    assert store.get_pipelines_summary() == []
    assert store.get_run("nothing") is None
    assert store.get_run("20260130T000000000000-0123456789ab") is None
    assert everything(store) == []
    assert store.insert_many([]) == []
    assert store.corrupt_records() == 0
    store.ping()


def test_a_run_comes_back_to_the_last_digit(store):
    run = PipelineInfo(
        start_local="2026-01-30T02:00:00.123456+02:00",
        end_local="2026-01-30T01:59:59.999999+00:00",
        elapsed_seconds=0.1 + 0.2,
        rowcount=10**15,
        pid=2**31 - 1,
        pipeline_name='Ім\'я \U0001f95e "quoted" \\ %s ? :1',
        script_name="a\tb\nc",
        pipeline_type="etl",
        environment="dev",
        output_file="x" * 2048,
        log_file="ї" * 2048,
        extra={"b": 1.0, "a": [1e-7, -0.0, None, True, {"": "\u2028"}], "1": 2**53},
    )
    created = store.insert_pipeline_info(run)
    assert created.result == Result.CREATED
    found = store.get_pipeline_info(ALL, limit=10)
    assert found == [created.stored] == [store.get_run(created.stored.id)]
    assert orjson.loads(found[0].doc) == orjson.loads(created.stored.doc)
    assert list(orjson.loads(found[0].doc)["extra"]) == ["b", "a", "1"]
    back = found[0].run()
    assert PipelineInfo.model_validate(back.model_dump(exclude={"id"})) == run
    assert found[0].start_utc == run.start_utc


def test_newest_first_and_pages(store):
    hours = [5, 1, 3, 3, 3, 2, 4]
    for hour in hours:
        store.insert_pipeline_info(at(hour))
    runs = store.get_pipeline_info(ALL, limit=100)
    keys = [(run.start_utc, run.id) for run in runs]
    assert keys == sorted(keys, reverse=True)
    assert len(runs) == len(hours)
    assert store.get_pipeline_info(ALL, limit=2, offset=3) == runs[3:5]
    assert store.get_pipeline_info(ALL, limit=2, offset=70) == []
    for place, run in enumerate(runs):
        assert store.get_pipeline_info(ALL, limit=100, after=run.cursor()) == runs[place + 1 :]
    assert everything(store) == [run.run() for run in runs]
    assert [store.count_pipeline_info(ALL, bound=bound) for bound in (0, 3, 7, 8)] == [0, 3, 7, 7]


def test_runs_of_several_months_and_years(store):
    for days in (0, 1, 2, 31, 365, -30, -4000):
        store.insert_pipeline_info(at(days * 24, pipeline_name="a"))
    assert len(everything(store)) == 7
    assert len(everything(store, RunFilter(start_from=START + timedelta(days=2)))) == 3
    assert len(everything(store, RunFilter(start_before=START))) == 2
    assert store.get_pipelines_summary()[0].total_runs == 7


def test_the_same_key_stores_once(store):
    first = store.insert_pipeline_info(at(rowcount=1), idempotency_key="k")
    again = store.insert_pipeline_info(at(rowcount=1), idempotency_key="k")
    other = store.insert_pipeline_info(at(rowcount=2), idempotency_key="k")
    assert [o.result for o in (first, again, other)] == [Result.CREATED, Result.REPLAYED, Result.CONFLICT]
    assert first.stored == again.stored == other.stored
    assert store.count_pipeline_info(ALL) == 1
    assert store.get_pipelines_summary()[0].total_rowcount == 1


def test_a_batch_has_an_outcome_for_each(store):
    store.insert_pipeline_info(at(rowcount=1), idempotency_key="old")
    store.insert_pipeline_info(at(rowcount=9), idempotency_key="taken")
    outcomes = store.insert_many(
        [
            NewRun(at(1, rowcount=1), "new"),
            NewRun(at(0, rowcount=1), "old"),
            NewRun(at(0, rowcount=2), "old"),
            NewRun(at(1, rowcount=1), "new"),
            NewRun(at(1, rowcount=2), "new"),
            NewRun(at(2)),
            NewRun(at(2)),
            NewRun(at(0, rowcount=1), "taken"),
            NewRun(at(0, rowcount=9), "taken"),
        ]
    )
    assert [outcome.result.value for outcome in outcomes] == [
        *("created", "replayed", "conflict", "replayed", "conflict", "created", "created"),
        *("conflict", "replayed"),
    ]
    assert outcomes[0].stored == outcomes[3].stored
    assert store.count_pipeline_info(ALL) == 5


def test_repeating_an_insert_stores_it_once(store):
    """What a retry after a lost connection does: the same ids again."""
    new = [NewRun(at(1, rowcount=5)), NewRun(at(2, rowcount=5), "k"), NewRun(at(3, rowcount=5))]
    first = store.insert_many(new)
    again = store.insert_many([*new, NewRun(at(4, rowcount=5))])
    assert [outcome.result for outcome in again] == [Result.CREATED] * 4
    assert first == again[:3]
    assert store.count_pipeline_info(ALL) == 4
    assert store.get_pipelines_summary()[0].total_rowcount == 20


def test_two_at_once_with_one_key(open_store):
    outcomes: list[Outcome] = []
    barrier = threading.Barrier(4)

    def post(store: PipelineInfoRepository) -> None:
        barrier.wait()
        for number in range(10):
            keys = [f"{number}-{part}" for part in ("a", "b", "c")]
            ordered = keys if threading.get_ident() % 2 else keys[::-1]
            outcomes.extend(
                store.insert_many([NewRun(at(number, pipeline_name=key), key) for key in ordered])
            )

    stores = [open_store() for _ in range(4)]
    threads = [threading.Thread(target=post, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcomes) == 4 * 30
    assert sum(outcome.result == Result.CREATED for outcome in outcomes) == 30
    assert {outcome.result for outcome in outcomes} == {Result.CREATED, Result.REPLAYED}
    assert stores[0].count_pipeline_info(ALL) == 30
    assert sum(item.total_runs for item in stores[1].get_pipelines_summary()) == 30


def test_a_store_opened_again_has_what_was_stored(open_store):
    first = open_store()
    outcome = first.insert_pipeline_info(at(1), idempotency_key="k")
    first.close()
    second = open_store()
    assert second.get_pipeline_info(ALL, limit=10) == [outcome.stored]
    assert second.insert_pipeline_info(at(1), idempotency_key="k").result == Result.REPLAYED


def test_pages_by_cursor_are_the_whole_set_while_others_insert(open_store):
    reader, writer = open_store(), open_store()
    writer.insert_many([NewRun(at(number / 3)) for number in range(200)])
    before = {run.id for batch in reader.iter_pipeline_info(ALL) for run in batch}
    stop = threading.Event()

    def insert() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            writer.insert_many([NewRun(at((number * 7) % 67 + 0.01)) for _ in range(3)])

    thread = threading.Thread(target=insert)
    thread.start()
    try:
        for _ in range(3):
            seen = [run.id for batch in reader.iter_pipeline_info(ALL, batch=11) for run in batch]
            assert len(seen) == len(set(seen))
            assert before <= set(seen)
    finally:
        stop.set()
        thread.join(30)


def test_pages_reach_every_run_of_one_instant(store):
    store.insert_many([NewRun(at(0, rowcount=number)) for number in range(25)])
    seen = [run.id for batch in store.iter_pipeline_info(ALL, batch=4) for run in batch]
    assert len(seen) == len(set(seen)) == 25


NAMES = st.sampled_from([None, "a", "b", "A", "a'", "ä"])
RUNS = st.lists(
    st.builds(
        PipelineInfo,
        start_utc=st.integers(0, 5).map(lambda day: START + timedelta(days=day)),
        elapsed_seconds=st.sampled_from([None, 0, 0.1, 0.2, 7]),
        pipeline_name=NAMES,
        script_name=st.sampled_from([None, "s.py"]),
        pipeline_type=st.sampled_from([None, "etl", "ml"]),
        environment=st.sampled_from([None, "dev", "prod"]),
        rowcount=st.sampled_from([None, 0, 1, 5, 10**15]),
        extra=st.sampled_from([{}, {"state": "failed"}, {"state": 5}, {"state": "success"}]),
    ),
    max_size=12,
)
FILTERS = st.builds(
    RunFilter,
    pipeline_name=NAMES,
    script_name=st.sampled_from([None, "s.py"]),
    pipeline_type=st.sampled_from([None, "etl"]),
    environment=st.sampled_from([None, "dev", "prod"]),
    date_code=st.sampled_from([None, "20260131"]),
    state=st.sampled_from([None, "failed"]),
    start_from=st.sampled_from([None, START + timedelta(days=2)]),
    start_before=st.sampled_from([None, START + timedelta(days=4)]),
    min_rowcount=st.sampled_from([None, 0, 1]),
    only_environments=st.sampled_from([None, (), ("dev",), ("dev", "prod")]),
    only_pipelines=st.sampled_from([None, None, ("a", "ä")]),
)


@settings(
    max_examples=40,
    deadline=None,
    # The store is kept between the examples: each looks only at what it inserted itself.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(runs=RUNS, wanted=FILTERS, data=st.data())
def test_queries_mean_what_the_model_says(store, runs, wanted, data):
    """The rule that makes backends alike: each answers as a plain loop over the runs does."""
    mine: dict[str, StoredRun] = {
        outcome.stored.id: outcome.stored for outcome in store.insert_many([NewRun(run) for run in runs])
    }

    def ids(condition: RunFilter) -> list[str]:
        found = [run for batch in store.iter_pipeline_info(condition) for run in batch]
        return [run.id for run in found if run.id in mine]

    expected = [run for run in (stored.run() for stored in mine.values()) if wanted.matches(run)]
    expected.sort(key=lambda run: (run.started, run.id), reverse=True)
    assert ids(wanted) == [run.id for run in expected]
    assert store.count_pipeline_info(wanted) == sum(len(b) for b in store.iter_pipeline_info(wanted))
    # Loosening a filter never shrinks its result.
    dropped = data.draw(st.sampled_from(sorted(RunFilter.model_fields)))
    assert set(ids(wanted)) <= set(ids(wanted.model_copy(update={dropped: None})))
    # Summaries are those of all the runs there are.
    summaries, computed = store.get_pipelines_summary(), summarise(everything(store))
    assert len(summaries) == len(computed)
    for kept, fresh in zip(summaries, computed, strict=True):
        inexact = {"average_elapsed_seconds", "average_rowcount"}
        assert kept.model_dump(exclude=inexact) == fresh.model_dump(exclude=inexact)
        assert kept.average_elapsed_seconds == pytest.approx(fresh.average_elapsed_seconds)
        assert kept.average_rowcount == pytest.approx(fresh.average_rowcount)
