"""What the benchmark of whole runs says of memory, and how it keeps what it measured."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.results import keep
from benchmarks.run import run
from tallyhouse.publish.phases import Phases

AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_memory_is_that_of_a_process_and_of_all_it_started() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        while len(run.family(child.pid)) < 2:
            assert child.poll() is None
        found = run.family(os.getpid())
        assert {os.getpid(), child.pid, *run.family(child.pid)} <= set(found)
        assert run.held(os.getpid()) > 1
    finally:
        child.communicate(b"\n", timeout=60)
    assert run.held(child.pid) == 0


def test_the_peak_of_a_part_is_that_of_its_time() -> None:
    memory = run.Memory(1)
    memory.samples = [(AT + timedelta(seconds=second), mb) for second, mb in ((0, 9.0), (2, 3.0), (4, 5.4))]
    assert memory.peak(AT + timedelta(seconds=1), AT + timedelta(seconds=5)) == 5
    assert memory.peak(AT + timedelta(seconds=2.5), AT + timedelta(seconds=3)) == 3
    assert memory.peak(None, None) == 0


def test_a_case_replaces_what_was_measured_of_it_before(tmp_path: Path) -> None:
    file = tmp_path / "build" / "bench-run.json"
    full, day = ({"case": case, "part": "total", "seconds": 2.5, "peak_mb": 7} for case in ("full", "day"))
    keep(file, [full])
    keep(file, [day])
    keep(file, [full | {"seconds": 1.0}])
    assert json.loads(file.read_text()) == [day, full | {"seconds": 1.0}]


def test_the_phases_of_a_publish_are_those_of_its_log() -> None:
    phases = Phases()
    for phase in ("stage", "check marts", "stage"):
        with phases(phase):
            pass
    log = [{"event": "run r is in ClickHouse"}, {"event": f"techmarket-20260101T000000-0a1b: {phases}"}, {}]
    assert list(run.phases(log)) == ["stage", "check marts", "rest"]
    assert run.phases([{"event": "x: stage 1.50 s, rest 0.25 s"}]) == {"stage": 1.5, "rest": 0.25}
    assert run.phases(log[:1]) == {}
