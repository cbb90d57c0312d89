"""Measures runs of one large table and their publishing, beside COPY of the same rows.

    python -m benchmarks.publish.run                  # 1,000,000 rows
    python -m benchmarks.publish.run --rows 10000000

on a stack of its own in `.local/bench/publish`: the pancake pipeline, whose table, fact and mart get so many
rows. The cases, added to `build/bench.json`:

- `run-full`: the first run, which takes all rows; `run-1pct`: one row in a hundred has changed; `run-none`:
  none has, so what it takes is what every run costs;
- `publish-postgres`: the task that publishes `run-full` into PostgreSQL. Floor: COPY of the rows of `ods` and
  of the fact that it brought, into tables with the same keys and indexes;
- `publish-clickhouse`: the task that brings them into ClickHouse, its start and its comparisons included.

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

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "build" / "bench.json"
PORT_OFFSET = "22000"
FOLDER = ".local/bench/publish"
DAG = "pancake_nightly"
FILLED = (("ods", "pancakes"), ("dwh", "fact_pancake_rating"))
"""What a run of the pipeline fills in PostgreSQL."""
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
            "n / 7.0, '2026-01-01'::timestamptz + n * interval '1 second', "
            f"nullif('note ' || n % 40, 'note 0') FROM generate_series(1, {rows:d}) AS n"
        )


def change(stack: Stack) -> None:
    """Changes one row in a hundred."""
    with readiness.postgres_connection(stack.settings, stack.settings.pancake_db) as connection:
        connection.execute(
            "UPDATE pancakes SET fluffiness_level = 1 + (fluffiness_level + 3) % 10 WHERE id % 100 = 7"
        )


def run(stack: Stack, case: str, rows: int) -> Row:
    """Runs the pipeline once; its seconds, and where they went."""
    *parts, total = measure(stack, case, [DAG])
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
    full = run(stack, "run-full", rows)
    published = [
        {**full, "case": case, "seconds": full["phases"][task], "phases": {}}
        for task, case in PUBLISHING.items()
    ]
    floor = copy_floor(stack, rows)
    change(stack)
    changed = run(stack, "run-1pct", rows)
    return [full, changed, run(stack, "run-none", rows), floor, *published]


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
