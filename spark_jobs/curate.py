"""Turns a run's raw batch of events into files of the curated Parquet, aside, after the gate.

    spark-submit spark_jobs/curate.py --pipeline events --run-id events-20261121T104208-3f2a

Writes below `curated/_staging/<run_id>/` of the events' bucket, where no reader looks, and into the lake
the run's quality report, its Data Docs and, last, `report/<pipeline>/run=<run_id>/curate.json`, without
which nobody takes the rest. A second call replaces what the first one wrote.
"""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs.events import CURATED, LINES, OUTCOME, decided, digest, events, quarantined
from spark_jobs.job_lake import JobLake
from spark_jobs.main import run_job
from spark_jobs.session import build_session
from tallyhouse.contracts import load_pipeline
from tallyhouse.errors import TallyhouseError
from tallyhouse.events.table import CURATED as FOLDER
from tallyhouse.events.table import EventStore, State, staging_of
from tallyhouse.lake import Manifest, check_parts, find_manifests

log = logging.getLogger("spark_jobs.curate")

FILE_ROWS = 500_000
"""Rows of a curated file at most."""


def curate(pipeline_name: str, run_id: str) -> None:
    """Runs the curation of one run.

    Args:
        pipeline_name: Of the events, `events`.
        run_id: The run whose raw batch is committed.

    Raises:
        TallyhouseError: The batch is missing, the suite failed, or a server cannot be reached.
    """
    started = time.monotonic()
    pipeline = load_pipeline(pipeline_name)
    (contract,) = pipeline.tables
    lake = JobLake.from_environment()
    batch = next(iter(find_manifests(lake.lake, run_id, [contract])), None)
    if batch is None:
        raise TallyhouseError(
            "the run has no committed raw batch",
            remedy="Clear the task that takes the objects.",
            table=contract.qualified_name,
        )
    check_parts(lake.lake, batch, contents=True)
    counts = {"raw": batch.rows, "curated": 0, "superseded": 0, "quarantined": 0}
    digests = dict.fromkeys(("raw", "curated", "superseded"), "0")
    reasons: dict[str, int] = {}
    version = 0
    store = events_store()
    store.drop(staging_of(run_id))  # of an earlier try, which may have read another batch
    if batch.rows:
        with ThreadPoolExecutor(1) as aside:
            # Great Expectations takes as long to import as the JVM to start: side by side.
            importing = aside.submit(import_module, "tallyhouse.quality.gate_spark")
            spark = build_session(f"curate {run_id}")
            gate = importing.result().SparkGate(run_id)
        log.info("session and Great Expectations after %.1f s", time.monotonic() - started)
        run = _Run(spark, lake, store, batch, run_id)
        version = run.state.version
        accepted = run.rows.where(F.col(OUTCOME) == "curated").drop(OUTCOME)
        for outcome, rows, total in run.rows.groupBy(OUTCOME).agg(F.count(F.lit(1)), digest()).collect():
            counts[outcome], digests[outcome] = rows, f"{total:f}"
        digests["raw"] = f"{run.events.agg(digest()).collect()[0][0]:f}"
        reasons = dict(
            run.lines.where("problem IS NOT NULL").groupBy("problem").agg(F.count(F.lit(1))).collect()
        )
        counts["quarantined"] = sum(reasons.values())
        import_module("tallyhouse.quality.verdict").judge(
            lake.lake,
            gate,
            pipeline.name,
            run_id,
            {
                contract.qualified_name: gate.check(
                    accepted.select(*contract.column_names), contract, counts["curated"]
                )
            },
            unique_keys={},
        )
        log.info("checked after %.1f s", time.monotonic() - started)
        if reasons:
            run.write_quarantine()
        if counts["curated"]:
            run.write(accepted)
            # Read back from the store: what the ledger compares is what readers will get.
            digests["curated"] = run.written_digest()
        log.info("written after %.1f s", time.monotonic() - started)
    report_key = f"report/{pipeline.name}/run={run_id}/curate.json"
    lake.lake.write_json(
        report_key,
        {"base_version": version, "counts": counts, "digests": digests, "reasons": reasons},
    )
    log.info("%s: %s", lake.uri(report_key), ", ".join(f"{rows} {name}" for name, rows in counts.items()))


def events_store() -> EventStore:
    """The events' bucket, by the `EVENTS_*` variables.

    Raises:
        TallyhouseError: One is missing.
    """
    names = ("EVENTS_BUCKET", "EVENTS_ENDPOINT", "EVENTS_ACCESS_KEY", "EVENTS_SECRET_KEY")
    if missing := [name for name in names if not os.environ.get(name)]:
        raise TallyhouseError(
            f"{', '.join(missing)} not set",
            where="environment of the Spark job",
            remedy="Pass the events' bucket, its address and account in the job's environment.",
        )
    return EventStore.s3(
        os.environ["EVENTS_BUCKET"],
        endpoint=os.environ["EVENTS_ENDPOINT"],
        access_key=os.environ["EVENTS_ACCESS_KEY"],
        secret_key=os.environ["EVENTS_SECRET_KEY"],
        region=os.environ.get("EVENTS_REGION", "us-east-1"),
    )


class _Run:
    """One run's frames, and where they are read from and written to."""

    def __init__(
        self, spark: SparkSession, lake: JobLake, store: EventStore, batch: Manifest, run_id: str
    ) -> None:
        self.spark, self.store, self.run_id = spark, store, run_id
        self.base = f"s3a://{store.lake.root}"
        self.state: State = store.state()
        self.lines = spark.read.schema(LINES).parquet(*(lake.uri(part.key) for part in batch.parts))
        self.events = events(self.lines, run_id)
        days = self.events.select("event_type", F.col("day").cast("string")).distinct().collect()
        touched = {(event_type, day) for event_type, day in days}
        known = self._read([file.key for file in self.state.files if file.partition in touched])
        # Counted, checked and written: computed once, spilled to disk where memory does not hold it.
        self.rows = decided(self.events, known).persist()

    def write(self, accepted: DataFrame) -> None:
        """Writes the run's files aside."""
        (
            accepted.repartition("event_type", "day")
            .sortWithinPartitions("event_type", "day", "received_at", "id")
            .write.mode("overwrite")
            .option("maxRecordsPerFile", FILE_ROWS)
            .partitionBy("event_type", "day")
            .parquet(self.uri("files"))
        )

    def write_quarantine(self) -> None:
        """Writes the lines that are no events aside, with their reasons."""
        quarantined(self.lines, self.run_id).coalesce(1).write.mode("overwrite").parquet(
            self.uri("quarantine")
        )

    def written_digest(self) -> str:
        """The digest of the run's own rows, by the files that were written."""
        rows = self.spark.read.schema(CURATED).parquet(self.uri("files"))
        return f"{rows.agg(digest()).collect()[0][0]:f}"

    def uri(self, part: str) -> str:
        """Where a part of the run's files is written aside."""
        return f"{self.base}/{staging_of(self.run_id)}/{part}"

    def _read(self, keys: list[str]) -> DataFrame | None:
        if not keys:
            return None
        reader = self.spark.read.schema(CURATED).option("basePath", f"{self.base}/{FOLDER}")
        return reader.parquet(*(f"{self.base}/{key}" for key in keys))


if __name__ == "__main__":
    run_job(curate)
