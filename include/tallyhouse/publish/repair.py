"""Copies what the warehouse shows into ClickHouse again, for runs that ClickHouse refused or lost.

    make repair RUN=techmarket-20260102T020000-3f2a
    python -m tallyhouse.publish.repair [--run RUN]

Every model of the run's pipeline is copied as PostgreSQL has it now, the marts are rebuilt and the
two stores are compared; the run's ledger gets the lines.
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

import clickhouse_connect
import psycopg
from clickhouse_connect.driver.exceptions import ClickHouseError

from tallyhouse.contracts import load_pipeline
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.lake import Lake
from tallyhouse.publish import clickhouse
from tallyhouse.runs import record_failure
from tallyhouse.settings import Settings, SettingsError, load_settings

# A run of events has nothing in ClickHouse that a run publishes: its curated files are all.
NEWEST = (
    "SELECT DISTINCT ON (pipeline) run_id, pipeline FROM etl.run WHERE status = 'published' "
    "AND pipeline IN (SELECT pipeline FROM etl.run WHERE status = 'published' AND clickhouse_at IS NULL) "
    "ORDER BY pipeline, published_at DESC"
)


def main() -> int:
    """Repairs one run, or every pipeline that has a run which ClickHouse does not show.

    Returns:
        0 when the stores agree afterwards.
    """
    parser = argparse.ArgumentParser(prog="python -m tallyhouse.publish.repair", description=main.__doc__)
    parser.add_argument("--run", help="a published run; without it, all pipelines are looked at")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    logging.getLogger("tallyhouse").setLevel(logging.INFO)
    try:
        settings = load_settings()
        runs = _runs(settings, arguments.run)
        for run_id, pipeline in runs:
            lines = repair(settings, pipeline, run_id)
            sys.stdout.write(
                f"{run_id}: ClickHouse shows what the warehouse shows, {len(lines)} lines close\n"
            )
    except (TallyhouseError, SettingsError) as error:
        sys.stderr.write(f"repair: {error}\n")
        return 1
    except (psycopg.OperationalError, ClickHouseError, OSError) as error:
        sys.stderr.write(f"repair: {first_line(error)}. Is the stack up? `make status`\n")
        return 1
    if not runs:
        sys.stdout.write("nothing to repair: ClickHouse shows every published run\n")
    return 0


def repair(settings: Settings, pipeline: str, run_id: str) -> list[Any]:
    """Copies every model of a pipeline into ClickHouse, and compares.

    Args:
        settings: Where the stores are.
        pipeline: The pipeline.
        run_id: A published run of it, whose ledger gets the lines.

    Returns:
        The lines, all closed.

    Raises:
        TallyhouseError: The warehouse holds what ClickHouse cannot, or the stores differ; kept in `etl.run`.
    """
    lake = {
        "endpoint": settings.minio_url,
        "access_key": settings.minio_root_user,
        "secret_key": settings.minio_root_password,
    }
    with clickhouse_connect.get_client(
        host=settings.clickhouse_host,
        port=settings.clickhouse_http_port,
        username=settings.clickhouse_user,
        password=settings.clickhouse_password,
        database="dwh",
        compress=False,
    ) as client:
        try:
            return clickhouse.publish(
                lambda: _connect(settings),
                client,
                Lake.s3(settings.lake_bucket, **lake),
                clickhouse.LakeAccess(**lake),
                load_pipeline(pipeline),
                run_id,
                whole=True,
            )
        except TallyhouseError as error:
            error.add_context(f"pipeline {pipeline}", run_id)
            with _connect(settings) as connection:
                record_failure(connection, run_id, error.failure(clickhouse.TASK))
            raise


def _runs(settings: Settings, named: str | None) -> list[tuple[str, str]]:
    with _connect(settings) as connection:
        if named is None:
            return connection.execute(NEWEST).fetchall()
        found = connection.execute(
            "SELECT run_id, pipeline FROM etl.run WHERE run_id = %s AND status = 'published'", (named,)
        ).fetchall()
    if not found:
        raise TallyhouseError(
            "the warehouse does not show this run",
            where=f"run {named}",
            remedy="`make ledger` lists the last runs",
        )
    return found


def _connect(settings: Settings) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=settings.postgres_host,
        port=settings.postgres_port,
        dbname=settings.dwh_db,
        user=settings.dwh_user,
        password=settings.dwh_password,
        connect_timeout=5,
    )


if __name__ == "__main__":
    sys.exit(main())
