"""Commits a run to the curated table: its ledger must close, then one commit makes it so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow.parquet as pq

from tallyhouse.contracts import PipelineContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.events.table import (
    CURATED,
    OBJECTS,
    EventStore,
    File,
    State,
    ledger_of,
    objects_of,
    partition_of,
    staging_of,
)
from tallyhouse.lake import Lake, Manifest, batch_prefix, find_manifests
from tallyhouse.ledger import ROWS, Hop, Line, check_closed, store
from tallyhouse.runs import lock_pipeline, mark_published, may_publish

log = logging.getLogger(__name__)

COPY_SECONDS = 1800
"""How long copying a run's objects may take; the warehouse hears nothing meanwhile."""

Report = dict[str, Any]


def publish(
    connect: Callable[[], psycopg.Connection[Any]],
    events: EventStore,
    lake: Lake,
    pipeline: PipelineContract,
    run_id: str,
) -> list[Line]:
    """Makes a curated run visible, and writes its ledger.

    A run that is published already is left as it is. One that died after its commit is finished by
    `recover`, at the start of the next.

    Args:
        connect: Opens a connection to the warehouse.
        events: The bucket of the events.
        lake: Where the raw batch and the report are.
        pipeline: The events.
        run_id: The run.

    Returns:
        The run's ledger.

    Raises:
        TallyhouseError: The run was superseded, or its ledger does not close; nothing is visible of it, its
            lines are kept.
    """
    lines: list[Line] = []
    with connect() as connection:
        try:
            with connection.transaction():
                lock_pipeline(connection, pipeline.name, COPY_SECONDS)
                if not may_publish(connection, pipeline.name, run_id):
                    return store.read(connection, run_id)
                (contract,) = pipeline.tables
                (manifest,) = find_manifests(lake, run_id, [contract])
                report = lake.read_json(f"report/{pipeline.name}/run={run_id}/curate.json")
                state = events.state()
                if state.knows(run_id):  # a try that died after its commit
                    lines += map(_from_json, events.lake.read_json(ledger_of(run_id)))
                else:
                    if manifest.rows and report["base_version"] != state.version:
                        raise TallyhouseError(
                            f"it was curated on version {report['base_version']} of the table, which is at "
                            f"{state.version}",
                            remedy="Start a new run; it takes the same objects",
                        )
                    prefix = batch_prefix(contract.source, contract.name, run_id, manifest.attempt)
                    written = _written(events, run_id)
                    lines += _ledger(events, lake, manifest, f"{prefix}/{OBJECTS}", report, written)
                    check_closed(lines, run_id)
                    if manifest.rows:
                        _copy(lake, f"{prefix}/{OBJECTS}", events.lake, objects_of(run_id))
                        events.lake.write_json(ledger_of(run_id), [*map(_as_json, lines)])
                        for staged, file in written.items():
                            events.copy(staged, file.key)
                        events.commit(state, run_id, [*written.values()])
                events.settle(run_id)
                store.write(connection, run_id, pipeline.name, lines)
                mark_published(connection, run_id, ())
        except TallyhouseError:
            # Rolled back with everything else; what an operator needs to see is written again.
            with connection.transaction():
                store.write(connection, run_id, pipeline.name, lines)
            raise
    return lines


