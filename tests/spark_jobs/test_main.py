"""What a job says when it refuses its input."""

import pytest

from spark_jobs.main import run_job
from tallyhouse.errors import TallyhouseError


def refuse(subject: str, run_id: str) -> None:
    raise TallyhouseError("no rows", where=f"{subject} in run {run_id}", remedy="Try again.")


def test_one_line_for_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["job", "--subject", "pancake", "--run-id", "r1"])
    with pytest.raises(SystemExit) as ended:
        run_job(refuse)
    assert ended.value.code == "TALLYHOUSE: pancake in run r1: no rows. Try again."


def test_what_is_not_foreseen_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(subject: str, run_id: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sys.argv", ["job", "--subject", "pancake", "--run-id", "r1"])
    with pytest.raises(ZeroDivisionError):
        run_job(broken)


def test_the_run_must_be_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["job", "--subject", "pancake"])
    with pytest.raises(SystemExit):
        run_job(refuse)
    assert "--run-id" in capsys.readouterr().err
