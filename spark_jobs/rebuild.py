"""Builds the warehouse again from raw, in a database of its own, and compares the two.

    spark-submit spark_jobs/rebuild.py --pipeline techmarket --run-id rebuild

`DWH_CONNINFO` is the database that is filled, whatever it held; `LIVE_CONNINFO` the warehouse, which is only
read unless `TAKE_OVER` is `True`. See `tallyhouse.publish.rebuild`.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace

from spark_jobs.increments import build_models
from spark_jobs.job_lake import JobLake
from spark_jobs.main import run_job
from spark_jobs.session import build_session
from spark_jobs.transform import transform
from spark_jobs.warehouse import Warehouse
from tallyhouse.contracts import PipelineContract, load_pipeline
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake.checkpoint import Checkpoint, can_be_written
from tallyhouse.lake.upkeep import untouched
from tallyhouse.publish.postgres import publish
from tallyhouse.publish.rebuild import (
    accept_live,
    check_same,
    clear,
    compare,
    empty,
    merge_all,
    open_again,
    published,
    restore,
    taken_up,
)
from tallyhouse.publish.take_over import take_over
from tallyhouse.servers import PostgresServer

log = logging.getLogger("spark_jobs.rebuild")


def rebuild(pipeline_name: str, run_id: str) -> None:
    """Publishes every run of a pipeline once more, elsewhere, and compares what comes out.

    Args:
        pipeline_name: Such as `techmarket`.
        run_id: What the outcome is kept under; not a run of the warehouse.

    Raises:
        TallyhouseError: Raw of a run is gone, a run does not close, or the two databases differ.
    """
    started = time.monotonic()
    # Targets are not filled: they follow the warehouse that is shown.
    pipeline = replace(load_pipeline(pipeline_name), targets=())
    job_lake, other = JobLake.from_environment(), Warehouse.from_environment()
    lake = job_lake.lake
    live = PostgresServer.parse(os.environ["LIVE_CONNINFO"])
    with live.connect() as shown, untouched(shown):
        if can_be_written(shown, pipeline.name) is None:
            raise TallyhouseError(
                f"the tables of pipeline {pipeline.name} are not in ods",
                remedy="Name a pipeline that is published into the warehouse, such as techmarket",
            )
        held, runs = published(shown, lake, pipeline)
        empty(other.server)
        if held is not None:
            begin(job_lake, other, pipeline, held)
            log.info("began from %s after %.1f s", held.place, time.monotonic() - started)
        for number, run in enumerate(runs, start=1):
            with other.server.connect() as connection, taken_up(connection, lake, pipeline, run) as taken:
                transform(pipeline.name, taken)
                publish(other.server.connect, other.address, lake, pipeline, taken)
            log.info("%s/%s %s after %.1f s", number, len(runs), run.run_id, time.monotonic() - started)
        last = runs[-1].run_id if runs or held is None else held.run_id
        with other.server.connect() as rebuilt:
            lines = compare(shown, rebuilt, pipeline, last)
            if os.environ.get("TAKE_OVER") == "True" and not all(line.closed for line in lines):
                for table in take_over(shown, rebuilt, live.conninfo, pipeline, last):
                    log.info("%s", table)
                lines = compare(shown, rebuilt, pipeline, last)
    check_same(lines)
    log.info("%s tables are the same, row by row, by %s lines", len(lines) // 2, len(lines))


def begin(lake: JobLake, other: Warehouse, pipeline: PipelineContract, held: Checkpoint) -> None:
    """Begins from a checkpoint: `ods` and the dimensions' history are copied, all models built of them."""
    with other.server.connect() as connection:
        restore(connection, other.address, lake.lake, held)
        run_id = open_again(connection, pipeline, [table.name for table in pipeline.tables], held.run_id)
    try:
        rows = accept_live(lake.lake, pipeline, held, run_id)
        if any(rows.values()) and pipeline.models:
            build_models(build_session(f"rebuild {held.run_id}"), lake, pipeline, run_id, rows)
        with other.server.connect() as connection:
            merge_all(connection, other.address, lake.lake, pipeline, run_id)
    finally:
        clear(lake.lake, pipeline, run_id)


if __name__ == "__main__":
    run_job(rebuild)
