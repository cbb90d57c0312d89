"""Summaries of runs in memory, for backends without a query language: what every backend has to answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from services.pipeline_info.models import PipelineRun, PipelineSummary

Signature = tuple[str | None, str | None, str | None, str | None]


def signature(run: PipelineRun) -> Signature:
    """What tells one pipeline from another."""
    return run.pipeline_name, run.script_name, run.pipeline_type, run.environment


def _average(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def state_of(run: PipelineRun) -> str | None:
    """The run's state, when who posted it said one."""
    state = run.extra.get("state")
    return state if isinstance(state, str) else None


def summarise(runs: Iterable[PipelineRun]) -> list[PipelineSummary]:
    """One summary for each signature, ordered by it, absent parts first."""
    groups: dict[Signature, list[PipelineRun]] = defaultdict(list)
    for run in runs:
        groups[signature(run)].append(run)
    return [
        _summary(key, groups[key])
        for key in sorted(groups, key=lambda key: [(part is not None, part or "") for part in key])
    ]


def _summary(key: Signature, runs: list[PipelineRun]) -> PipelineSummary:
    last = max(runs, key=lambda run: (run.started, run.id))
    return PipelineSummary(
        pipeline_name=key[0],
        script_name=key[1],
        pipeline_type=key[2],
        environment=key[3],
        total_runs=len(runs),
        total_rowcount=sum(run.rowcount or 0 for run in runs),
        average_elapsed_seconds=_average([run.elapsed_seconds for run in runs if run.elapsed_seconds]),
        average_rowcount=_average([run.rowcount for run in runs if run.rowcount]),
        first_start_utc=min(run.started for run in runs),
        last_start_utc=last.started,
        last_end_utc=last.end_utc,
        last_elapsed_seconds=last.elapsed_seconds,
        last_rowcount=last.rowcount,
        last_run_id=last.id,
        last_state=state_of(last),
    )
