"""Turns a run's raw batches into accepted rows, and those into increments of the star schema.

    spark-submit spark_jobs/transform.py --pipeline techmarket --run-id techmarket-20261121T104208-3f2a

Reads `raw/` by the manifests of the run, and of `ods` and `dwh` the rows that the run touches. Writes
`accepted/`, `increment/` and, last, `report/<pipeline>/run=<run_id>/transform.json`, without which
nobody reads the rest. A second call replaces what the first one wrote with the same.
"""

from __future__ import annotations

import logging
import time

from pyspark.sql import SparkSession

from spark_jobs.accepted import TableReport, accept, as_json
from spark_jobs.increments import build_models, in_parallel
from spark_jobs.job_lake import JobLake
from spark_jobs.main import run_job
from spark_jobs.session import build_session
from spark_jobs.typed import BadValuesError
from tallyhouse.contracts import load_pipeline
from tallyhouse.lake import committed_batches
from tallyhouse.quality.report import unique_batches

log = logging.getLogger("spark_jobs.transform")


def transform(pipeline_name: str, run_id: str) -> None:
    """Runs the transform of one run.

    Args:
        pipeline_name: Such as `techmarket`.
        run_id: The run whose raw batches are committed.

    Raises:
        TallyhouseError: A batch is missing or breaks its contract, or a server cannot be reached.
    """
    started = time.monotonic()
    pipeline = load_pipeline(pipeline_name)
    lake = JobLake.from_environment()
    batches = committed_batches(lake.lake, pipeline.tables, run_id)
    unique = unique_batches(lake.lake, pipeline.name, run_id, batches)
    report_key = f"report/{pipeline.name}/run={run_id}/transform.json"

    spark: SparkSession | None = None
    tables = {}
    models = dict.fromkeys(pipeline.models, 0)
    if any(batch.rows for batch in batches.values()):
        spark = build_session(f"transform {run_id}")
        log.info("session after %.1f s", time.monotonic() - started)

    def one(name: str) -> TableReport | BadValuesError:
        batch = batches[name]
        contract = next(table for table in pipeline.tables if table.qualified_name == name)
        if not batch.rows or spark is None:
            return TableReport.empty(contract)
        try:
            return accept(
                lake.read_batch(spark, batch),
                contract,
                run_id=run_id,
                snapshot_at=batch.snapshot_at,
                target=lake.uri(f"accepted/{contract.source}/{contract.name}/run={run_id}"),
                unique=name in unique,
            )
        except BadValuesError as error:
            return error

    results = dict(zip(batches, in_parallel(one, batches), strict=True))
    refused = [result for result in results.values() if isinstance(result, BadValuesError)]
    if refused:
        for error in refused[1:]:
            log.error("%s", error)
        raise refused[0]
    tables = {name: as_json(result) for name, result in results.items() if isinstance(result, TableReport)}
    log.info("accepted %d tables after %.1f s", len(tables), time.monotonic() - started)

    if spark is not None and pipeline.models:
        rows = {name.partition(".")[2]: table["accepted"] for name, table in tables.items()}
        models |= build_models(spark, lake, pipeline, run_id, rows)
        log.info("wrote the models after %.1f s", time.monotonic() - started)
    lake.lake.write_json(report_key, {"tables": tables, "models": models})
    log.info("%s: %s", lake.uri(report_key), ", ".join(f"{name} {rows}" for name, rows in models.items()))


if __name__ == "__main__":
    run_job(transform)
