"""Measures extraction and loading of one table, in turn with their floors and with dlt, in one run.

    python -m benchmarks.extract.run                  # 1,000,000 rows, three rounds
    python -m benchmarks.extract.run --rows 10000000

on a stack of its own in `.local/bench/extract`, first with MariaDB, then with MySQL. The cases:

- `extract`: the whole table into Parquet in the lake, its rows counted by the source in the same snapshot.
  Floor: the rows over the wire (`mariadb --quick`, COPY) into nothing. Peers: dlt, from the first engine;
- `extract-digest`: the same with the digest, computed by the source and of raw;
- `load`: the Parquet into a table of PostgreSQL that is there. Floor: COPY of the same rows as CSV.

Every measurement is a process of its own. `build/bench.json` is a list of `{case, subject, engine, rows,
seconds, peak_mb}`, medians of the rounds; the table has their ratios to the floor of the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.extract.ours import ACCEPTED, lake_of
from benchmarks.extract.table import NAME, STORE, create_in_postgres, fill
from benchmarks.results import keep
from scripts.stack import environments, lifecycle, readiness
from scripts.stack.context import Stack, StackError, console
from scripts.stack.service import STORES
from scripts.stack.supervise import Supervisor

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "build" / "bench.json"
PORT_OFFSET = "22000"
FOLDER = ".local/bench/extract"
FLOOR, OURS = "floor", "tallyhouse"
_PYTHON = [sys.executable, "-m"]
_PATH = {"PYTHONPATH": f"{ROOT / 'include'}:{ROOT}"}


@dataclass(frozen=True)
class Contender:
    """What is measured.

    Attributes:
        case: `extract`, `extract-digest` or `load`.
        name: `tallyhouse`, `floor`, `dlt-connectorx` or `dlt-pyarrow`.
        engine: Of the table's server.
        command: The process.
        environment: What it is told beside the stack's environment.
        before: What is made ready for it, unmeasured.
    """

    case: str
    name: str
    engine: str
    command: list[str]
    environment: dict[str, str]
    before: Callable[[], None] = lambda: None


def measure(stack: Stack, contender: Contender) -> tuple[float, int, int]:
    """Runs a contender once: its seconds, its rows (0 where it does not say), its peak in MB.

    Raises:
        StackError: It failed.
    """
    contender.before()
    log = stack.logs / "bench-contender.log"
    with log.open("wb") as errors, (stack.run / "bench-contender.out").open("w+b") as out:
        began = time.perf_counter()
        process = subprocess.Popen(
            contender.command,
            cwd=ROOT,
            env=os.environ | stack.environment | contender.environment,
            stdout=out,
            stderr=errors,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said = out.read().decode().strip().splitlines()
    if process.returncode:
        raise StackError(f"{contender.case} {contender.name}: exit {process.returncode}; see {log}")
    answer = json.loads(said[-1]) if said and said[-1].startswith("{") else {}
    return answer.get("seconds", seconds), answer.get("rows", 0), usage.ru_maxrss // 1024


def ours(case: str, engine: str, *arguments: str) -> Contender:
    """The product's own way."""
    return Contender(case, OURS, engine, [*_PYTHON, "benchmarks.extract.ours", *arguments], _PATH)


def wire_floor(stack: Stack, case: str, engine: str) -> Contender:
    """All rows over the wire, into nothing."""
    settings, values = stack.settings, stack.environment
    if engine != "mariadb":
        return Contender(case, FLOOR, engine, [*_PYTHON, "benchmarks.extract.floors", engine], _PATH)
    key = f"MYSQL_{STORE.upper()}"
    client = [
        str(stack.mariadb / "bin/mariadb"),
        *("--no-defaults", f"--host={values[f'{key}_HOST']}", f"--port={values[f'{key}_PORT']}"),
        *(f"--user={settings.etl_reader_user}", "--quick", "--batch", "--default-character-set=utf8mb4"),
        *("-e", f"SELECT * FROM {NAME}", values[f"{key}_DB"]),
    ]
    command = ["sh", "-c", f"exec {shlex.join(client)} > /dev/null"]
    return Contender(case, FLOOR, engine, command, {"MYSQL_PWD": settings.etl_reader_password})


def dlt(stack: Stack, case: str, backend: str) -> Contender:
    """The same by dlt."""
    settings, values = stack.settings, stack.environment
    packages = ROOT / "benchmarks/extract/dlt.txt"
    home = environments.environment(stack, "dlt", packages, "for the comparison, once")
    key = f"MYSQL_{STORE.upper()}"
    source = (
        f"mysql+pymysql://{settings.etl_reader_user}:{settings.etl_reader_password}@"
        f"{values[f'{key}_HOST']}:{values[f'{key}_PORT']}/{values[f'{key}_DB']}"
    )
    login = {"key": settings.minio_root_user, "secret": settings.minio_root_password}
    told = {
        "BENCH_SOURCE": source,
        "BENCH_TABLE": NAME,
        "BENCH_LAKE": json.dumps({"bucket": settings.lake_bucket, "endpoint": settings.minio_url, **login}),
        "BENCH_WAREHOUSE": f"postgresql://{settings.dwh_user}:{settings.dwh_password}@"
        f"{settings.postgres_host}:{settings.postgres_port}/{settings.dwh_db}",
    }
    if case == "load":
        lake = lake_of(settings)
        told["BENCH_PARTS"] = json.dumps([lake.path(part) for part in lake.keys(ACCEPTED)])
    command = [str(home / "bin/python"), str(ROOT / "benchmarks/extract/dlt_own.py"), case, backend]
    engine = "postgres" if case == "load" else "mariadb"
    return Contender(case, f"dlt-{backend}", engine, command, told)


