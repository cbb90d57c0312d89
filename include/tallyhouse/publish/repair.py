"""Copies what the warehouse shows into targets again, for runs that one refused or lost; or compares only.

    make repair RUN=techmarket-20260102T020000-3f2a
    python -m tallyhouse.publish.repair [--run RUN] [--target NAME]
    python -m tallyhouse.publish.repair --verify

Every model of the run's pipeline is copied as PostgreSQL has it now, the marts are rebuilt and the
two stores are compared; the run's ledger gets the lines. `--verify` changes nothing: it compares every row of
every model.
"""

from __future__ import annotations

import argparse
import logging
import sys
from contextlib import closing

import psycopg

from tallyhouse.contracts import load_pipeline
from tallyhouse.errors import TallyhouseError, first_line, in_context
from tallyhouse.lake import Lake
from tallyhouse.ledger import Line, check_closed
from tallyhouse.publish import follow
from tallyhouse.publish.target import LakeAccess, Place, Target, load, task
from tallyhouse.runs import record_failure
from tallyhouse.servers import warehouse
from tallyhouse.settings import Settings, SettingsError, load_settings

NEWEST = (
    "SELECT DISTINCT ON (pipeline) run_id, pipeline FROM etl.run WHERE status = 'published' "
    "ORDER BY pipeline, published_at DESC"
)
LACKS = (
    "SELECT 1 FROM etl.run_target AS t JOIN etl.run AS r ON r.run_id = t.run_id "
    "WHERE r.pipeline = %s AND t.target = %s AND t.state <> 'shown'"
)


def main() -> int:
    """Repairs one run, or every pipeline that has a run which a target does not show.

    Returns:
        0 when the stores agree afterwards.
    """
    parser = argparse.ArgumentParser(prog="python -m tallyhouse.publish.repair", description=main.__doc__)
    parser.add_argument("--run", help="a published run; without it, all pipelines are looked at")
    parser.add_argument("--target", help="one target; without it, all of the pipeline's")
    parser.add_argument("--verify", action="store_true", help="compare every row, change nothing")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    logging.getLogger("tallyhouse").setLevel(logging.INFO)
    done = 0
    try:
        settings = load_settings()
        for run_id, pipeline in _runs(settings, arguments.run):
            for target in load_pipeline(pipeline).targets:
                if arguments.target not in (None, target):
                    continue
                if arguments.verify or arguments.run or _lacks(settings, pipeline, target):
                    lines = repair(settings, pipeline, run_id, target, only_compare=arguments.verify)
                    shows = f"{load(target).title} shows what the warehouse shows"
                    sys.stdout.write(f"{run_id}: {shows}, {len(lines)} lines close\n")
                    done += 1
    except (TallyhouseError, SettingsError) as error:
        sys.stderr.write(f"repair: {error}\n")
        return 1
    except (psycopg.OperationalError, OSError) as error:
        sys.stderr.write(f"repair: {first_line(error)}. Is the stack up? `make status`\n")
        return 1
    if not done:
        sys.stdout.write("nothing to repair: the targets show every published run\n")
    return 0


def repair(
    settings: Settings, pipeline: str, run_id: str, target: str, *, only_compare: bool = False
) -> list[Line]:
    """Copies every model of a pipeline into a target, and compares.

    Args:
        settings: Where the stores are.
        pipeline: The pipeline.
        run_id: A published run of it, whose ledger gets the lines.
        target: The target's name.
        only_compare: Compare every row, and change nothing.

    Returns:
        The lines, all closed.

    Raises:
        TallyhouseError: The warehouse holds what the target cannot, or the stores differ; what a repair
            meets is kept in `etl.run_target`.
    """
    access = LakeAccess(settings.minio_url, settings.minio_root_user, settings.minio_root_password)
    lake = Lake.s3(settings.lake_bucket, **vars(access))
    contract = load_pipeline(pipeline)
    with (
        in_context(f"pipeline {pipeline}", run_id),
        closing(_open(settings, target, lake, access)) as opened,
    ):
        if only_compare:
            lines = follow.verify(warehouse(settings).connect, target, opened, lake, contract)
            check_closed(lines, run_id)
            return lines
        try:
            return follow.publish(
                lambda: warehouse(settings).connect(), target, opened, lake, contract, run_id, whole=True
            )
        except TallyhouseError as error:
            error.add_context(f"pipeline {pipeline}", run_id)
            with warehouse(settings).connect() as connection:
                record_failure(connection, run_id, error.failure(task(target)), target)
            raise


def _open(settings: Settings, name: str, lake: Lake, access: LakeAccess) -> Target:
    target = load(name)
    try:
        return target.open(Place.of(settings, name), lake, access)
    except target.errors as error:
        raise TallyhouseError(
            f"{target.title} does not answer ({first_line(error)})",
            remedy="Is the stack up? `make status`",
            transient=True,
        ) from error


def _runs(settings: Settings, named: str | None) -> list[tuple[str, str]]:
    with warehouse(settings).connect() as connection:
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


def _lacks(settings: Settings, pipeline: str, target: str) -> bool:
    with warehouse(settings).connect() as connection:
        return connection.execute(LACKS, (pipeline, target)).fetchone() is not None


if __name__ == "__main__":
    sys.exit(main())
