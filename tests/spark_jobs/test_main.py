"""What a job says when it refuses its input, and what it leaves in the lake."""

from pathlib import Path

import pytest

from spark_jobs.main import run_job
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake
from tallyhouse.lake.outcome import Outcome


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("LAKE_BASE", tmp_path.as_uri())
    command = ["job", "--pipeline", "pancake", "--run-id", "r1", "--attempt", "a1"]
    monkeypatch.setattr("sys.argv", command)
    return Lake.local(str(tmp_path))


def refuse(pipeline: str, run_id: str) -> None:
    raise TallyhouseError("no rows", where=f"{pipeline} in run {run_id}", remedy="Try again.", transient=True)


def succeed(pipeline: str, run_id: str) -> None:
    pass


def broken(pipeline: str, run_id: str) -> None:
    raise ZeroDivisionError("one\ntwo")


def test_one_line_for_a_person(lake: Lake) -> None:
    with pytest.raises(SystemExit) as ended:
        run_job(refuse)
    assert ended.value.code == "pancake in run r1: no rows. Try again."
    assert Outcome.read(lake, "pancake", "r1", "refuse", "a1") == Outcome(
        "a1", success=False, message=ended.value.code, foreseen=True, transient=True
    )


def test_what_is_not_foreseen_keeps_its_traceback(lake: Lake) -> None:
    with pytest.raises(ZeroDivisionError):
        run_job(broken)
    assert Outcome.read(lake, "pancake", "r1", "broken", "a1") == Outcome(
        "a1", success=False, message="ZeroDivisionError: one", foreseen=False, transient=False
    )


def test_success_is_said_too(lake: Lake) -> None:
    run_job(succeed)
    assert Outcome.read(lake, "pancake", "r1", "succeed", "a1") == Outcome("a1", success=True)


def test_the_outcome_of_another_attempt_is_not_this_ones(lake: Lake) -> None:
    run_job(succeed)
    assert Outcome.read(lake, "pancake", "r1", "succeed", "a2") is None
    assert Outcome.read(lake, "pancake", "r1", "transform", "a1") is None


def test_a_job_whose_lake_is_gone_still_says_why(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("LAKE_BASE")
    monkeypatch.delenv("LAKE_ENDPOINT", raising=False)
    with pytest.raises(SystemExit) as ended:
        run_job(refuse)
    assert ended.value.code == "pancake in run r1: no rows. Try again."
    assert "the outcome was not written" in caplog.text


def test_the_run_must_be_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["job", "--pipeline", "pancake"])
    with pytest.raises(SystemExit):
        run_job(refuse)
    assert "--run-id" in capsys.readouterr().err
