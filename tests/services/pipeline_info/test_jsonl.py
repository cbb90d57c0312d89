import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from services.pipeline_info.backends.jsonl import JsonlPipelineRepository
from services.pipeline_info.models import PipelineInfo, RunFilter

START = datetime(2026, 1, 1, tzinfo=UTC)


def _insert_many(file: Path, worker: int, count: int) -> None:
    repository = JsonlPipelineRepository(file)
    for number in range(count):
        run = PipelineInfo(start_utc=START + timedelta(seconds=number), pipeline_name=f"w{worker}")
        repository.insert_pipeline_info(run)
        shared = PipelineInfo(start_utc=START + timedelta(seconds=number), pipeline_name="shared")
        repository.insert_pipeline_info(shared, idempotency_key=f"shared-{number}")


def test_several_processes_write_one_file(file: Path):
    processes = [
        multiprocessing.get_context("spawn").Process(target=_insert_many, args=(file, worker, 40))
        for worker in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    repository = JsonlPipelineRepository(file)
    assert repository.corrupt_records() == 0
    assert repository.count_pipeline_info(RunFilter()) == 3 * 40 + 40
    assert repository.count_pipeline_info(RunFilter(pipeline_name="shared")) == 40


def test_a_reader_sees_what_another_process_appends_and_replaces(file: Path):
    writer, reader = JsonlPipelineRepository(file), JsonlPipelineRepository(file)
    assert reader.count_pipeline_info(RunFilter()) == 0
    for number in range(3):
        writer.insert_pipeline_info(PipelineInfo(start_utc=START))
        assert reader.count_pipeline_info(RunFilter()) == number + 1
    file.unlink()
    assert reader.count_pipeline_info(RunFilter()) == 0
    writer.insert_pipeline_info(PipelineInfo(start_utc=START))
    assert reader.count_pipeline_info(RunFilter()) == 1


RUNS = st.lists(
    st.builds(
        PipelineInfo,
        start_utc=st.integers(0, 5).map(lambda day: START + timedelta(days=day)),
        pipeline_name=st.sampled_from([None, "a", "b"]),
        environment=st.sampled_from([None, "dev", "prod"]),
        rowcount=st.sampled_from([None, 0, 1, 5]),
    ),
    max_size=12,
)
FILTERS = st.builds(
    RunFilter,
    pipeline_name=st.sampled_from([None, "a", "b", "c"]),
    environment=st.sampled_from([None, "dev", "prod"]),
    date_code=st.sampled_from([None, "20260102"]),
    start_from=st.sampled_from([None, START + timedelta(days=2)]),
    start_before=st.sampled_from([None, START + timedelta(days=4)]),
    min_rowcount=st.sampled_from([None, 0, 1]),
)


@settings(max_examples=60, deadline=None)
@given(runs=RUNS, wanted=FILTERS, data=st.data())
def test_loosening_a_filter_never_shrinks_a_result(runs, wanted, data):
    with TemporaryDirectory() as folder:
        repository = JsonlPipelineRepository(Path(folder) / "runs.jsonl")
        for run in runs:
            repository.insert_pipeline_info(run)
        strict = {run.id for run in repository.get_pipeline_info(wanted)}
        assert len(strict) == repository.count_pipeline_info(wanted)
        dropped = data.draw(st.sampled_from(sorted(RunFilter.model_fields)))
        loose = repository.get_pipeline_info(wanted.model_copy(update={dropped: None}))
        assert strict <= {run.id for run in loose}
        keys = [(run.started, run.id) for run in loose]
        assert keys == sorted(keys, reverse=True)
