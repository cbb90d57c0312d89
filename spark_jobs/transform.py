"""Turns a run's raw batches into accepted rows, and those into increments of the star schema.

    spark-submit spark_jobs/transform.py --pipeline techmarket --run-id techmarket-20261121T104208-3f2a

Reads `raw/` by the manifests of the run, and of `ods` and `dwh` the rows that the run touches. Writes
`accepted/`, `increment/` and, last, `report/<pipeline>/run=<run_id>/transform.json`, without which
nobody reads the rest. A second call replaces what the first one wrote with the same.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime

import pyarrow as pa
from pyspark.sql import SparkSession

from spark_jobs.accepted import TableReport, accept, as_json
from spark_jobs.increments import build_models, in_parallel
from spark_jobs.job_lake import JobLake
from spark_jobs.main import run_job
from spark_jobs.session import build_session
from spark_jobs.typed import BadValuesError
from tallyhouse.contracts import PipelineContract, load_pipeline
from tallyhouse.contracts.evolve import evolved
from tallyhouse.extract.to_raw import write_parts
from tallyhouse.lake import Lake, Manifest, committed_batches
from tallyhouse.models import definition
from tallyhouse.models.affected import Deleted
from tallyhouse.models.load import own_key, table_of
from tallyhouse.publish.deletes import evidence
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
    pipeline = evolved(pipeline, {name: batch.evolved for name, batch in batches.items()})
    unique = unique_batches(lake.lake, pipeline.name, run_id, batches)
    report_key = f"report/{pipeline.name}/run={run_id}/transform.json"

    spark: SparkSession | None = None
    tables = {}
    models = dict.fromkeys(pipeline.models, 0)
    deleted = deleted_keys(lake.lake, pipeline, batches)
    if any(batch.rows for batch in batches.values()) or deleted:
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
        models |= build_models(spark, lake, pipeline, run_id, rows, deleted)
        log.info("wrote the models after %.1f s", time.monotonic() - started)
    removed = write_removed(lake.lake, pipeline, run_id, deleted)
    lake.lake.write_json(report_key, {"tables": tables, "models": models, "removed": removed})
    log.info("%s: %s", lake.uri(report_key), ", ".join(f"{name} {rows}" for name, rows in models.items()))


def deleted_keys(lake: Lake, pipeline: PipelineContract, batches: dict[str, Manifest]) -> dict[str, Deleted]:
    """The keys of rows that the sources no longer have, by table."""
    found = {}
    for table in pipeline.tables:
        batch = batches.get(table.qualified_name)
        if batch is not None and batch.deleted and batch.census is not None:
            at = datetime.fromisoformat(batch.census["at"])
            found[table.name] = Deleted(at, evidence(lake, batch, table))
    return found


def write_removed(
    lake: Lake, pipeline: PipelineContract, run_id: str, deleted: dict[str, Deleted]
) -> dict[str, int]:
    """Writes the keys of each model's rows whose source rows are gone; targets take them out.

    Returns:
        How many, by model.
    """
    removed = {}
    for name in pipeline.models:
        model = definition(name)
        if model.history:
            continue  # its versions end instead
        table = table_of(model, model.driver)
        prefix = f"removed/{name}/run={run_id}"
        for key in lake.keys(prefix):
            lake.filesystem.delete_file(lake.path(key))
        if table.name in deleted:
            keys = deleted[table.name].keys
            rows = pa.RecordBatch.from_pydict(dict(zip(own_key(model), zip(*keys, strict=True), strict=True)))
            list(write_parts(iter([rows]), lake, prefix, rows.schema))
            removed[name] = len(keys)
    return removed


if __name__ == "__main__":
    run_job(transform)
