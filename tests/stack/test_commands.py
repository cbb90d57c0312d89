"""What the commands tell the person who types them."""

import os
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from scripts.stack.context import Stack, StackError
from scripts.stack.lifecycle import check_ports
from scripts.stack.night import Night, Task
from scripts.stack.service import Service
from scripts.stack.supervise import Supervisor
from tallyhouse.settings import ROOT


def test_a_busy_port_is_one_line_with_who_and_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError) as raised:
            check_ports([Service("postgres", "postgres", {"POSTGRES_PORT": port})])
    said = str(raised.value)
    assert re.fullmatch(
        rf"postgres: port {port} is taken by pid \d+ \(.+\); stop it, or set POSTGRES_PORT in \.env", said
    )


def test_a_free_port_is_no_trouble() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    check_ports([Service("postgres", "postgres", {"POSTGRES_PORT": port})])


def test_bare_make_lists_every_target_by_group() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    groups = re.split(r"^(?=\S)", said, flags=re.MULTILINE)
    assert [group.splitlines()[0] for group in groups if group.strip()] == [
        "The whole way",
        "The stack",
        "Data",
        "Quality",
    ]
    targets = set(re.findall(r"^([a-z-]+)(?: [a-z-]+)*:", (ROOT / "Makefile").read_text(), re.MULTILINE))
    listed = set(re.findall(r"^  ([a-z-]+) ", said, re.MULTILINE))
    assert targets - {"help"} == listed - {"help"}


def test_an_unknown_service_is_told_the_known_ones() -> None:
    done = stack("logs", "postgresql")
    assert done.returncode == 1
    assert "no service is called postgresql; there are mysql-auth" in " ".join(done.stdout.split())


@pytest.mark.integration
def test_clean_refuses_while_the_stack_runs() -> None:
    assert Supervisor(Stack()).alive()  # or this test would remove somebody's data
    done = stack("clean")
    assert done.returncode == 1
    assert "it runs; 'make stop' first" in done.stdout
    assert stack("status").returncode == 0


@pytest.mark.integration
def test_a_second_start_finds_everything_running() -> None:
    before = pids()
    done = stack("start")
    assert done.returncode == 0, done.stdout
    assert pids() == before


def test_time_in_which_no_task_ran_is_airflows() -> None:
    def task(began: int, ended: int) -> Task:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        times = (at + timedelta(seconds=began), at + timedelta(seconds=ended))
        return Task("a_nightly", "r", "t", -1, "success", 1, *times)

    night = Night(tasks=[task(0, 4), task(1, 2), task(6, 8), task(7, 9)])
    assert night.waiting() == pytest.approx(2)
    assert Night().waiting() == 0


def pids() -> dict[str, int]:
    return {name: row["pid"] for name, row in Supervisor(Stack()).states().items()}


def stack(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.stack", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'include'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
