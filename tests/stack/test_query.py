"""`make sql`: every database answers, and rows can be read whatever their width."""

import csv
import io
import json
from decimal import Decimal

import pytest
from rich.console import Console

from scripts.stack import query
from scripts.stack.context import Stack, StackError
from tests.stack.test_commands import stack

COLUMNS = ["id", "name", "total"]
ROWS = [("1", "a\tb\nc\\", Decimal("12.50")), ("2", None, Decimal(0))]


def shown(monkeypatch: pytest.MonkeyPatch, rows: query.Rows, form: str = "", width: int = 60) -> str:
    """What a terminal of so many columns shows."""
    said = io.StringIO()
    console = Console(file=said, width=width, force_terminal=True, color_system=None, highlight=False)
    monkeypatch.setattr(query, "console", console)
    monkeypatch.setattr(query, "Console", lambda **kw: Console(file=said, color_system=None, **kw))
    query.show(COLUMNS, rows, form)
    return said.getvalue()


def test_rows_that_fit_are_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(monkeypatch, [("1", "flour", Decimal("12.50")), ("2", None, Decimal(0))])
    assert "│ 1  │ flour │ 12.50 │" in said
    assert "NULL" in said
    assert "2 rows" in said


def test_rows_that_do_not_fit_stand_one_below_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * 90
    said = shown(monkeypatch, [("1", long, None)])
    assert f"name   {long}\n" in said
    assert "total  NULL\n" in said
    assert "row 1 of 1" in said
    assert "│" not in said


def test_a_table_that_is_asked_for_breaks_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "x" * 90 in shown(monkeypatch, [("1", "x" * 90, None)], "table")


def test_a_pipe_gets_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    query.show(COLUMNS, ROWS)
    assert capsys.readouterr().out == "id\tname\ttotal\n1\ta\\tb\\nc\\\\\t12.50\n2\t\\N\t0\n"


def test_csv_and_json_can_be_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    query.show(COLUMNS, ROWS, "csv")
    assert list(csv.reader(io.StringIO(capsys.readouterr().out)))[1:] == [
        ["1", "a\tb\nc\\", "12.50"],
        ["2", "", "0"],
    ]
    query.show(COLUMNS, ROWS, "json")
    assert json.loads(capsys.readouterr().out.splitlines()[1]) == {"id": "2", "name": None, "total": "0"}


def test_what_is_not_there_is_told_what_is() -> None:
    with pytest.raises(StackError, match="no database is called mysql; there are dwh, clickhouse, pancake"):
        query.ask(Stack(), "mysql", "SELECT 1")
    with pytest.raises(StackError, match="no format is called xml; there are table, vertical, tsv, csv"):
        query.show(COLUMNS, ROWS, "xml")


def test_without_a_query_it_shows_how() -> None:
    done = stack("sql", "--on", "dwh", "--format", "", "--", "")
    assert done.returncode == 2
    assert 'make sql ON=clickhouse Q="' in done.stdout
    assert "ON=pancake" in done.stdout


@pytest.mark.integration
@pytest.mark.parametrize("place", query.PLACES)
def test_every_database_answers(place: str) -> None:
    assert query.ask(Stack(), place, "SELECT 1 AS one, NULL AS nothing") == (["one", "nothing"], [(1, None)])


@pytest.mark.integration
@pytest.mark.parametrize("place", query.PLACES)
def test_a_wrong_query_is_one_line(place: str) -> None:
    done = stack("sql", "--on", place, "--", "SELECT nothing FROM nowhere")
    assert done.returncode == 1
    assert f"sql: {place}: " in done.stdout
    assert "nowhere" in done.stdout
    assert "Traceback" not in done.stderr
