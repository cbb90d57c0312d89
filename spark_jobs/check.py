"""The gate on Spark: runs each table's Great Expectations suite over a run's raw batch.

    spark-submit spark_jobs/check.py --pipeline techmarket --run-id techmarket-20261121T104208-3f2a

Writes `report/<pipeline>/run=<run_id>/quality.json`, each table's validation result beside it, and the
run's Data Docs; then fails if a suite failed. Nothing else is written, so it can be run again at will.
The gate without Spark is `tallyhouse.quality.check`; which one runs is the connection's to say.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

from spark_jobs.job_lake import JobLake
from spark_jobs.main import run_job
from spark_jobs.session import build_session
from spark_jobs.typed import typed
from tallyhouse.contracts import load_pipeline
from tallyhouse.contracts.evolve import evolved
from tallyhouse.lake import check_parts, committed_batches

log = logging.getLogger("spark_jobs.check")


def check(pipeline_name: str, run_id: str) -> None:
    """Runs the gate of one run.

    Args:
        pipeline_name: Such as `techmarket`.
        run_id: The run whose raw batches are committed.

    Raises:
        TallyhouseError: A suite failed, a batch is missing, or the lake cannot be reached.
    """
    started = time.monotonic()
    pipeline = load_pipeline(pipeline_name)
    lake = JobLake.from_environment()
    batches = committed_batches(lake.lake, pipeline.tables, run_id)
    for committed in batches.values():
        check_parts(lake.lake, committed, contents=True)
    pipeline = evolved(pipeline, {name: batch.evolved for name, batch in batches.items()})
    with ThreadPoolExecutor(1) as aside:
        # Great Expectations takes as long to import as the JVM to start: side by side.
        importing = aside.submit(import_module, "tallyhouse.quality.gate_spark")
        spark = build_session(f"check {run_id}")
        gate = importing.result().SparkGate(run_id)
    log.info("session and Great Expectations after %.1f s", time.monotonic() - started)

    results = {}
    for contract in pipeline.tables:
        name = contract.qualified_name
        if name not in batches:
            continue
        rows = batches[name].rows
        batch = (
            typed(lake.read_batch(spark, batches[name]), contract).select(*contract.column_names)
            if rows
            else spark.range(0).toDF("nothing")
        )
        results[name] = gate.check(batch, contract, rows)
    log.info("%d suites after %.1f s", len(results), time.monotonic() - started)

    # A search for keys that occur twice would be a shuffle of its own; the transform looks for them anyway.
    verdict = import_module("tallyhouse.quality.verdict")
    verdict.judge(lake.lake, gate, pipeline.name, run_id, results, unique_keys={})


if __name__ == "__main__":
    run_job(check)
