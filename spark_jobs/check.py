"""The gate: runs each table's Great Expectations suite over a run's raw batch.

    spark-submit spark_jobs/check.py --subject techmarket --run-id techmarket-20261121T104208-3f2a

Writes `report/<subject>/run=<run_id>/quality.json`, each table's validation result beside it, and the
run's Data Docs; then fails if a suite failed. Nothing else is written, so it can be run again at will.
"""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING

from spark_jobs.job_lake import JobLake
from spark_jobs.main import run_job
from spark_jobs.session import build_session
from spark_jobs.typed import BAD, typed
from tallyhouse.contracts import load_subject
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake

if TYPE_CHECKING:
    from tallyhouse.quality.gate import Gate, SuiteResult

log = logging.getLogger("spark_jobs.check")


def check(subject_name: str, run_id: str) -> None:
    """Runs the gate of one run.

    Args:
        subject_name: Such as `techmarket`.
        run_id: The run whose raw batches are committed.

    Raises:
        TallyhouseError: A suite failed, a batch is missing, or the lake cannot be reached.
    """
    started = time.monotonic()
    subject = load_subject(subject_name)
    lake = JobLake.from_environment()
    batches = lake.batches(subject.tables, run_id)
    with ThreadPoolExecutor(1) as aside:
        # Great Expectations takes as long to import as the JVM to start: side by side.
        importing = aside.submit(import_module, "tallyhouse.quality.gate")
        spark = build_session(f"check {run_id}")
        gate = importing.result().Gate(run_id)
    log.info("session and Great Expectations after %.1f s", time.monotonic() - started)

    results = {}
    for contract in subject.tables:
        name = contract.qualified_name
        if name not in batches:
            continue
        rows = batches[name].rows
        batch = (
            typed(lake.read_batch(spark, batches[name]), contract).drop(BAD)
            if rows
            else spark.range(0).toDF("nothing")
        )
        results[name] = gate.check(batch, contract, rows)
    log.info("%d suites after %.1f s", len(results), time.monotonic() - started)

    judge(lake.lake, gate, subject.name, run_id, results)


def judge(lake: Lake, gate: Gate, subject: str, run_id: str, results: dict[str, SuiteResult]) -> None:
    """Writes what the suites found, the Data Docs of it, and the page that lists the runs.

    Args:
        lake: Where to.
        gate: What ran the suites.
        subject: Such as `techmarket`.
        run_id: The run.
        results: By the table's qualified name.

    Raises:
        TallyhouseError: A suite failed.
    """
    report = f"report/{subject}/run={run_id}"
    for name, result in results.items():
        lake.write_json(f"{report}/validation/{name}.json", result.details)
    docs = import_module("tallyhouse.quality.data_docs")
    suites = {name: result.report() for name, result in results.items()}
    path = docs.Site(subject, run_id).publish(gate.context, lake, suites)
    url = os.environ.get("DATA_DOCS_URL", "http://127.0.0.1:8003").rstrip("/") + path
    failed = [(name, failure) for name, result in results.items() for failure in result.failed]
    lake.write_json(f"{report}/quality.json", {"success": not failed, "suites": suites, "data_docs_url": url})
    docs.write_index(lake)
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
            where=f"{name} in run {run_id}",
            remedy=f"Nothing was published; see {url}, fix the source or the suite, and run again.",
            table=name,
            rule=rule,
            count=first.unexpected,
            sample=first.rows or ([first.sample] if first.sample else []),
        )


if __name__ == "__main__":
    run_job(check)
