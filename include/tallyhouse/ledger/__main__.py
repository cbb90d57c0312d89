"""Prints ledgers: `python -m tallyhouse.ledger print [--run RUN | --last N]`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tallyhouse.ledger import CURRENT, ROWS, VERSIONS, Hop, Line, store
from tallyhouse.servers import warehouse
from tallyhouse.settings import SettingsError, load_settings


def main() -> int:
    """Prints the ledger of runs as tables; the last line says whether they close.

    Returns:
        0 when every line closes, 1 when one does not or there is nothing to print.
    """
    parser = argparse.ArgumentParser(prog="python -m tallyhouse.ledger", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    printing = commands.add_parser("print", help="print the ledger of one run or of the last ones")
    which = printing.add_mutually_exclusive_group()
    which.add_argument("--run", action="append", help="a run's id; may be repeated")
    which.add_argument("--last", type=int, default=1, help="the last N runs of each pipeline (default: 1)")
    printing.add_argument("--json", action="store_true", help="print JSON lines instead of tables")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        with warehouse(settings).connect() as connection:
            runs = _runs(connection, arguments.run, arguments.last)
            unknown = sorted(set(arguments.run or ()) - {run.run_id for run in runs})
            latest = [row[0] for row in connection.execute(_LATEST).fetchall()]
            ledgers = {run: store.read(connection, run.run_id) for run in runs}
    except (SettingsError, psycopg.OperationalError) as error:
        sys.stderr.write(f"ledger: {str(error).splitlines()[0]}. Is the stack up? `make status`\n")
        return 1
    if not latest:
        sys.stderr.write("ledger: no run yet. `make run DAG=techmarket_nightly` makes one\n")
        return 1
    if unknown:
        sys.stderr.write(
            f"ledger: no run is called {', '.join(unknown)}. The latest are {', '.join(latest)}\n"
        )
        return 1
    if arguments.json:
        _print_json(ledgers)
    else:
        _print_tables(ledgers)
    return _verdict(ledgers)


@dataclass(frozen=True, eq=False)
class Run:
    """A run: its id, its pipeline, how far it came, and why no further."""

    run_id: str
    pipeline: str
    status: str
    failure: dict[str, Any] | None


WIDTH: int | None = None
"""Columns to print in; None asks the terminal."""
OF_SOURCES = (Hop.SOURCE_RAW, Hop.RAW_CURATED, Hop.RAW_ACCEPTED, Hop.ACCEPTED_ODS, Hop.SOURCE_ODS)
"""The hops of source tables; models have the others. Side by side all of them would not fit a terminal."""


_HOW_FAR = (
    "CASE WHEN status = 'published' AND missing <> '{}' "
    "THEN 'not in ' || array_to_string(missing, ', ') || ' yet' ELSE status END"
)


_LATEST = "SELECT run_id FROM etl.run ORDER BY started_at DESC LIMIT 5"


def _runs(connection: psycopg.Connection[Any], named: list[str] | None, last: int) -> list[Run]:
    if named:
        rows = connection.execute(
            f"SELECT run_id, pipeline, {_HOW_FAR}, failure FROM etl.run_state "
            "WHERE run_id = ANY(%s) ORDER BY started_at",
            (named,),
        ).fetchall()
    else:
        rows = connection.execute(
            f"SELECT run_id, pipeline, {_HOW_FAR}, failure FROM (SELECT *, row_number() OVER "
            "(PARTITION BY pipeline ORDER BY started_at DESC) AS newest FROM etl.run_state) AS r "
            "WHERE newest <= %s ORDER BY started_at",
            (last,),
        ).fetchall()
    return [Run(*row) for row in rows]


def _print_tables(ledgers: dict[Run, list[Line]]) -> None:
    console = Console(width=WIDTH or (None if sys.stdout.isatty() else 120))
    for run, lines in ledgers.items():
        console.print(Text(f"{run.run_id}: {run.status}", style="bold"))
        if run.failure:
            _print_failure(console, run.failure)
        for title, of_sources in (("source table", True), ("model", False)):
            rows = [line for line in lines if line.measure == ROWS and (line.hop in OF_SOURCES) is of_sources]
            by_table: dict[str, dict[str, Line]] = {}
            for line in rows:
                by_table.setdefault(line.table, {})[line.hop] = line
            if not by_table:
                continue
            hops = sorted({line.hop for line in rows}, key=_place)
            table = Table()
            table.add_column(title, no_wrap=True)
            for hop in hops:
                table.add_column(str(hop), justify="right")
            for name, its in by_table.items():
                table.add_row(name, *(_cell(its.get(hop)) for hop in hops))
            console.print(table)
        totals = [line for line in lines if line.measure != ROWS]
        if totals:
            held = sum(line.closed for line in totals)
            console.print(f"{held} of {len(totals)} control totals and checks hold")
        for said in filter(None, map(_history, lines)):
            console.print(said)
        for line in lines:
            if not line.closed:
                console.print(f"[red]{line.name}: {line.left} != {line.right}[/red]")
        # Lines of one table and hop have the same.
        for key in dict.fromkeys(f"{line.table} {key}" for line in lines for key in line.keys):
            console.print(Text(f"  {key}", style="red"))


def _history(line: Line) -> Text | None:
    """How many versions of a dimension were opened or closed; None where none was."""
    changed = {name: abs(value) for name, value in line.parts.items() if name != "before" and value}
    if line.measure not in (VERSIONS, CURRENT) or not changed:
        return None
    said = ", ".join(f"{value} {name}" for name, value in changed.items())
    return Text(f"{line.table} {line.measure}: {said}")


def _place(hop: str) -> tuple[int, str]:
    """Sorts hops as rows go: up to the models, then each target with its marts."""
    if hop in Hop:
        return (list(Hop).index(Hop(hop)), "")
    left, _, right = hop.partition("=")
    return (len(Hop), f"{left}=" if right == "mart" else right)


def _print_failure(console: Console, failure: dict[str, Any]) -> None:
    """Why a run failed, first of all: what an operator looks for."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold red")
    grid.add_column(overflow="fold")
    count = failure["count"]
    for name, value in (
        ("failed in", failure["task"]),
        ("table", failure["table"]),
        ("rule", failure["rule"]),
        ("rows" if count is None or count >= 0 else "difference", None if count is None else str(count)),
        ("such as", "\n".join(failure["sample"])),
        ("why", failure["message"]),
        ("what to do", failure["remedy"]),
    ):
        if value:
            # Text: a message may hold what Rich takes for markup.
            grid.add_row(name, Text(str(value)))
    console.print(grid)


