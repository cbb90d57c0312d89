"""Commits a run to the curated table: its ledger must close, then one entry of the log makes it so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow.parquet as pq

from tallyhouse.contracts import PipelineContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.events.log import (
    CURATED,
    QUARANTINE,
    Commit,
    EventStore,
    File,
    State,
    staging_of,
)
from tallyhouse.events.take import OBJECTS
from tallyhouse.lake import Lake, Manifest, batch_prefix, find_manifests
from tallyhouse.ledger import ROWS, Hop, Line, check_closed, store
from tallyhouse.runs import lock_pipeline, mark_published, may_publish

log = logging.getLogger(__name__)

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
                lock_pipeline(connection, pipeline.name)
                if not may_publish(connection, pipeline.name, run_id):
                    return store.read(connection, run_id)
                (contract,) = pipeline.tables
                (manifest,) = find_manifests(lake, run_id, [contract])
                report = lake.read_json(f"report/{pipeline.name}/run={run_id}/curate.json")
                state = events.state()
                if manifest.rows and report["base_version"] != state.version:
                    raise TallyhouseError(
                        f"it was curated on number {report['base_version']} of the log, which is at "
                        f"{state.version}",
                        remedy="Start a new run; it takes the same objects",
                    )
                entry, new_rows = _entry(events, state, run_id)
                objects = (
                    f"{batch_prefix(contract.source, contract.name, run_id, manifest.attempt)}/{OBJECTS}"
                )
                lines += _ledger(lake, manifest, objects, report, entry, new_rows)
                check_closed(lines, run_id)
                if manifest.rows:
                    _copy(lake, objects, events.lake, entry.objects)
                    events.commit(Commit(**(vars(entry) | {"ledger": tuple(map(_as_json, lines))})))
                    events.finish(entry)
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

    A committed run's files are put in their places; the warehouse learns of committed runs that it does not
    know as published, as when it died first or was restored from a backup; what runs wrote aside that never
    committed is removed.

    Args:
        connection: To the warehouse.
        events: The bucket of the events.
        pipeline: The events.
        run_id: The run that begins.

    Returns:
        What the log says.
    """
    with connection.transaction():
        lock_pipeline(connection, pipeline.name)
        state = events.state()
        if state.commits:
            events.finish(state.commits[-1])
        events.drop(staging_of("")[:-1], but=staging_of(run_id))
        known = {
            row[0]
            for row in connection.execute(
                "SELECT run_id FROM etl.run WHERE pipeline = %s AND status = 'published'", (pipeline.name,)
            )
        }
        for commit in state.commits:
            if commit.run_id not in known:
                log.warning("run %s is in the log and not in the warehouse: written there now", commit.run_id)
                connection.execute(
                    "INSERT INTO etl.run (run_id, pipeline, tables, dag_id, dag_run_id, status, started_at) "
                    "VALUES (%s, %s, %s, 'events_curated', 'from the log', 'running', clock_timestamp()) "
                    "ON CONFLICT (run_id) DO NOTHING",
                    (commit.run_id, pipeline.name, [table.name for table in pipeline.tables]),
                )
                store.write(connection, commit.run_id, pipeline.name, map(_from_json, commit.ledger))
                mark_published(connection, commit.run_id, ())
    return state


def _entry(events: EventStore, state: State, run_id: str) -> tuple[Commit, int]:
    """The run's entry of the log, and how many rows its files have beyond those they replace."""
    staging = staging_of(run_id)
    files: list[File] = []
    replaced = 0
    by_folder: dict[str, list[str]] = {}
    for key in events.lake.keys(f"{staging}/files"):
        folder = key.removeprefix(f"{staging}/files/").rpartition("/")[0]
        by_folder.setdefault(folder, []).append(key)
    for folder, keys in by_folder.items():
        tail = state.tail(folder)
        first = len(state.partitions.get(folder, ())) - (1 if tail else 0)
        replaced += tail.rows if tail else 0
        files += [
            _file(events, key, f"{CURATED}/{folder}/part-{number:05d}.parquet")
            for number, key in enumerate(keys, start=first)
        ]
    quarantine = [
        _file(events, key, f"{QUARANTINE}/{run_id}/part-{number:05d}.parquet")
        for number, key in enumerate(events.lake.keys(f"{staging}/quarantine"))
    ]
    objects = f"{CURATED}/_runs/{run_id}/{OBJECTS}"
    entry = Commit(state.version + 1, run_id, tuple(files), tuple(quarantine), objects, ())
    return entry, sum(file.rows for file in files) - replaced


def _file(events: EventStore, staged: str, key: str) -> File:
    lake = events.lake
    size = lake.filesystem.get_file_info(lake.path(staged)).size
    return File(key, lake.row_count(staged), size, staged)


def _ledger(
    lake: Lake, manifest: Manifest, objects: str, report: Report, entry: Commit, new_rows: int
) -> list[Line]:
    name = f"{manifest.source}.{manifest.table}"
    with lake.filesystem.open_input_file(lake.path(objects)) as file:
        taken = pq.read_table(file)
    raw = Decimal(sum(lake.row_count(part.key) for part in manifest.parts))
    # By the footers of the files; superseded rows are in none.
    parts = {
        "curated": Decimal(new_rows),
        "superseded": Decimal(report["counts"]["superseded"]),
        "quarantined": Decimal(sum(file.rows for file in entry.quarantine)),
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
        # Entries of the log never change: older ones say "kept aside" of what is quarantined.
        {
            "quarantined" if name == "kept aside" else name: Decimal(value)
            for name, value in content["parts"].items()
        },
    )
