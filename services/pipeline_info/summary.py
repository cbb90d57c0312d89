"""Summaries of runs: in memory, and as rows that a store keeps up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from services.pipeline_info.models import PipelineRun, PipelineSummary

Signature = tuple[str | None, str | None, str | None, str | None]


def signature(run: PipelineRun) -> Signature:
    """What tells one pipeline from another."""
    return run.pipeline_name, run.script_name, run.pipeline_type, run.environment


def order(summary: PipelineSummary) -> list[tuple[bool, str]]:
    """The order of summaries: by signature, absent parts first."""
    parts = (summary.pipeline_name, summary.script_name, summary.pipeline_type, summary.environment)
    return [(part is not None, part or "") for part in parts]


@dataclass
class Tally:
    """A summary in a form that can be added to."""

    key: Signature
    last: PipelineRun
    first_start: datetime
    total_runs: int = 0
    total_rowcount: int = 0
    elapsed_sum: float = 0.0
    elapsed_runs: int = 0
    rowcount_runs: int = 0

    def add(self, run: PipelineRun) -> None:
        """Count a run."""
        self.total_runs += 1
        if run.rowcount:
            self.total_rowcount += run.rowcount
            self.rowcount_runs += 1
        if run.elapsed_seconds:
            self.elapsed_sum += run.elapsed_seconds
            self.elapsed_runs += 1
        self.first_start = min(self.first_start, run.started)
        if (run.started, run.id) > (self.last.started, self.last.id):
            self.last = run

    def row(self, time: Callable[[datetime], object]) -> tuple[object, ...]:
        """The values of `TALLY_COLUMNS`."""
        last = self.last
        return (
            orjson.dumps(self.key).decode(),
            *self.key,
            self.total_runs,
            self.total_rowcount,
            self.elapsed_sum,
            self.elapsed_runs,
            self.rowcount_runs,
            time(self.first_start),
            time(last.started),
            last.id,
            None if last.end_utc is None else time(last.end_utc),
            last.elapsed_seconds,
            last.rowcount,
            last.state,
        )


_SUMS = ("total_runs", "total_rowcount", "elapsed_sum", "elapsed_runs", "rowcount_runs")
_LAST = ("last_start", "last_id", "last_end", "last_elapsed", "last_rowcount", "last_state")
_PARTS = ("pipeline_name", "script_name", "pipeline_type", "environment")
TALLY_COLUMNS = ("signature", *_PARTS, *_SUMS, "first_start", *_LAST)


def tallies(runs: Iterable[PipelineRun]) -> list[Tally]:
    """A tally for each signature among `runs`.

    They come always in the same order, so that two writers never wait for each other in a circle.
    """
    found: dict[Signature, Tally] = {}
    for run in runs:
        key = signature(run)
        if key not in found:
            found[key] = Tally(key, run, run.started)
        found[key].add(run)
    return sorted(found.values(), key=lambda tally: orjson.dumps(tally.key))


def upsert(table: str, placeholder: str, least: str) -> str:
    """The statement (PostgreSQL, SQLite) that adds a tally's row to a table of summaries.

    Args:
        table: The table's name.
        placeholder: What stands for a bound value.
        least: The dialect's function for the lesser of two values.
    """
    later = f"(excluded.last_start, excluded.last_id) > ({table}.last_start, {table}.last_id)"
    changes = [f"{name} = {table}.{name} + excluded.{name}" for name in _SUMS]
    changes.append(f"first_start = {least}({table}.first_start, excluded.first_start)")
    changes += [f"{name} = CASE WHEN {later} THEN excluded.{name} ELSE {table}.{name} END" for name in _LAST]
    holes = ", ".join([placeholder] * len(TALLY_COLUMNS))
    return (
        f"INSERT INTO {table} ({', '.join(TALLY_COLUMNS)}) VALUES ({holes})"
        f" ON CONFLICT (signature) DO UPDATE SET {', '.join(changes)}"
    )


def from_row(row: Mapping[str, Any], time: Callable[[Any], datetime]) -> PipelineSummary:
    """A summary from a row of `TALLY_COLUMNS`."""
    return PipelineSummary(
        pipeline_name=row["pipeline_name"],
        script_name=row["script_name"],
        pipeline_type=row["pipeline_type"],
        environment=row["environment"],
        total_runs=row["total_runs"],
        total_rowcount=int(row["total_rowcount"]),
        average_elapsed_seconds=row["elapsed_sum"] / row["elapsed_runs"] if row["elapsed_runs"] else None,
        average_rowcount=float(row["total_rowcount"] / row["rowcount_runs"])
        if row["rowcount_runs"]
        else None,
        first_start_utc=time(row["first_start"]),
        last_start_utc=time(row["last_start"]),
        last_end_utc=None if row["last_end"] is None else time(row["last_end"]),
        last_elapsed_seconds=row["last_elapsed"],
        last_rowcount=row["last_rowcount"],
        last_run_id=row["last_id"],
        last_state=row["last_state"],
    )


def summarise(runs: Iterable[PipelineRun]) -> list[PipelineSummary]:
    """One summary for each signature, in order: what every store has to answer."""
    rows = [dict(zip(TALLY_COLUMNS, tally.row(lambda time: time), strict=True)) for tally in tallies(runs)]
    return sorted((from_row(row, lambda time: time) for row in rows), key=order)
