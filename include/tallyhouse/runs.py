"""Runs and watermarks, kept in the warehouse beside the data they describe."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import psycopg

from tallyhouse.contracts import TableContract
from tallyhouse.errors import TallyhouseError


def new_run_id(pipeline: str, at: datetime) -> str:
    """A name for a run that sorts by time and can stand in a path: `techmarket-20260102T020000-3f2a`."""
    return f"{pipeline}-{at.astimezone(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def pipeline_of(run_id: str) -> str:
    """The pipeline that a run's name says."""
    return run_id.rsplit("-", 2)[0]


def staging_suffix(run_id: str) -> str:
    """What of a run's id stands in the names of its tables in `staging`: `20260102t0200003f2a`.

    Its length is fixed, so that a name is known for whose it is: `key_orders_<token>` is not of the
    pipeline `orders_eu`.
    """
    return "".join(run_id.rsplit("-", 2)[-2:]).lower()


STAGING_SUFFIX = "[0-9]{8}t[0-9a-f]{10}"
"""What `staging_suffix` looks like, for PostgreSQL."""


def open_run(
    connection: psycopg.Connection[Any],
    pipeline: str,
    *,
    tables: Iterable[str],
    dag_id: str,
    dag_run_id: str,
    logical_date: datetime | None,
    full_refresh: bool,
) -> str:
    """Registers a run that begins now.

    Earlier runs of the pipeline that were left open by a death are closed as failed: nothing of them
    was published, their watermark has not moved, and this run takes the same window again.

    Args:
        connection: To the warehouse.
        pipeline: Such as `techmarket`.
        tables: Names of the tables that the run promises to take; it is published with all of them or
            not at all.
        dag_id: The DAG.
        dag_run_id: Airflow's own name of the run.
        logical_date: A label.
        full_refresh: Whether whole tables are taken.

    Returns:
        The run's id.
    """
    run_id = new_run_id(pipeline, datetime.now(UTC))
    left = TallyhouseError(
        f"it was left open and taken over by run {run_id}",
        where=f"pipeline {pipeline}",
        remedy="Read the log of its last task: it was killed, or the warehouse did not answer at its end",
    )
    with connection.transaction():
        lock_pipeline(connection, pipeline)
        connection.execute(
            "UPDATE etl.run SET status = 'failed', failure = coalesce(failure, %s::jsonb), "
            "message = coalesce(message, %s) WHERE pipeline = %s AND status = 'running'",
            (json.dumps(left.failure(None)), left.what, pipeline),
        )
        connection.execute(
            "INSERT INTO etl.run (run_id, pipeline, tables, dag_id, dag_run_id, logical_date, status, "
            "full_refresh, started_at) VALUES (%s, %s, %s, %s, %s, %s, 'running', %s, clock_timestamp())",
            (run_id, pipeline, sorted(tables), dag_id, dag_run_id, logical_date, full_refresh),
        )
    return run_id


def lock_pipeline(connection: psycopg.Connection[Any], pipeline: str, idle_seconds: int = 60) -> None:
    """Waits until nobody else opens or publishes a run of the pipeline; held to the transaction's end.

    Args:
        connection: In a transaction of the warehouse.
        pipeline: Such as `techmarket`.
        idle_seconds: The server ends the transaction once its client has been silent for so long, as when
            its process was stopped; else the lock would be held for as long as that stands still.
    """
    connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{idle_seconds}s'".encode())
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"tallyhouse {pipeline}",))


def may_publish(connection: psycopg.Connection[Any], pipeline: str, run_id: str) -> bool:
    """Whether a run is still to be published; to be asked under `lock_pipeline`.

    A run that failed may be taken up again, by clearing its task, as long as no later one was opened:
    its increments were built on what the warehouse shows now.

    Returns:
        False when it is published already.

    Raises:
        TallyhouseError: The run is not known, or a later one was opened.
    """
    row = connection.execute(
        "SELECT r.status, (SELECT l.run_id FROM etl.run AS l WHERE l.pipeline = r.pipeline "
        "AND l.started_at > r.started_at ORDER BY l.started_at LIMIT 1) "
        "FROM etl.run AS r WHERE r.run_id = %s AND r.pipeline = %s FOR UPDATE OF r",
        (run_id, pipeline),
    ).fetchone()
    status, later = row or (None, None)
    if status == "published":
        return False
    if status is None or later is not None:
        raise TallyhouseError(
            f"the run was superseded by {later}" if later else "the run is not known",
            remedy="Start a new run; it takes the same window again",
        )
    return True


def promised_tables(connection: psycopg.Connection[Any], run_id: str) -> list[str]:
    """Names of the tables that a run promised to take when it was opened."""
    row = connection.execute("SELECT tables FROM etl.run WHERE run_id = %s", (run_id,)).fetchone()
    return list(row[0]) if row else []


def record_failure(
    connection: psycopg.Connection[Any], run_id: str, failure: dict[str, Any], target: str | None = None
) -> bool:
    """Keeps why a run fails, or why a target does not show it; the first reason stays.

    Args:
        connection: To the warehouse.
        run_id: The run.
        failure: As `TallyhouseError.failure` gives it; a later try of the same task replaces it.
        target: The target that it is about; None where the run itself is not published.

    Returns:
        False when there is nothing to fail: the run is not known, is published or shown there, or has failed
        for another reason already.
    """
    values = {
        "failure": json.dumps(failure, ensure_ascii=False),
        "message": failure["message"],
        "run": run_id,
        "task": failure["task"],
        "target": target,
    }
    of_run = "UPDATE etl.run SET failure = %(failure)s, message = %(message)s WHERE status <> 'published'"
    of_target = (
        "UPDATE etl.run_target SET state = 'failed', failure = %(failure)s "
        "WHERE state <> 'shown' AND target = %(target)s"
    )
    which = " AND run_id = %(run)s AND (failure IS NULL OR failure ->> 'task' = %(task)s) RETURNING 1"
    with connection.transaction():
        row = connection.execute((of_target if target else of_run) + which, values).fetchone()
    return row is not None


