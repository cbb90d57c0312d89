"""What a run's gate leaves behind: its verdict for programs, the Data Docs for people, one line for both."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake
from tallyhouse.quality import data_docs
from tallyhouse.quality.gate import Gate, SuiteResult
from tallyhouse.quality.report import report_key

log = logging.getLogger(__name__)


def judge(
    lake: Lake,
    gate: Gate[Any],
    pipeline: str,
    run_id: str,
    results: dict[str, SuiteResult],
    unique_keys: Mapping[str, str],
) -> None:
    """Writes what the suites found, the Data Docs of it, and the page that lists the runs.

    Args:
        lake: Where to.
        gate: What ran the suites.
        pipeline: Such as `techmarket`.
        run_id: The run.
        results: By the table's qualified name.
        unique_keys: Of each table whose batch was found to hold no key twice, the batch's manifest.

    Raises:
        TallyhouseError: A suite failed.
    """
    report = f"report/{pipeline}/run={run_id}"
    for name, result in results.items():
        lake.write_json(f"{report}/validation/{name}.json", result.details)
    suites = {name: result.report() for name, result in results.items()}
    path = data_docs.Site(pipeline, run_id).publish(gate.context, lake, suites)
    url = os.environ.get("DATA_DOCS_URL", "http://127.0.0.1:8003").rstrip("/") + path
    failed = [(name, failure) for name, result in results.items() for failure in result.failed]
    lake.write_json(
        report_key(pipeline, run_id),
        {
            "success": not failed,
            "suites": suites,
            "unique_keys": dict(unique_keys),
            "data_docs_url": url,
        },
    )
    data_docs.write_index(lake)
    log.info("Data Docs: %s", url)
    if failed:
        name, first = failed[0]
        rule = f"{first.expectation}({first.column})"
        count = "" if first.unexpected is None else f" in {first.unexpected} rows"
        sample = "" if first.sample is None else f", such as {first.sample}"
        row = f" ({first.rows[0]})" if first.rows and first.rows[0] != first.sample else ""
        more = f"; {len(failed) - 1} more expectations failed" if len(failed) > 1 else ""
        raise TallyhouseError(
            f"{rule} failed{count}{sample}{row}{more}",
            remedy=f"Nothing was published; see {url}, fix the source or the suite, and run again.",
            table=name,
            rule=rule,
            count=first.unexpected,
            sample=first.rows or ([first.sample] if first.sample else []),
        )
