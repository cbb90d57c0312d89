"""Measures pipeline-info on this machine and says whether it keeps what is promised of it.

    PIPELINE_INFO_BACKEND=postgres PIPELINE_INFO_DSN=... python -m benchmarks.pipeline_info.run --seconds 60

The store of the settings should hold the runs already (`python -m benchmarks.pipeline_info.seed`). The
service and the load run on the same cores, so what the load took is printed beside the results. Promised:
a filtered page of 100 under 50 ms (p95) at 200 requests a second, 5,000 runs a second by bulk inserts, an
export of everything in under 100 MB above idle, no error.
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
from pathlib import Path
from urllib.request import urlopen

PORT = 8792
URL = f"http://127.0.0.1:{PORT}"
HERE = Path(__file__).parent


def say(text: str) -> None:
    """Print a line of the report."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def memory(pid: int) -> float:
    """Resident memory of a process, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def seconds_of(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(user: str, users: int, seconds: int, service: int) -> dict[str, dict[str, str]]:
    """Put a load on the service; the rows of locust's statistics by name."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    at = seconds_of(service)
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
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    mine = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    ours = (seconds_of(service) - at) / seconds
    say(f"  processor: the load {mine / seconds:.2f}, the service {ours:.2f} cores")
    return rows


def report(rows: dict[str, dict[str, str]]) -> int:
    """Print the statistics; how many requests failed."""
    for name, row in rows.items():
        say(
            f"  {name}: {float(row['Requests/s']):.1f}/s, median {row['50%']} ms, p95 {row['95%']} ms,"
            f" p99 {row['99%']} ms, failed {row['Failure Count']} of {row['Request Count']}"
        )
    return int(rows["Aggregated"]["Failure Count"])


def export(service: int) -> tuple[float, int, float]:
    """Read the export of everything; the most memory above idle (MB), the lines, the seconds."""
    idle, most, lines, started = memory(service), 0.0, 0, time.monotonic()
    with urlopen(f"{URL}/download/pipeline_info?format=csv") as answer:  # noqa: S310 - our own address
        while part := answer.read(1 << 20):
            lines += part.count(b"\n")
            most = max(most, memory(service) - idle)
    return most, lines - 1, time.monotonic() - started


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="how long to read at 200 requests a second")
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--bulk-seconds", type=int, default=20)
    options = parser.parse_args()
    environment = os.environ | {"PIPELINE_INFO_RATE_PER_SECOND": "0", "READER_RATE": str(options.rate / 20)}
    os.environ.update(environment)
    service = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "services.pipeline_info.app:app"),
            *("--host", "127.0.0.1", "--port", str(PORT)),
        ],
        stderr=subprocess.DEVNULL,
    )
    kept = True
    try:
        for _ in range(200):
            try:
                urlopen(f"{URL}/ready").close()  # noqa: S310
                break
            except OSError:
                time.sleep(0.1)
        say(f"pages, {options.rate} requests a second, {options.seconds} s")
        rows = load("Reader", 20, options.seconds, service.pid)
        failed = report(rows)
        kept &= failed == 0 and float(rows["a filtered page"]["95%"]) < 50
        say(f"bulk inserts, {options.bulk_seconds} s")
        rows = load("Writer", 2, options.bulk_seconds, service.pid)
        failed = report(rows)
        rate = float(rows["Aggregated"]["Requests/s"]) * int(os.environ.get("BULK", "1000"))
        say(f"  {rate:,.0f} runs a second")
        kept &= failed == 0 and rate >= 5000
        say("export of everything")
        most, lines, took = export(service.pid)
        say(f"  {lines:,} runs in {took:.1f} s, {most:.0f} MB above idle")
        kept &= most < 100
    finally:
        service.terminate()
        service.wait(30)
    say("kept" if kept else "NOT kept")
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