def forget_failure(connection: psycopg.Connection[Any], run_id: str, task: str) -> None:
    """Takes back what an earlier try of a task left, now that the task succeeded."""
    with connection.transaction():
        connection.execute(
            "UPDATE etl.run SET failure = NULL, message = NULL WHERE run_id = %s AND failure ->> 'task' = %s",
            (run_id, task),
        )


def mark_published(connection: psycopg.Connection[Any], run_id: str, targets: Iterable[str]) -> None:
    """Says that a run is published, and which targets owe it, in the caller's transaction.

    What other targets owed is owed no longer: they are switched off.
    """
    targets = list(targets)
    connection.execute(
        "UPDATE etl.run SET status = 'published', published_at = clock_timestamp(), failure = NULL, "
        "message = NULL WHERE run_id = %s",
        (run_id,),
    )
    connection.execute(
        "INSERT INTO etl.run_target (run_id, target, state) SELECT %s, unnest(%s::text[]), 'pending' "
        "ON CONFLICT DO NOTHING",
        (run_id, targets),
    )
    connection.execute(
        "DELETE FROM etl.run_target WHERE state <> 'shown' AND target <> ALL(%s) AND run_id IN "
        "(SELECT o.run_id FROM etl.run AS r JOIN etl.run AS o USING (pipeline) WHERE r.run_id = %s)",
        (targets, run_id),
    )


def count_published(connection: psycopg.Connection[Any], pipeline: str) -> int:
    """How many runs of a pipeline are published; what takes turns from run to run goes by it."""
    row = connection.execute(
        "SELECT count(*) FROM etl.run WHERE pipeline = %s AND status = 'published'", (pipeline,)
    ).fetchone()
    return int(row[0]) if row else 0


def published_runs(connection: psycopg.Connection[Any], pipeline: str, target: str) -> list[str]:
    """The published runs of a pipeline, oldest first; the target owes all of them from now on."""
    with connection.transaction():
        connection.execute(
            "INSERT INTO etl.run_target (run_id, target, state) SELECT run_id, %s, 'pending' FROM etl.run "
            "WHERE pipeline = %s AND status = 'published' ON CONFLICT DO NOTHING",
            (target, pipeline),
        )
        rows = connection.execute(
            "SELECT run_id FROM etl.run WHERE pipeline = %s AND status = 'published' ORDER BY published_at",
            (pipeline,),
        ).fetchall()
    return [row[0] for row in rows]


def mark_shown(connection: psycopg.Connection[Any], target: str, runs: Iterable[str]) -> None:
    """Says that a target shows these runs."""
    with connection.transaction():
        connection.execute(
            "UPDATE etl.run_target SET state = 'shown', shown_at = clock_timestamp(), failure = NULL "
            "WHERE run_id = ANY(%s) AND target = %s AND state <> 'shown'",
            (list(runs), target),
        )


def close_run(connection: psycopg.Connection[Any], run_id: str, failure: dict[str, Any]) -> str:
    """Closes a run as failed unless it was published.

    Args:
        connection: To the warehouse.
        run_id: The run.
        failure: What to keep of a run whose tasks left no reason.

    Returns:
        Its status after the call, `published` or `failed`.
    """
    with connection.transaction():
        connection.execute(
            "UPDATE etl.run SET status = 'failed' WHERE run_id = %s AND status = 'running'", (run_id,)
        )
        row = connection.execute("SELECT status FROM etl.run WHERE run_id = %s", (run_id,)).fetchone()
    if row and row[0] == "failed":
        record_failure(connection, run_id, failure)
    return str(row[0]) if row else "failed"


def newest_published(connection: psycopg.Connection[Any], pipeline: str) -> str | None:
    """The last run of a pipeline that was published; None where none was."""
    row = connection.execute(
        "SELECT run_id FROM etl.run WHERE pipeline = %s AND status = 'published' "
        "ORDER BY published_at DESC LIMIT 1",
        (pipeline,),
    ).fetchone()
    return row[0] if row else None


def last_published(connection: psycopg.Connection[Any], tables: Iterable[str]) -> dict[str, str]:
    """The last published run that took each table, by the table's name; without those that none took."""
    with connection.transaction():
        rows = connection.execute(
            "SELECT t, (SELECT r.run_id FROM etl.run AS r WHERE r.status = 'published' AND t = ANY(r.tables) "
            "ORDER BY r.published_at DESC LIMIT 1) FROM unnest(%s::text[]) AS t",
            (list(tables),),
        ).fetchall()
    return {table: run_id for table, run_id in rows if run_id}


def read_watermarks(
    connection: psycopg.Connection[Any], tables: Iterable[TableContract]
) -> dict[str, datetime | None]:
    """Where each table's next window starts, by table name; None where it was never published."""
    tables = list(tables)
    with connection.transaction():
        rows = connection.execute(
            "SELECT source, table_name, watermark FROM etl.watermark WHERE source = ANY(%s)",
            (sorted({table.source for table in tables}),),
        ).fetchall()
    known = {(source, name): watermark for source, name, watermark in rows}
    return {table.name: known.get((table.source, table.name)) if table.cursor else None for table in tables}
