"""What the commands tell the person who types them."""

import argparse
import os
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from scripts.stack.cli import conf, run, status
from scripts.stack.cli import options as options_of
from scripts.stack.context import Stack, StackError
from scripts.stack.dag_runs import DagRuns, Task
from scripts.stack.lifecycle import check_ports, chosen
from scripts.stack.provision import steps
from scripts.stack.service import Service
from scripts.stack.services import services
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
        "The Kaggle data API",
        "Compose and Kubernetes",
        "Quality",
    ]
    targets = set(
        re.findall(r"^([a-z0-9-]+)(?: [a-z0-9-]+)*:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )
    listed = set(re.findall(r"^  ([a-z0-9-]+) ", said, re.MULTILINE))
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
def test_status_shows_addresses_and_is_content_when_what_was_asked_for_runs() -> None:
    done = stack("status")
    assert done.returncode == 0, done.stdout
    assert Stack().settings.airflow_url in done.stdout
    assert "asked for: nightly" in done.stdout
    assert 'make status ARGS="--logins"' in done.stdout
    assert Stack().secrets["AIRFLOW_ADMIN_PASSWORD"] not in done.stdout
    assert Stack().secrets["AIRFLOW_ADMIN_PASSWORD"] in stack("status", "--logins").stdout


def test_a_part_of_the_stack_is_whole_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Events bring PostgreSQL, MinIO and ClickHouse: the nightly job is not asked for by that."""
    monkeypatch.setenv("TALLYHOUSE_LOCAL", str(tmp_path))
    mine = Stack()
    mine.make_folders()
    (mine.run / "groups.json").write_text('["events"]')
    wanted = chosen(services(mine), steps(mine), ["events"])[0]
    states = {one.name: {"statename": "RUNNING", "pid": 0} for one in wanted}
    monkeypatch.setattr(Supervisor, "states", lambda _: states)
    assert status(mine, argparse.Namespace(logins=False)) == 0
    states["kafka"]["statename"] = "FATAL"
    assert status(mine, argparse.Namespace(logins=False)) == 3
    assert "not running: kafka" in capsys.readouterr().out


def test_nothing_started_is_said_so() -> None:
    done = stack("status", TALLYHOUSE_LOCAL=".local/nothing-here")
    assert done.returncode == 3
    assert "nothing was started; 'make start'" in done.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {}),
        (["--full-refresh"], {"full_refresh": True}),
        (["--tables", "orders, order_items"], {"tables": ["orders", "order_items"]}),
        (["--limit", "3", "--conf", '{"limit": 9, "x": 1}'], {"limit": 3, "x": 1}),
    ],
)
def test_options_of_a_run_are_its_parameters(options: list[str], expected: dict[str, Any]) -> None:
    parser = argparse.ArgumentParser()
    options_of(run, parser)
    assert conf(parser.parse_args(options)) == expected


@pytest.mark.parametrize("wrong", ["{", "[1]"])
def test_parameters_that_are_no_object_are_refused(wrong: str) -> None:
    with pytest.raises(StackError, match="run: --conf is not"):
        conf(argparse.Namespace(conf=wrong))


@pytest.mark.integration
def test_a_run_is_started_followed_and_accounted_for() -> None:
    done = stack("run", "pancake_nightly", "--full-refresh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pancake publish.clickhouse" in done.stdout
    assert re.search(r"ledger closed: \d+ rows, 0 unexplained\n$", done.stdout)


@pytest.mark.integration
def test_a_run_that_takes_no_rows_needs_no_ledger() -> None:
    done = stack("run", "monitor_pipelines")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "monitor_pipelines post_runs" in done.stdout
    assert done.stdout.endswith("done; it takes no rows, so it has no ledger\n")


@pytest.mark.integration
def test_a_dag_that_is_none_is_told_those_that_are() -> None:
    done = stack("run", "nope_nightly")
    assert done.returncode == 1
    assert "no DAG nope_nightly; there are" in done.stdout
    assert "techmarket_nightly" in done.stdout


@pytest.mark.integration
def test_a_ledger_of_no_run_names_the_latest_runs() -> None:
    stack("run", "pancake_nightly")
    command = [sys.executable, "-m", "tallyhouse.ledger", "print", "--run", "nope"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"no run is called nope\. The latest are .*pancake-\d{8}T", done.stderr)


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

    runs = DagRuns(tasks=[task(0, 4), task(1, 2), task(6, 8), task(7, 9)])
    assert runs.waiting() == pytest.approx(2)
    assert DagRuns().waiting() == 0


def pids() -> dict[str, int]:
    return {name: row["pid"] for name, row in Supervisor(Stack()).states().items()}


def stack(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.stack", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'include'}:{ROOT}"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