def _cell(line: Line | None) -> str:
    if line is None:
        return ""
    parts = "\n".join(f"{value} {name}" for name, value in line.parts.items() if value)
    if not line.closed:
        return f"[red]{line.left} != {line.right}[/red]"
    return f"{line.left}" + (f"\n[dim]{parts}[/dim]" if len(line.parts) > 1 and parts else "")


def _print_json(ledgers: dict[Run, list[Line]]) -> None:
    for run, lines in ledgers.items():
        if run.failure:
            sys.stdout.write(
                json.dumps({"run_id": run.run_id, "status": run.status, "failure": run.failure}) + "\n"
            )
        for line in lines:
            content = {
                "run_id": run.run_id,
                "pipeline": run.pipeline,
                "status": run.status,
                "table": line.table,
                "hop": line.hop,
                "measure": line.measure,
                "left": str(line.left),
                "right": str(line.right),
                "parts": {name: str(value) for name, value in line.parts.items()},
                "closed": line.closed,
                "keys": line.keys,
            }
            sys.stdout.write(json.dumps(content) + "\n")


def _verdict(ledgers: dict[Run, list[Line]]) -> int:
    lines = [line for its in ledgers.values() for line in its]
    taken = sum(line.left for line in lines if line.hop is Hop.SOURCE_RAW and line.measure == ROWS)
    unexplained = sum((abs(line.difference) for line in lines if line.measure == ROWS), Decimal(0))
    broken = [line for line in lines if not line.closed]
    unfinished = "; ".join(_unfinished(run) for run in ledgers if run.status != "published")
    if broken:
        sys.stdout.write(
            f"ledger open: {taken} rows, {unexplained} unexplained, {len(broken)} lines do not close"
            + (f"; {unfinished}\n" if unfinished else "\n")
        )
        return 1
    if unfinished:
        sys.stdout.write(f"not done: {unfinished}; {taken} rows taken, every line so far closes\n")
        return 1
    sys.stdout.write(f"ledger closed: {taken} rows, 0 unexplained\n")
    return 0


def _unfinished(run: Run) -> str:
    where = ", ".join(filter(None, (run.failure["task"], run.failure["table"]))) if run.failure else ""
    return f"{run.run_id} is {run.status}" + (f" ({where})" if where else "")


if __name__ == "__main__":
    sys.exit(main())
