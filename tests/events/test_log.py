"""What the log's entries amount to: which files a partition has, and which one is written again."""

from tallyhouse.events.log import SMALL_BYTES, Commit, File, State

FOLDER = "event_type=order/day=2026-01-02"


def file(number: int, rows: int, size: int = 10) -> File:
    return File(f"curated/{FOLDER}/part-{number:05d}.parquet", rows, size, "aside")


def commit(version: int, *files: File) -> Commit:
    return Commit(version, f"run-{version}", files, (), "objects", ())


def test_before_the_first_entry_there_is_nothing() -> None:
    state = State.of([])
    assert (state.version, state.partitions, state.tail(FOLDER)) == (0, {}, None)


def test_a_file_that_was_written_again_counts_as_it_is_now() -> None:
    state = State.of([commit(1, file(0, 3)), commit(2, file(0, 5))])
    assert state.version == 2
    assert [one.rows for one in state.partitions[FOLDER]] == [5]


def test_only_a_last_file_that_is_small_is_written_again() -> None:
    full = SMALL_BYTES
    assert State.of([commit(1, file(0, 3, full))]).tail(FOLDER) is None
    state = State.of([commit(1, file(0, 3, full), file(1, 2))])
    assert state.tail(FOLDER) == file(1, 2)
    # A small one before the last is left alone: readers must never see its rows twice.
    state = State.of([commit(1, file(0, 3)), commit(2, file(1, 2, full))])
    assert state.tail(FOLDER) is None


def test_an_entry_is_read_as_it_was_written() -> None:
    entry = commit(7, file(0, 3))
    as_json = vars(entry) | {"files": [vars(one) for one in entry.files]}
    assert Commit.from_json(as_json) == entry
