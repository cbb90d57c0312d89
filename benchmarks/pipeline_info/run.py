"""Measures pipeline-info on this machine and says whether it keeps what is promised of it.

    python -m benchmarks.pipeline_info.run

takes a PostgreSQL of its own, with the stack's options, in `.local/bench/pipeline_info`, and fills it with
1,000,000 runs when it does not hold them yet; with PIPELINE_INFO_BACKEND (and PIPELINE_INFO_DSN, ...) set, it
takes that store. The service and the load run on the same cores, so what both took is printed beside the
results. Promised: a filtered page of 100 under 50 ms (p95) at 200 requests a second for ten minutes, 5,000
runs a second by bulk inserts, an export of everything in under 100 MB above idle, the first page in a browser
within a second, no error.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import psycopg
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

from benchmarks.pipeline_info import seed
from services.pipeline_info.models import RunFilter
from services.pipeline_info.settings import Settings
from services.pipeline_info.stores import open_store
from tests.services.pipeline_info.conftest import Postgres, chromium

PORT = 8792
URL = f"http://127.0.0.1:{PORT}"
HERE = Path(__file__).parent
DATA = HERE.parents[1] / ".local" / "bench" / "pipeline_info"
CLOCK = os.sysconf("SC_CLK_TCK")
console = Console(width=None if sys.stdout.isatty() else 120)


def memory(pid: int) -> float:
    """Resident memory of a process, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def seconds_of(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK


def seconds_of_store(server: int | None) -> float:
    """Processor time of PostgreSQL and its children, when it is ours."""
    if server is None:
        return 0.0
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(server)], capture_output=True, check=False)
    total = seconds_of(server)
    for child in found.stdout.split():
        with suppress(FileNotFoundError, ProcessLookupError):
            total += seconds_of(int(child))
    return total


