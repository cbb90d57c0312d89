import multiprocessing
import sqlite3
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.pipeline_info import compact
from services.pipeline_info.backends.jsonl import JsonlPipelineRepository
from services.pipeline_info.models import PipelineInfo, RunFilter
from services.pipeline_info.repository import NewRun, Result

START = datetime(2026, 1, 1, tzinfo=UTC)
ALL = RunFilter()


def ids(repository: JsonlPipelineRepository) -> list[str]:
    return [run.id for batch in repository.iter_pipeline_info(ALL) for run in batch]


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


def filled(file: Path, count: int = 60) -> JsonlPipelineRepository:
    repository = JsonlPipelineRepository(file, rotate_bytes=4096)
    for number in range(count):
        start = START + timedelta(seconds=number)
        repository.insert_pipeline_info(PipelineInfo(start_utc=start), idempotency_key=str(number))
    return repository


def segments(file: Path) -> list[str]:
    return sorted(path.name for path in file.parent.glob("runs*.jsonl"))


def test_a_full_file_is_followed_by_the_next(file: Path):
    repository = filled(file)
    assert len(segments(file)) > 3
    assert {"runs.jsonl", "runs.00001.jsonl"} <= set(segments(file))
    assert all((file.parent / name).stat().st_size < 2 * 4096 for name in segments(file))
    assert len(ids(repository)) == 60
    again = JsonlPipelineRepository(file, rotate_bytes=4096)
    assert ids(again) == ids(repository)
    again_inserted = again.insert_pipeline_info(PipelineInfo(start_utc=START), idempotency_key="0")
    assert again_inserted.result == Result.REPLAYED


@pytest.mark.parametrize("harm", ["removed", "garbage", "other version", "cut"])
def test_the_index_is_made_again_from_the_files(file: Path, harm: str):
    repository = filled(file)
    expected, summaries = ids(repository), repository.get_pipelines_summary()
    repository.close()
    index = file.with_name("runs.jsonl.index")
    for suffix in ("-wal", "-shm"):
        index.with_name(index.name + suffix).unlink(missing_ok=True)
    if harm == "removed":
        index.unlink()
    elif harm == "garbage":
        index.write_bytes(b"no database" * 1000)
    elif harm == "cut":
        index.write_bytes(index.read_bytes()[:100])
    else:
        with sqlite3.connect(index) as db:
            db.execute("PRAGMA user_version = 99")
    again = JsonlPipelineRepository(file)
    assert ids(again) == expected
    assert again.get_pipelines_summary() == summaries


def test_an_append_that_was_not_indexed_is_found(file: Path):
    """What a process that died between the file and the index leaves."""
    repository = filled(file, 3)
    index = file.with_name("runs.jsonl.index")
    repository.close()
    before = index.read_bytes()
    repository.insert_pipeline_info(PipelineInfo(start_utc=START), idempotency_key="late")
    repository.close()
    index.write_bytes(before)
    again = JsonlPipelineRepository(file)
    assert again.count_pipeline_info(ALL) == 4
    late = again.insert_pipeline_info(PipelineInfo(start_utc=START), idempotency_key="late")
    assert late.result == Result.REPLAYED


def test_compaction_leaves_out_what_is_no_run_and_nothing_else(file: Path):
    repository = filled(file)
    reader = JsonlPipelineRepository(file)
    expected = ids(reader)
    first = file.read_bytes().splitlines(keepends=True)
    edited = file.with_name("edited")
    edited.write_bytes(b"broken\n" + b"".join(first) + first[0] + b"half a line")
    edited.rename(file)
    assert repository.corrupt_records() == 1
    assert repository.compact() == 3
    assert repository.corrupt_records() == 0
    assert "runs.00000.g1.jsonl" in segments(file)
    assert "runs.jsonl" not in segments(file)
    assert len((file.parent / "runs.jsonl.rejected").read_bytes().splitlines()) == 3
    assert ids(repository) == ids(reader) == expected
    assert repository.compact() == 0
    repository.insert_pipeline_info(PipelineInfo(start_utc=START))
    assert len(ids(reader)) == 61


def test_a_killed_compaction_leaves_no_run_twice(file: Path):
    repository = filled(file)
    expected = ids(repository)
    # Killed after the new generation was named and before the old one was removed.
    (file.parent / "runs.00000.g1.jsonl").write_bytes(file.read_bytes())
    (file.parent / "runs.00002.g1.jsonl.making").write_bytes(b"half")
    again = JsonlPipelineRepository(file)
    assert ids(again) == expected
    assert again.compact() == 0
    assert "runs.jsonl" not in segments(file)
    assert ids(again) == ids(repository) == expected


def test_a_reader_goes_on_while_another_compacts(file: Path):
    writer = filled(file, 200)
    reader = JsonlPipelineRepository(file)
    expected = ids(reader)
    stop = threading.Event()
    failed: list[Exception] = []

    def read() -> None:
        while not stop.is_set():
            try:
                if ids(reader) != expected:
                    raise AssertionError("runs are missing")
            except Exception as error:
                failed.append(error)
                return

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(5):
        name = segments(file)[0]
        with (file.parent / name).open("ab") as stream:
            stream.write(b"broken %d\n" % number)
        writer.compact()
    stop.set()
    thread.join(60)
    assert failed == []


def test_many_runs_are_found_without_reading_all(file: Path):
    repository = JsonlPipelineRepository(file)
    for batch in range(4):
        repository.insert_many(
            [NewRun(PipelineInfo(start_utc=START + timedelta(seconds=batch * 5000 + n))) for n in range(5000)]
        )
    repository.close()
    again = JsonlPipelineRepository(file)
    started = time.perf_counter()
    assert len(again.get_pipeline_info(ALL, limit=10)) == 10
    assert again.get_pipelines_summary()[0].total_runs == 20_000
    assert time.perf_counter() - started < 0.5


def test_the_command_compacts_the_files_of_the_settings(file: Path, monkeypatch, capsys):
    monkeypatch.setenv("PIPELINE_INFO_BACKEND", "jsonl")
    monkeypatch.setenv("PIPELINE_INFO_FILE", str(file))
    assert compact.main() == 0
    filled(file)
    with file.open("ab") as stream:
        stream.write(b"broken\n")
    assert compact.main() == 0
    assert "1 lines were put aside" in capsys.readouterr().out
    monkeypatch.setenv("PIPELINE_INFO_BACKEND", "duckdb")
    assert compact.main() == 2