def recover(
    connection: psycopg.Connection[Any], events: EventStore, pipeline: PipelineContract, run_id: str
) -> State:
    """Finishes what deaths left behind, before a run begins.

    The warehouse learns of committed runs that it does not know as published, as when it died first or was
    restored from a backup; their quarantined lines are put in their place; what runs wrote aside that never
    committed is removed. Then small files are put together.

    Args:
        connection: To the warehouse.
        events: The bucket of the events.
        pipeline: The events.
        run_id: The run that begins.

    Returns:
        The table as it is then.
    """
    with connection.transaction():
        lock_pipeline(connection, pipeline.name, COPY_SECONDS)
        events.adopt()
        state = events.state()
        for staged in events.staged():
            if state.knows(staged):
                events.settle(staged)
            elif staged != run_id:
                events.drop(staging_of(staged))
        known = {
            row[0]
            for row in connection.execute(
                "SELECT run_id FROM etl.run WHERE pipeline = %s AND status = 'published'", (pipeline.name,)
            )
        }
        for committed in events.runs(state):
            if committed not in known:
                log.warning("run %s is in the table and not in the warehouse: written there now", committed)
                connection.execute(
                    "INSERT INTO etl.run (run_id, pipeline, tables, dag_id, dag_run_id, status, started_at) "
                    "VALUES (%s, %s, %s, 'events_curated', 'from the log', 'running', clock_timestamp()) "
                    "ON CONFLICT (run_id) DO NOTHING",
                    (committed, pipeline.name, [table.name for table in pipeline.tables]),
                )
                ledger = events.lake.read_json(ledger_of(committed))
                store.write(connection, committed, pipeline.name, map(_from_json, ledger))
                mark_published(connection, committed, ())
        return events.tidy(state)


def _written(events: EventStore, run_id: str) -> dict[str, File]:
    """What Spark has written aside for the table: where each file is, and what it will be."""
    lake, found = events.lake, {}
    for number, key in enumerate(lake.keys(f"{staging_of(run_id)}/files")):
        folder = "/".join(key.split("/")[-3:-1])
        size = lake.filesystem.get_file_info(lake.path(key)).size
        to = f"{CURATED}/{folder}/{run_id}-{number:05d}.parquet"
        found[key] = File(to, lake.row_count(key), size, *partition_of(key))
    return found


def _ledger(
    events: EventStore,
    lake: Lake,
    manifest: Manifest,
    objects: str,
    report: Report,
    written: dict[str, File],
) -> list[Line]:
    name = f"{manifest.source}.{manifest.table}"
    with lake.filesystem.open_input_file(lake.path(objects)) as file:
        taken = pq.read_table(file)
    raw = Decimal(sum(lake.row_count(part.key) for part in manifest.parts))
    quarantine = events.lake.keys(f"{staging_of(manifest.run_id)}/quarantine")
    # By the footers of the files; superseded rows are in none.
    parts = {
        "curated": Decimal(sum(file.rows for file in written.values())),
        "superseded": Decimal(report["counts"]["superseded"]),
        "quarantined": Decimal(sum(map(events.lake.row_count, quarantine))),
    }
    digests = {outcome: Decimal(value) for outcome, value in report["digests"].items()}
    moved = {outcome: digests[outcome] for outcome in ("curated", "superseded")}
    totals = {measure: Decimal(total) for measure, total in manifest.control_totals.items()}
    return [
        Line(name, Hop.SOURCE_RAW, "objects", totals["objects"], Decimal(len(set(taken["key"].to_pylist())))),
        Line(name, Hop.SOURCE_RAW, "bytes", totals["bytes"], Decimal(sum(taken["bytes"].to_pylist()))),
        Line(name, Hop.SOURCE_RAW, ROWS, Decimal(manifest.source_rows), raw),
        Line(name, Hop.RAW_CURATED, ROWS, raw, sum(parts.values(), Decimal(0)), parts),
        Line(name, Hop.RAW_CURATED, "digest", digests["raw"], sum(moved.values(), Decimal(0)), moved),
    ]


def _copy(source: Lake, key: str, target: Lake, to: str) -> None:
    with source.filesystem.open_input_stream(source.path(key)) as stream, target.create(to) as sink:
        sink.write(stream.read())


def _as_json(line: Line) -> dict[str, Any]:
    return {
        "table": line.table,
        "hop": line.hop,
        "measure": line.measure,
        "left": str(line.left),
        "right": str(line.right),
        "parts": {name: str(value) for name, value in line.parts.items()},
    }


def _from_json(content: dict[str, Any]) -> Line:
    return Line(
        content["table"],
        Hop(content["hop"]),
        content["measure"],
        Decimal(content["left"]),
        Decimal(content["right"]),
        # A run's ledger never changes: older ones say "kept aside" of what is quarantined.
        {
            "quarantined" if name == "kept aside" else name: Decimal(value)
            for name, value in content["parts"].items()
        },
    )
