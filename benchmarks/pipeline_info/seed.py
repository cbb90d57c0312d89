"""Fills a store with runs that look like a year of a busy installation.

    python -m benchmarks.pipeline_info.seed --runs 1000000

writes into the store that the service's own settings name (PIPELINE_INFO_BACKEND, PIPELINE_INFO_DSN, ...)
and prints how fast. The same seed gives the same runs.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Any

from services.pipeline_info.models import PipelineInfo
from services.pipeline_info.repository import NewRun
from services.pipeline_info.settings import Settings
from services.pipeline_info.stores import open_store

PIPELINES = (
    *(("techmarket_nightly", "airflow", 420.0, 104_000), ("pancake_nightly", "airflow", 75.0, 9_000)),
    *(("monitor_pipelines", "airflow", 6.0, 40), ("events_hourly", "etl", 130.0, 61_000)),
    *(("kaggle_catalogue", "extract", 33.0, 1_200), ("data_docs", "quality", 48.0, 0)),
    *((f"partner_feed_{number:02d}", "load", 20.0 + number, 800 * number) for number in range(1, 35)),
)
TABLES = ("auth.users", "catalog.products", "orders.orders", "orders.order_items", "payments.payments")


def ledger(rng: random.Random, rows: int, *, breaks: bool) -> list[dict[str, Any]]:
    """A ledger of a run with `rows` rows."""
    lines: list[dict[str, Any]] = []

    def line(table: str, hop: str, left: int, right: int, **parts: int) -> None:
        entry = {"table": table, "hop": hop, "measure": "rows", "left": left, "right": right}
        lines.append(entry | ({"parts": parts} if parts else {}))

    for number, table in enumerate(TABLES):
        raw = rows * (number + 1) // 15
        quarantined, superseded = raw // 40 if number == 3 else 0, raw // 25 if number > 1 else 0
        accepted = raw - quarantined - superseded
        inserted = accepted // 3
        lost = 7 if breaks and number == 3 else 0
        line(table, "source=raw", raw, raw)
        line(
            table,
            "raw=accepted",
            raw,
            raw,
            accepted=accepted,
            quarantined=quarantined,
            superseded=superseded,
        )
        line(
            table,
            "accepted=ods",
            accepted,
            accepted - lost,
            inserted=inserted,
            updated=accepted - inserted - lost,
        )
    for model, share in (("fact_order_line", 0.4), ("fact_payment", 0.25), ("dim_customer", 0.1)):
        count = int(rows * share * rng.uniform(0.9, 1.1))
        line(model, "ods=model", count, count)
        line(model, "postgres=clickhouse", count, count)
    return lines


def runs(count: int, *, until: datetime, days: float, seed: int = 7) -> Iterator[PipelineInfo]:
    """So many runs, spread evenly over the days before `until`."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    step = timedelta(days=days) / max(count, 1)
    for number in range(count):
        name, kind, usual, rows = PIPELINES[min(int(rng.expovariate(0.12)), len(PIPELINES) - 1)]
        start = until - timedelta(days=days) + step * number
        elapsed = usual * rng.lognormvariate(0, 0.25) * (1 + number / count * 0.3)
        failed = rng.random() < 0.03
        rowcount = int(rows * rng.lognormvariate(0, 0.15))
        extra: dict[str, Any] = {"state": "failed" if failed else "success"}
        if name.endswith("_nightly"):
            extra["ledger"] = ledger(rng, rowcount, breaks=failed)
            extra["dag_run_id"] = f"scheduled__{start:%Y-%m-%dT%H:%M:%S}+00:00"
        end = start + timedelta(seconds=elapsed)
        yield PipelineInfo(
            start_utc=start,
            end_utc=end,
            pipeline_name=name,
            script_name=f"{name}.py",
            pipeline_type=kind,
            environment="prod" if number % 4 else "dev",
            rowcount=rowcount,
            pid=rng.randrange(1000, 60_000),
            extra=extra,
        )


def main() -> int:
    """Fill the store and say how fast."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--days", type=float, default=365)
    parser.add_argument("--batch", type=int, default=5000)
    options = parser.parse_args()
    fill(options.runs, days=options.days, size=options.batch)
    return 0


def fill(count: int, *, days: float = 365, size: int = 5000) -> None:
    """Put so many runs into the store of the settings, and say how fast."""
    store = open_store(Settings())
    until = datetime.now(UTC).replace(microsecond=0)
    started, writing, done = time.monotonic(), 0.0, 0
    for batch in batched(runs(count, until=until, days=days), size):
        at = time.monotonic()
        store.insert_many([NewRun(run) for run in batch])
        writing += time.monotonic() - at
        done += len(batch)
        sys.stderr.write(f"\r{done:>9} runs, {done / writing:,.0f} a second")
    store.close()
    sys.stderr.write(
        f"\n{done} runs in {time.monotonic() - started:.1f} s, of which writing {writing:.1f} s\n"
    )


if __name__ == "__main__":
    raise SystemExit(main())
