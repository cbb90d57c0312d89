"""The gate's verdict as later steps read it, without Great Expectations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallyhouse.lake import Lake, Manifest


def report_key(pipeline: str, run_id: str) -> str:
    """Where a run's verdict stands in the lake."""
    return f"report/{pipeline}/run={run_id}/quality.json"


def read_report(lake: Lake, pipeline: str, run_id: str) -> dict[str, Any]:
    """A run's verdict; empty where no gate has run."""
    key = report_key(pipeline, run_id)
    found: dict[str, Any] = lake.read_json(key) if key in lake.keys(key.rpartition("/")[0]) else {}
    return found


def unique_batches(lake: Lake, pipeline: str, run_id: str, batches: Mapping[str, Manifest]) -> set[str]:
    """The tables of which the gate found that this very batch holds no key twice.

    Args:
        lake: Where the verdict is.
        pipeline: Such as `techmarket`.
        run_id: The run.
        batches: By the table's qualified name; another attempt of the extraction proves nothing of it.

    Returns:
        Qualified names; none where no gate has run, or where it did not look.
    """
    proved = read_report(lake, pipeline, run_id).get("unique_keys", {})
    return {name for name, batch in batches.items() if proved.get(name) == batch.key}
