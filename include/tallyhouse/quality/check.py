"""The gate of a run in one process, without Spark.

Importing this module takes seconds: it loads Great Expectations.
"""

from __future__ import annotations

import logging
import time
from tempfile import TemporaryDirectory

import duckdb
import pyarrow.dataset as ds

from tallyhouse.contracts import TableContract, load_pipeline
from tallyhouse.contracts.evolve import evolved
from tallyhouse.lake import Lake, Manifest, check_parts, committed_batches
from tallyhouse.quality.gate_duckdb import DuckBatch, DuckDbGate
from tallyhouse.quality.metrics_sql import BATCH
from tallyhouse.quality.typed_sql import literal, typed_select
from tallyhouse.quality.verdict import judge

log = logging.getLogger(__name__)

MEMORY = "1500MB"
"""What DuckDB may take before it goes on on disk."""


def check(lake: Lake, pipeline_name: str, run_id: str) -> None:
    """Runs each table's suite over a run's raw batch; see `verdict` for what it writes.

    Args:
        lake: Where raw is, and where the verdict goes.
        pipeline_name: Such as `techmarket`.
        run_id: The run whose raw batches are committed.

    Raises:
        TallyhouseError: A suite failed, a batch is missing, or the lake cannot be reached.
    """
    started = time.monotonic()
    pipeline = load_pipeline(pipeline_name)
    batches = committed_batches(lake, pipeline.tables, run_id)
    for committed in batches.values():
        check_parts(lake, committed, contents=True)
    pipeline = evolved(pipeline, {name: batch.evolved for name, batch in batches.items()})
    gate = DuckDbGate(run_id)
    results = {}
    with TemporaryDirectory(prefix="gate-") as folder, duckdb.connect() as database:
        database.execute(f"SET temp_directory = {literal(folder)}; SET memory_limit = '{MEMORY}'")
        database.execute("SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
        for contract in pipeline.tables:
            manifest = batches.get(contract.qualified_name)
            if manifest is None:
                continue
            began = time.monotonic()
            with database.cursor() as connection:
                if manifest.rows:
                    open_batch(connection, lake, manifest, contract)
                batch = DuckBatch(connection, manifest.rows)
                results[contract.qualified_name] = gate.check(batch, contract, manifest.rows)
            took = time.monotonic() - began
            log.info("%s: %d rows in %.1f s", contract.qualified_name, manifest.rows, took)
    log.info("%d suites after %.1f s", len(results), time.monotonic() - started)
    unique = {name: batches[name].key for name in sorted(gate.unique_keys)}
    judge(lake, gate, pipeline.name, run_id, results, unique)


def open_batch(
    connection: duckdb.DuckDBPyConnection, lake: Lake, manifest: Manifest, contract: TableContract
) -> None:
    """Makes a committed raw batch, typed, the view `batch` of a connection.

    The Parquet is read in place by Arrow: DuckDB's own extension for S3 is not in its wheel, and nothing
    is downloaded at run time.
    """
    parts = [lake.path(part.key) for part in manifest.parts]
    connection.register("raw", ds.dataset(parts, filesystem=lake.filesystem, format="parquet"))
    wire = {column["name"]: column["type"] for column in manifest.columns}
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {BATCH} AS {typed_select(contract, wire, 'raw')}")