def copy_floor(stack: Stack, csv: Path) -> Contender:
    """COPY of the same rows as CSV."""
    settings = stack.settings

    def empty() -> None:
        with readiness.postgres_connection(settings, settings.dwh_db) as connection:
            connection.execute(f"DROP TABLE IF EXISTS staging.{NAME}_floor")
            create_in_postgres(connection, f"staging.{NAME}_floor", unlogged=True)

    command = [*_PYTHON, "benchmarks.extract.floors", "copy", str(csv)]
    return Contender("load", FLOOR, "postgres", command, _PATH, empty)


def rounds(stack: Stack, contenders: list[Contender], number: int, rows: int) -> list[dict[str, Any]]:
    """Every contender in turn, several times over: the medians.

    Raises:
        StackError: A contender failed, or took other rows than there are.
    """
    seen: dict[tuple[str, str, str], list[tuple[float, int]]] = {}
    for round_ in range(number):
        for contender in contenders:
            seconds, taken, peak = measure(stack, contender)
            if taken not in (0, rows):
                raise StackError(f"{contender.case} {contender.name}: {taken} rows of {rows}")
            seen.setdefault((contender.case, contender.name, contender.engine), []).append((seconds, peak))
            told = f"{contender.case} {contender.engine} {contender.name} {seconds:.2f} s"
            console.print(f"  [dim]round {round_ + 1}[/] {told}")
    return [
        {
            "case": case,
            "subject": name,
            "engine": engine,
            "rows": rows,
            "seconds": round(statistics.median(seconds for seconds, _ in found), 3),
            "peak_mb": max(peak for _, peak in found),
        }
        for (case, name, engine), found in seen.items()
    ]


def show(measured: list[dict[str, Any]]) -> None:
    """Prints the medians with their ratios."""
    floors = {(row["case"], row["engine"]): row["seconds"] for row in measured if row["subject"] == FLOOR}
    table = Table("case", "engine", "subject", box=None, header_style="bold", pad_edge=False)
    for heading in ("seconds", "of the floor", "peak MB"):
        table.add_column(heading, justify="right")
    for row in measured:
        ratio = row["seconds"] / floors[row["case"], row["engine"]]
        table.add_row(
            *(row["case"], row["engine"], row["subject"], f"{row['seconds']:.2f}"),
            *(f"{ratio:.2f}x", f"{row['peak_mb']:,}"),
        )
    console.print(table)


def with_engine(engine: str, rows: int, number: int) -> list[dict[str, Any]]:
    """The cases that need the stack's stores to be of an engine; with MariaDB also PostgreSQL's and dlt's."""
    os.environ["STORES_ENGINE"] = engine
    stack = Stack()
    if Supervisor(stack).alive():  # left by a benchmark that was killed
        lifecycle.stop(stack)
    lifecycle.start(stack, [STORES])
    try:
        engines = [engine, "postgres"] if engine == "mariadb" else [engine]
        contenders = []
        for one in engines:
            with console.status(f"{rows:,} rows in {one}"):
                fill(stack, one, rows)
            contenders += [
                wire_floor(stack, "extract", one),
                ours("extract", one, "extract", one, "count"),
                wire_floor(stack, "extract-digest", one),
                ours("extract-digest", one, "extract", one, "digest"),
            ]
        if engine == "mariadb":
            contenders[2:2] = [dlt(stack, "extract", "connectorx"), dlt(stack, "extract", "pyarrow")]
        measured = rounds(stack, contenders, number, rows)
        if engine == "mariadb":
            csv = stack.run / "bench.csv"
            with (
                readiness.postgres_connection(stack.settings, stack.settings.pancake_db) as connection,
                csv.open("wb") as file,
                connection.cursor().copy(f"COPY {NAME} TO STDOUT (FORMAT csv)") as blocks,
            ):
                for block in blocks:
                    file.write(block)
            measure(stack, ours("load", "postgres", "accept"))
            loads = [
                copy_floor(stack, csv),
                ours("load", "postgres", "load"),
                dlt(stack, "load", "pyarrow"),
            ]
            measured += rounds(stack, loads, number, rows)
        return measured
    finally:
        lifecycle.stop(stack)


def main() -> int:
    """Runs the cases.

    Returns:
        0 when every contender took all rows.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", default="mariadb,mysql", help="of the stores: mariadb, mysql, or both")
    arguments = parser.parse_args()
    os.environ["PORT_OFFSET"] = os.environ.get("BENCH_PORT_OFFSET", PORT_OFFSET)
    os.environ["TALLYHOUSE_LOCAL"] = os.environ.get("BENCH_LOCAL", FOLDER)
    try:
        measured = [
            row
            for engine in arguments.engines.split(",")
            for row in with_engine(engine, arguments.rows, arguments.rounds)
        ]
    except StackError as error:
        console.print(f"[red]bench[/]: {error}", soft_wrap=True)
        return 1
    keep(RESULT, measured)
    show(measured)
    console.print(f"written to {RESULT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