def busy() -> float:
    """Processor time that the whole machine has used."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / CLOCK


def load(
    user: str, users: int, seconds: int, service: int, server: int | None
) -> tuple[dict[str, dict[str, str]], str]:
    """Put a load on the service.

    Returns:
        The rows of locust's statistics by name, and who took how much of the processors.
    """
    before, at, all_at = resource.getrusage(resource.RUSAGE_CHILDREN), seconds_of(service), busy()
    store_at, started = seconds_of_store(server), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--headless"),
                *("--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds}s"),
                *("--host", URL, "--csv", f"{folder}/load", "--only-summary", "--loglevel", "ERROR", user),
            ],
            check=False,
            stdout=subprocess.DEVNULL,
        )
        with Path(folder, "load_stats.csv").open() as stream:
            rows = {row["Name"]: row for row in csv.DictReader(stream)}
    took = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    mine = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / took
    ours, everything = (seconds_of(service) - at) / took, (busy() - all_at) / took
    store = (seconds_of_store(server) - store_at) / took
    rest = everything - mine - ours - store
    return rows, f"load {mine:.2f}, service {ours:.2f}, store {store:.2f}, others {rest:.2f} cores"


def export(service: int) -> tuple[float, int, float]:
    """Read the export of everything; the most memory above idle (MB), the lines, the seconds."""
    idle, most, lines, started = memory(service), 0.0, 0, time.monotonic()
    with urlopen(f"{URL}/download/pipeline_info?format=csv") as answer:  # noqa: S310 - our own address
        while part := answer.read(1 << 20):
            lines += part.count(b"\n")
            most = max(most, memory(service) - idle)
    return most, lines - 1, time.monotonic() - started


def first_page() -> float:
    """The slowest of five loads of the first page in a browser, charts and all, in seconds."""
    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for query in ("", "", "?environment=prod", "?state=failed", "?pipeline_name=techmarket_nightly"):
            page = browser.new_page()
            started = time.monotonic()
            page.goto(URL + "/" + query, wait_until="load")
            page.locator("#timeline canvas").first.wait_for()
            times.append(time.monotonic() - started)
            page.close()
        browser.close()
    return max(times)


@contextmanager
def own_store() -> Iterator[int | None]:
    """A PostgreSQL for the measurement alone, unless the environment names a store."""
    if "PIPELINE_INFO_BACKEND" in os.environ:
        yield None
        return
    DATA.mkdir(parents=True, exist_ok=True)
    DATA.chmod(0o755)
    server = Postgres(DATA, "shared_buffers=256MB", "maintenance_work_mem=128MB", "max_wal_size=2GB")
    server.start()
    os.environ |= {"PIPELINE_INFO_BACKEND": "postgres", "PIPELINE_INFO_DSN": server.dsn("postgres")}
    try:
        yield server.process.pid if server.process else None
    finally:
        server.stop()


def fill(runs: int) -> int:
    """Make sure that the store holds so many runs; how many it holds."""
    store = open_store(Settings())
    there = store.count_pipeline_info(RunFilter())
    store.close()
    if there < runs:
        seed.fill(runs - there)
        dsn = Settings().dsn.get_secret_value()
        if dsn:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("VACUUM (ANALYZE) pipeline_info.run")
    return max(there, runs)


@contextmanager
def running() -> Iterator[int]:
    """The service over the store of the environment; its process."""
    service = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "services.pipeline_info.app:app"),
            *("--host", "127.0.0.1", "--port", str(PORT)),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            try:
                urlopen(f"{URL}/ready").close()  # noqa: S310
                break
            except OSError:
                time.sleep(0.1)
        yield service.pid
    finally:
        service.terminate()
        service.wait(30)


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="how long to read at 200 requests a second")
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--bulk-seconds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=1_000_000)
    options = parser.parse_args()
    os.environ |= {"PIPELINE_INFO_RATE_PER_SECOND": "0", "READER_RATE": str(options.rate / 20 / 1.33)}
    table = Table("measure", "promised", "measured", "kept", "processor, and more")
    kept: list[bool] = []

    def row(measure: str, promised: str, measured: str, *, good: bool, more: str) -> None:
        kept.append(good)
        table.add_row(measure, promised, measured, "yes" if good else "NO", more)
        console.print(f"{measure}: {measured} ({more})")

    def no_errors(while_doing: str, total: dict[str, str]) -> None:
        sent, failed = int(total["Request Count"]), int(total["Failure Count"])
        row(f"errors while {while_doing}", "0", f"{failed} of {sent}", good=sent > 0 and failed == 0, more="")

    with own_store() as server:
        held = fill(options.runs)
        with running() as service:
            table.title = f"pipeline-info with {held:,} runs in {os.environ['PIPELINE_INFO_BACKEND']}"
            slowest = first_page()
            row(
                "first page in a browser", "1 s", f"{slowest:.2f} s", good=slowest < 1, more="slowest of five"
            )

            rows, who = load("Reader", 20, options.seconds, service, server)
            page, total = rows["a filtered page"], rows["Aggregated"]
            p95 = float(page["95%"])
            asked = f"{float(total['Requests/s']):.0f}/s, median {page['50%']}, p99 {page['99%']} ms; {who}"
            row(
                f"filtered page, {options.seconds} s",
                "p95 < 50 ms",
                f"{p95:.0f} ms",
                good=p95 < 50,
                more=asked,
            )
            no_errors("reading", total)

            rows, who = load("Writer", 2, options.bulk_seconds, service, server)
            total = rows["Aggregated"]
            rate = float(total["Requests/s"]) * int(os.environ.get("BULK", "1000"))
            row("bulk insert", "5,000 runs/s", f"{rate:,.0f} runs/s", good=rate >= 5000, more=who)
            no_errors("inserting", total)

            most, lines, took = export(service)
            row(
                "export, above idle",
                "100 MB",
                f"{most:.0f} MB",
                good=most < 100,
                more=f"{lines:,} in {took:.0f} s",
            )
    console.print(table)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    raise SystemExit(main())
