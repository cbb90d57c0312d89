"""Measures whole runs and publishing, beside COPY of the same rows.

    python -m benchmarks.publish.run                  # 1,000,000 rows
    python -m benchmarks.publish.run --rows 10000000

on a stack of its own in `.local/bench/publish`. The cases, added to `build/bench.json`:

- `publish-postgres`: the task that publishes the first run of the pancake pipeline into PostgreSQL: so many
  rows of a table, a dimension and a fact. Floor: COPY of the same rows into tables with the same keys and
  indexes;
- `publish-clickhouse`: the task that brings its models into ClickHouse, start and comparisons included;
- `run-full`: the first run of TechMarket with about so many rows in all; `run-1pct`: two business days later,
  about one row in a hundred; `run-none`: nothing changed, so what it takes is what every run costs.

A run's `phases` are its tasks, and within the publishing tasks what their log says. What of these compares
rows is its `verification`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from psycopg import sql
from rich.table import Table

from benchmarks.results import keep
from benchmarks.run.run import measure, start_anew
from scripts.stack import lifecycle, readiness
from scripts.stack.context import Stack, StackError, console
from scripts.stack.demo import tool

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "build" / "bench.json"
PORT_OFFSET = "22000"
FOLDER = ".local/bench/publish"
PANCAKE, TECHMARKET = "pancake_nightly", "techmarket_nightly"
FILLED = (("ods", "pancakes"), ("dwh", "dim_pancake"), ("dwh", "fact_pancake_rating"))
"""What a run of the pancake pipeline fills in PostgreSQL."""
PUBLISHING = {"publish.warehouse": "publish-postgres", "publish.clickhouse": "publish-clickhouse"}
VERIFICATION = {"deletes", "checks", "compare", "digest", "check marts"}
ROUNDS = 3

type Row = dict[str, Any]


def fill(stack: Stack, rows: int) -> None:
    """Puts rows into the shop's table."""
    with readiness.postgres_connection(stack.settings, stack.settings.pancake_db) as connection:
        connection.execute(
            "INSERT INTO pancakes "
            "(name, fluffiness_level, syrup_type, is_buttery, magical_factor, created_at, taste_notes) "
            "SELECT 'pancake ' || n, 1 + n % 10, (ARRAY['maple', 'honey', 'none'])[1 + n % 3], n % 2 = 0, "
            "n % 70000 / 7.0, '2026-01-01'::timestamptz + n * interval '1 second', "
            f"nullif('note ' || n % 40, 'note 0') FROM generate_series(1, {rows:d}) AS n"
        )


def run(stack: Stack, case: str, dag_id: str, rows: int) -> Row:
    """Runs a pipeline once; its seconds, and where they went."""
    *parts, total = measure(stack, case, [dag_id])
    phases = {part["part"]: part["seconds"] for part in parts}
    compared = [phases[part] for part in phases if part.partition(": ")[2] in VERIFICATION]
    return {
        **{"case": case, "subject": "tallyhouse", "rows": rows, "seconds": total["seconds"]},
        **{"peak_mb": total["peak_mb"], "phases": phases, "verification": round(sum(compared), 2)},
    }


def copy_floor(stack: Stack, rows: int) -> Row:
    """COPY of what a run brought into tables with the same keys and indexes; the median of some rounds."""
    seconds = []
    with readiness.postgres_connection(stack.settings, stack.settings.dwh_db) as connection:
        for schema, table in FILLED:
            names = {
                "live": sql.Identifier(schema, table),
                "floor": sql.Identifier("staging", f"{table}_floor"),
            }
            connection.execute(sql.SQL("CREATE TABLE {floor} (LIKE {live} INCLUDING ALL)").format(**names))
        for _ in range(ROUNDS):
            took = 0.0
            for schema, table in FILLED:
                file = stack.run / f"{table}.copy"
                with connection.cursor() as cursor:
                    if not file.exists():
                        out = sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(schema, table))
                        with cursor.copy(out) as blocks, file.open("wb") as sink:
                            for block in blocks:
                                sink.write(block)
                    floor = sql.Identifier("staging", f"{table}_floor")
                    cursor.execute(sql.SQL("TRUNCATE {}").format(floor))
                    connection.commit()
                    began = time.perf_counter()
                    with (
                        cursor.copy(sql.SQL("COPY {} FROM STDIN").format(floor)) as copy,
                        file.open("rb") as source,
                    ):
                        while block := source.read(1 << 18):
                            copy.write(block)
                    connection.commit()
                    took += time.perf_counter() - began
            seconds.append(took)
    middle = round(statistics.median(seconds), 2)
    return {"case": "publish-postgres", "subject": "floor", "rows": rows, "seconds": middle, "peak_mb": 0}


def cases(stack: Stack, rows: int) -> list[Row]:
    """Every case, on a stack that is started for them."""
    start_anew(stack)
    with console.status(f"{rows:,} pancakes"):
        fill(stack, rows)
    pancakes = run(stack, "publish", PANCAKE, rows)
    found = [
        {**pancakes, "case": case, "seconds": pancakes["phases"][task], "phases": {}}
        for task, case in PUBLISHING.items()
    ]
    found.append(copy_floor(stack, rows))
    with console.status(f"TechMarket, about {rows:,} rows"):
        tool(stack, "techmarket", "data", "--replace", "--scale", str(rows / 1_000_000))
    found.append(run(stack, "run-full", TECHMARKET, rows))
    for _ in range(2):
        tool(stack, "techmarket", "day")
    return [*found, *(run(stack, case, TECHMARKET, rows) for case in ("run-1pct", "run-none"))]


def show(found: list[Row]) -> None:
    """Prints the runs phase by phase, and the ratios that are asked for."""
    runs = {row["case"]: row for row in found if row.get("phases")}
    table = Table("phase", *runs, box=None, header_style="bold", pad_edge=False)
    for phase in runs["run-full"]["phases"]:
        table.add_row(phase, *(f"{one['phases'].get(phase, 0):.1f}" for one in runs.values()))
    table.add_row("all", *(f"{one['seconds']:.1f}" for one in runs.values()))
    table.add_row("of it verification", *(f"{one['verification']:.1f}" for one in runs.values()))
    console.print(table)
    by = {(row["case"], row["subject"]): row for row in found}
    ours, floor = (by["publish-postgres", one]["seconds"] for one in ("tallyhouse", "floor"))
    console.print(f"publish-postgres: {ours:.1f} s, {ours / floor:.2f}x COPY ({floor:.1f} s)")
    clickhouse = by["publish-clickhouse", "tallyhouse"]
    console.print(f"publish-clickhouse: {clickhouse['rows'] / clickhouse['seconds']:,.0f} rows/s")
    full, part, none = (
        runs[case]["seconds"] - runs[case]["verification"] for case in ("run-full", "run-1pct", "run-none")
    )
    share = (part - none) / (full - none)
    console.print(f"run-1pct without verification and what every run costs: {share:.1%} of run-full")


def main() -> int:
    """Runs the cases.

    Returns:
        0 when every run's ledger closed.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    os.environ["PORT_OFFSET"] = os.environ.get("BENCH_PORT_OFFSET", PORT_OFFSET)
    os.environ["TALLYHOUSE_LOCAL"] = os.environ.get("BENCH_LOCAL", FOLDER)
    stack = Stack()
    try:
        found = cases(stack, arguments.rows)
    except StackError as error:
        console.print(f"[red]bench-publish[/]: {error}", soft_wrap=True)
        return 1
    finally:
        lifecycle.stop(stack)
    keep(RESULT, found)
    show(found)
    console.print(f"added to {RESULT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
