"""What waits for the lake keeps its order, and little of it is held in memory."""

import threading
import time
from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyhouse.extract.backlog import Backlog


def batch(number: int, size: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"n": [number], "text": [b"x" * size]})


def of_backlogs() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "backlog"]


def ended() -> bool:
    deadline = time.monotonic() + 10
    while of_backlogs() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not of_backlogs()


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(0, 3_000), max_size=30), memory=st.integers(0, 5_000), data=st.data())
def test_all_batches_come_in_their_order(sizes: list[int], memory: int, data: st.DataObject) -> None:
    backlog = Backlog(iter([batch(number, size) for number, size in enumerate(sizes)]), memory)
    waits = data.draw(st.sets(st.integers(0, 30), max_size=4))
    found = []
    for number, one in enumerate(backlog):
        if number in waits:
            ended()  # all that comes waits here
        found.append((one.column("n")[0].as_py(), len(one.column("text")[0].as_py())))
    assert found == list(enumerate(sizes))
    assert ended()


def test_little_is_held_and_the_file_is_used_again() -> None:
    size, first, later = 100_000, 20, 10
    taken = threading.Semaphore(first)

    def source() -> Iterator[pa.RecordBatch]:
        for one in range(first + 1 + later):
            taken.acquire()
            yield batch(one, size)

    backlog = Backlog(source(), 3 * size)
    batches = iter(backlog)
    next(batches)
    deadline = time.monotonic() + 10
    while len(backlog._waiting) < first - 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert backlog._held <= 3 * size
    half = backlog._end
    assert half > 12 * size
    for _ in range(first - 1):
        next(batches)
    # Whoever waits for a batch when the file holds none lets it begin anew.
    taken.release()
    next(batches)
    taken.release(later)
    assert sum(1 for _ in batches) == later
    assert backlog._end <= half


def test_what_the_source_raises_comes_after_its_batches() -> None:
    def source() -> Iterator[pa.RecordBatch]:
        yield batch(1, 10)
        yield batch(2, 10)
        raise RuntimeError("gone away")

    found = []
    with pytest.raises(RuntimeError, match="gone away"):
        for one in Backlog(source(), 0):
            found.append(one.num_rows)
    assert found == [1, 1]


def test_who_stops_reading_leaves_nothing_behind() -> None:
    backlog = Backlog((batch(number, 1_000) for number in range(1_000)), 0)
    batches = iter(backlog)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert ended()
    assert backlog._file.closed
