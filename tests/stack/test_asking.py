"""Commands that ask write nothing, and a stack finds its tools whoever asks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tallyhouse.settings import ROOT

RENDER = "from scripts.stack.context import Stack; Stack().render()"


def run(home: Path, local: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python with another home, and without what names the tools by itself."""
    implicit = ("JAVA_HOME", "TALLYHOUSE_CACHE", "XDG_CACHE_HOME", "TALLYHOUSE_SPARK_JARS", "DBML2SQL")
    environment = {name: value for name, value in os.environ.items() if name not in implicit}
    environment |= {
        "HOME": str(home),
        "TALLYHOUSE_LOCAL": str(local),
        "PORT_OFFSET": "29000",
        "PYTHONPATH": f"{ROOT / 'include'}:{ROOT}",
        "PATH": f"{home / 'bin'}:/usr/bin:/bin",
    }
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def make_home(folder: Path, *, java: bool) -> Path:
    (folder / ".cache/tallyhouse").mkdir(parents=True)
    if java:
        program = folder / "bin/java"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    return folder


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink()
    }


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    """The folder of a stack that was set up by somebody with a Java and a cache at home."""
    done = run(make_home(tmp_path / "first", java=True), tmp_path / "local", "-c", RENDER)
    assert done.returncode == 0, done.stderr
    return tmp_path / "local"


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("status", "--logins"),
        ("env",),
        ("logs", "postgres"),
        ("sql", "SELECT 1"),
        ("airflow", "version"),
        ("run",),
    ],
    ids=" ".join,
)
def test_a_command_that_asks_writes_nothing(rendered: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    before = files(rendered)
    done = run(make_home(tmp_path / "second", java=False), rendered, "-m", "scripts.stack", *command)
    assert "Traceback" not in done.stderr, done.stderr
    after = {
        name: kept for name, kept in files(rendered).items() if not name.startswith("airflow/airflow.cfg")
    }
    assert after == before
    assert not list((tmp_path / "second" / ".cache/tallyhouse").iterdir())


def test_a_stack_finds_its_tools_under_another_home(rendered: Path, tmp_path: Path) -> None:
    done = run(make_home(tmp_path / "second", java=False), rendered, "-m", "scripts.stack", "env")
    found = dict(re.findall(r"export (\w+)=(.*)", done.stdout))
    first = tmp_path / "first"
    assert found["TALLYHOUSE_SPARK_JARS"].startswith(str(first / ".cache/tallyhouse/spark-"))
    assert found["TALLYHOUSE_CACHE"] == str(first / ".cache/tallyhouse")
    assert found["JAVA_HOME"] == str(first)


def test_a_restart_under_another_home_keeps_the_tools(rendered: Path, tmp_path: Path) -> None:
    before = (rendered / "run/spark/spark-defaults.conf").read_text()
    done = run(make_home(tmp_path / "second", java=True), rendered, "-c", RENDER)
    assert done.returncode == 0, done.stderr
    assert (rendered / "run/spark/spark-defaults.conf").read_text() == before


def test_tools_that_are_gone_are_looked_for_again(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "first/.cache/tallyhouse").rmdir()
    (tmp_path / "first/bin/java").unlink()
    second = make_home(tmp_path / "second", java=True)
    done = run(second, rendered, "-m", "scripts.stack", "env")
    found = dict(re.findall(r"export (\w+)=(.*)", done.stdout))
    assert found["TALLYHOUSE_CACHE"] == str(second / ".cache/tallyhouse")
    assert found["JAVA_HOME"] == str(second)
