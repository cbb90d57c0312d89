"""Publishes a run into the warehouse: staged by COPY, then one transaction for everything.

The transaction applies `ods`, merges the models, writes the ledger and moves the watermarks. It
commits only if the ledger closes, so the warehouse shows the run whole or not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from tallyhouse.contracts import PipelineContract, TableContract
from tallyhouse.contracts.evolve import evolved
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake, Manifest, check_parts, find_manifests
from tallyhouse.ledger import ROWS, Hop, Line, check_closed, store
from tallyhouse.models import definition
from tallyhouse.models.load import own_key, table_of
from tallyhouse.models.postgres import checks, merge
from tallyhouse.publish import deletes, staging, versions
from tallyhouse.publish import sql as statements
from tallyhouse.publish.differing import unlike_ods, with_keys
from tallyhouse.publish.first_load import indexes_afterwards
from tallyhouse.publish.limits import Capacity, check_fits
from tallyhouse.publish.phases import Phases
from tallyhouse.publish.remember import remember
from tallyhouse.publish.target import load
from tallyhouse.runs import (
    count_published,
    lock_pipeline,
    mark_published,
    may_publish,
    promised_tables,
    staging_suffix,
)

log = logging.getLogger(__name__)

COPIES = 2
"""Tables that are copied at the same time: a server decodes one while we encode the next."""


@dataclass(frozen=True)
class Staged:
    """What was loaded aside for a run.

    Attributes:
        tables: Staging table of each source table that the run took, by name.
        models: Staging table of each model with an increment, by name.
        digests: Staging table of the digests of each source table's rows, by name.
    """

    tables: dict[str, str]
    models: dict[str, str]
    digests: dict[str, str]


def publish(
    connect: Callable[[], psycopg.Connection[Any]],
    address: str,
    lake: Lake,
    pipeline: PipelineContract,
    run_id: str,
) -> list[Line]:
    """Brings a run's accepted rows and increments into the warehouse.

    A run that is published already is left as it is.

    Args:
        connect: Opens a connection to the warehouse.
        address: Its libpq URI, for COPY.
        lake: Where accepted rows and increments are.
        pipeline: What the run carries.
        run_id: The run.

    Returns:
        The run's ledger up to the warehouse.

    Raises:
        TallyhouseError: The run was superseded by a later one, or its ledger does not close; nothing was
            published, its lines are kept.
    """
    with connect() as connection:
        with connection.transaction():
            lock_pipeline(connection, pipeline.name)
            if not may_publish(connection, pipeline.name, run_id):
                log.info("run %s is published already: nothing to do", run_id)
                return store.read(connection, run_id)
            promised = promised_tables(connection, run_id)
        manifests = {f"{m.source}.{m.table}": m for m in find_manifests(lake, run_id, pipeline.tables)}
        pipeline = evolved(pipeline, {name: manifest.evolved for name, manifest in manifests.items()})
        report = lake.read_json(f"report/{pipeline.name}/run={run_id}/transform.json")
        taken = [table for table in pipeline.tables if table.name in promised]
        if missing := [table.qualified_name for table in taken if table.qualified_name not in manifests]:
            raise TallyhouseError(
                f"no committed raw batch of {', '.join(missing)}",
                remedy="Clear the extraction of that source, or start a new run",
            )
        for manifest in manifests.values():
            check_parts(lake, manifest)
        staged = Staged(tables={}, models={}, digests={})
        lines: list[Line] = []
        phases = Phases()
        with connection.transaction():
            follow_definitions(connection, pipeline, manifests)
        try:
            with phases("stage"):
                _stage(connection, address, lake, pipeline, taken, run_id, report, staged, manifests)
            with connection.transaction():
                # Asked again: another try, or a later run, may have come in while this one was staging.
                lock_pipeline(connection, pipeline.name)
                if not may_publish(connection, pipeline.name, run_id):
                    return store.read(connection, run_id)
                # The checks join whole tables; with the default they sort on disk, at twice the time.
                connection.execute("SET LOCAL work_mem = '128MB'")
                for table in taken:
                    manifest = manifests[table.qualified_name]
                    with phases("ods"):
                        lines += _apply_table(
                            connection, lake, table, manifest, report, staged.tables[table.name]
                        )
                    with phases("deletes"):
                        lines += deletes.mark(connection, lake, table, manifest)
                    with phases("digests"):
                        lines += remember(connection, table, manifest, staged.digests.get(table.name))
                    _move_watermark(connection, manifest)
                lines += _merge_models(connection, pipeline, staged, manifests, phases)
                store.write(connection, run_id, pipeline.name, lines, [Hop.ODS_MODEL])
                check_closed(lines, run_id)
                mark_published(connection, run_id, pipeline.targets)
        except TallyhouseError:
            # Rolled back with everything else; what an operator needs to see is written again.
            with connection.transaction():
                store.write(connection, run_id, pipeline.name, lines, [Hop.ODS_MODEL])
            raise
        finally:
            # On a lost connection the next publish of these tables clears up; the first error counts.
            with suppress(psycopg.OperationalError), connection.transaction():
                tables = (*staged.tables.values(), *staged.models.values(), *staged.digests.values())
                staging.drop(connection, tables)
    log.info("%s: %s", run_id, phases)
    return lines


def _stage(
    connection: psycopg.Connection[Any],
    address: str,
    lake: Lake,
    pipeline: PipelineContract,
    taken: list[TableContract],
    run_id: str,
    report: dict[str, Any],
    staged: Staged,
    manifests: dict[str, Manifest],
) -> None:
    token = staging_suffix(run_id)
    keys = {
        f"ods_{table.name}_{token}": _parquet(lake, f"accepted/{table.source}/{table.name}/run={run_id}")
        for table in taken
    }
    staged.tables.update(zip((table.name for table in taken), keys, strict=True))
    for model in pipeline.models:
        increment = _parquet(lake, f"increment/{model}/run={run_id}")
        rows = sum(lake.row_count(key) for key in increment)
        if rows != report["models"][model]:
            raise TallyhouseError(
                f"the transform reported {report['models'][model]} rows, its increment holds {rows}",
                remedy="Clear the task `transform`",
                table=model,
            )
        if rows:
            staged.models[model] = f"dwh_{model}_{token}"
            keys[staged.models[model]] = increment
    for contract in taken:
        if digests := manifests[contract.qualified_name].digests:
            staged.digests[contract.name] = f"digest_{contract.name}_{token}"
            keys[staged.digests[contract.name]] = [part.key for part in digests]
    with connection.transaction():
        for name, table in staged.tables.items():
            staging.create(connection, table, "ods", name)
        for name, table in staged.digests.items():
            staging.create_digests(connection, table, name)
        for name, table in staged.models.items():
            staging.create(connection, table, "dwh", name)
        columns = {table: staging.table_schema(connection, "staging", table) for table in keys}
    with ThreadPoolExecutor(COPIES) as pool:
        copies = [
            pool.submit(staging.copy_in, address, table, columns[table], lake.read_batches(parquet))
            for table, parquet in keys.items()
        ]
    for copy in copies:
        copy.result()
    with connection.transaction():
        for table in keys:
            connection.execute(sql.SQL("ANALYZE staging.{}").format(sql.Identifier(table)))
        # Before anything is published: a target would refuse it when PostgreSQL shows it already.
        for target in pipeline.targets:
            capacity = Capacity.of(load(target))
            for model, table in staged.models.items():
                check_fits(connection, "staging", table, capacity, model=model)


def follow_definitions(
    connection: psycopg.Connection[Any], pipeline: PipelineContract, manifests: dict[str, Manifest]
) -> None:
    """Gives `ods` the columns that were taken beyond what its contracts have in writing.

    Args:
        connection: To the warehouse, in a transaction.
        pipeline: Its contracts, with these columns.
        manifests: The batches, by the table's qualified name.
    """
    for table in pipeline.tables:
        if table.qualified_name not in manifests:
            continue
        for one in manifests[table.qualified_name].evolved:
            column = table.column(one["name"])
            names = {"table": sql.Identifier(table.name), "column": sql.Identifier(column.name)}
            for statement in (
                "ALTER TABLE ods.{table} ADD COLUMN IF NOT EXISTS {column} {type}",
                # Wider by now; where it is that already, nothing is done.
                "ALTER TABLE ods.{table} ALTER COLUMN {column} TYPE {type}",
            ):
                connection.execute(sql.SQL(statement).format(**names, type=sql.SQL(column.type.postgres)))


def _parquet(lake: Lake, prefix: str) -> list[str]:
    return [key for key in lake.keys(prefix) if key.endswith(".parquet")]


def _apply_table(
    connection: psycopg.Connection[Any],
    lake: Lake,
    table: TableContract,
    manifest: Manifest,
    report: dict[str, Any],
    staged: str,
) -> list[Line]:
    said = report["tables"][table.qualified_name]
    raw_rows = Decimal(sum(lake.row_count(part.key) for part in manifest.parts))
    accepted = _totals(connection, staged, table.control_totals)
    superseded = Decimal(said["superseded"])
    with indexes_afterwards(connection, "ods", table.name, staged=staged):
        row = connection.execute(
            statements.render(
                "dwh/ods/apply.sql",
                staging=f'staging."{staged}"',
                table=table.name,
                columns=table.column_names,
                key=table.key,
            )
        ).fetchone()
    inserted, updated, unchanged = map(Decimal, row or (0, 0, 0))
    applied = _applied_totals(connection, table, staged)
    name = table.qualified_name
    lines = [
        Line(name, Hop.SOURCE_RAW, ROWS, Decimal(manifest.source_rows), raw_rows),
        Line(
            name,
            Hop.RAW_ACCEPTED,
            ROWS,
            raw_rows,
            accepted[ROWS] + superseded,
            {"accepted": accepted[ROWS], "superseded": superseded},
        ),
        Line(
            name,
            Hop.ACCEPTED_ODS,
            ROWS,
            accepted[ROWS],
            inserted + updated + unchanged,
            {"inserted": inserted, "updated": updated, "unchanged": unchanged},
        ),
    ]
    for column in table.control_totals:
        measure = f"sum({column})"
        totals = {side: Decimal(value) for side, value in said["control_totals"][column].items()}
        lines += [
            Line(name, Hop.SOURCE_RAW, measure, Decimal(manifest.control_totals[column]), totals["raw"]),
            Line(
                name,
                Hop.RAW_ACCEPTED,
                measure,
                totals["raw"],
                accepted[column] + totals["superseded"],
                {"accepted": accepted[column], "superseded": totals["superseded"]},
            ),
            Line(
                name,
                Hop.ACCEPTED_ODS,
                measure,
                accepted[column],
                sum(applied[column].values(), Decimal(0)),
                applied[column],
            ),
        ]
    return [*lines, *_policy_lines(connection, table, said.get("values", {}), staged)]


def _policy_lines(
    connection: psycopg.Connection[Any], table: TableContract, said: dict[str, dict[str, int]], staged: str
) -> list[Line]:
    """Of each column with a policy: what became of raw's values, counted here where they are accepted."""
    if not table.replacing:
        return []
    counts = [sql.SQL("count({})").format(sql.Identifier(column.name)) for column in table.replacing]
    found = connection.execute(
        sql.SQL("SELECT {} FROM staging.{}").format(sql.SQL(", ").join(counts), sql.Identifier(staged))
    ).fetchone()
    lines = []
    for column, there in zip(table.replacing, found or (), strict=True):
        count = {what: Decimal(number) for what, number in said[column.name].items()}
        policy = column.on_bad_value
        # A sentinel is a value that is there, a NULL is none.
        accepted = Decimal(there) - (0 if policy.sentinel is None else count["replaced_accepted"])
        parts = {
            "accepted": accepted,
            "superseded": count["superseded"],
            f"by {policy.name}": count["replaced_accepted"] + count["replaced_superseded"],
        }
        lines.append(
            Line(
                table.qualified_name,
                Hop.RAW_ACCEPTED,
                f"values({column.name})",
                count["raw"],
                sum(parts.values(), Decimal(0)),
                parts,
            )
        )
    return lines


def _totals(connection: psycopg.Connection[Any], staged: str, columns: tuple[str, ...]) -> dict[str, Decimal]:
    sums = [sql.SQL("coalesce(sum({}), 0)::numeric").format(sql.Identifier(column)) for column in columns]
    row = connection.execute(
        sql.SQL("SELECT {} FROM staging.{}").format(
            sql.SQL(", ").join([sql.SQL("count(*)::numeric"), *sums]), sql.Identifier(staged)
        )
    ).fetchone()
    return dict(zip((ROWS, *columns), row or (), strict=True))


def _applied_totals(
    connection: psycopg.Connection[Any], table: TableContract, staged: str
) -> dict[str, dict[str, Decimal]]:
    """By control total: its sum over the rows of `ods`, and over the staged rows that `ods` overtook."""
    if not table.control_totals:
        return {}
    row = connection.execute(
        statements.render(
            "dwh/ods/totals.sql",
            staging=f'staging."{staged}"',
            table=table.name,
            columns=table.column_names,
            key=table.key,
            totals=table.control_totals,
        )
    ).fetchone()
    sums = iter(row or ())
    return {column: {"ods": next(sums), "superseded": next(sums)} for column in table.control_totals}


def merge_model(
    connection: psycopg.Connection[Any], model: str, staged: str | None, manifests: dict[str, Manifest]
) -> list[Line]:
    """Brings an increment into a model, and takes its deleted rows out.

    Args:
        connection: To the warehouse, in a transaction.
        model: Its name.
        staged: The staging table of its increment; None where it has none.
        manifests: The batches, by the table's qualified name.

    Returns:
        Of a dimension with history, how many versions were opened and closed.
    """
    defined = definition(model)
    driver = table_of(defined, defined.driver)
    if not defined.history and driver.qualified_name in manifests:
        deletes.remove(connection, defined, driver, manifests[driver.qualified_name])
    if staged is None:
        return []
    before = versions.count(connection, defined, staged) if defined.history else None
    with indexes_afterwards(connection, "dwh", model, staged=staged) as bare:
        connection.execute(merge(defined, staging=f'staging."{staged}"', bare=bare).encode())
    if before is None:
        return []
    return versions.lines(defined, before, versions.count(connection, defined, staged))


def check_model(connection: psycopg.Connection[Any], model: str, touched: str | None = None) -> list[Line]:
    """The checks of a model on `ods`.

    Args:
        connection: To the warehouse.
        model: Its name.
        touched: A table with the keys that are looked at, None for all; their lines have the part `changed`.
    """
    lines = []
    for statement in checks(definition(model), touched):
        part = touched is not None and touched in statement
        for measure, left, right in connection.execute(statement.encode()).fetchall():
            parts = {"changed": Decimal(right)} if part else {}
            lines.append(Line(model, Hop.ODS_MODEL, measure, Decimal(left), Decimal(right), parts))
    return lines


def _merge_models(
    connection: psycopg.Connection[Any],
    pipeline: PipelineContract,
    staged: Staged,
    manifests: dict[str, Manifest],
    phases: Phases,
) -> list[Line]:
    turn = count_published(connection, pipeline.name)
    lines = []
    for number, model in enumerate(pipeline.models):
        with phases("models"):
            lines += merge_model(connection, model, staged.models.get(model), manifests)
        # Of one model in each run, in turn, all is looked at; of the others what has changed.
        whole = turn % len(pipeline.models) == number
        with phases("checks"):
            if whole or _mostly_new(connection, model, staged):
                touched = None
            else:
                touched = _touch(connection, model, staged, manifests)
            lines += check_model(connection, model, touched)
    found = {(model, str(Hop.ODS_MODEL)): unlike_ods(connection, model) for model in pipeline.models}
    return with_keys(connection, lines, found)


def _mostly_new(connection: psycopg.Connection[Any], model: str, staged: Staged) -> bool:
    """Whether so much of a model came with the run that all of it is looked at as quickly.

    By PostgreSQL's own estimates.
    """
    if model not in staged.models:
        return False

    def counted(name: str) -> float:
        row = connection.execute(
            "SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)", (name,)
        ).fetchone()
        return row[0] if row else -1

    if counted(f'dwh."{model}"') < 0:  # never; that takes no longer for a long table
        connection.execute(sql.SQL("ANALYZE dwh.{}").format(sql.Identifier(model)))
    return 2 * counted(f'staging."{staged.models[model]}"') > counted(f'dwh."{model}"')


def _touch(
    connection: psycopg.Connection[Any], model: str, staged: Staged, manifests: dict[str, Manifest]
) -> str:
    """A temporary table of the keys whose rows of a model this run may have changed.

    They are those of its increment, and, whatever that holds, those of the rows that were taken or deleted.
    """
    defined = definition(model)
    driver = table_of(defined, defined.driver)
    keys = sql.SQL(", ").join(map(sql.Identifier, driver.key))
    own = sql.SQL(", ").join(map(sql.Identifier, own_key(defined)))
    parts = [sql.SQL("SELECT {} FROM ods.{} WHERE FALSE").format(keys, sql.Identifier(driver.name))]
    if increment := staged.models.get(model):
        parts.append(sql.SQL("SELECT {} FROM staging.{}").format(own, sql.Identifier(increment)))
    if taken := staged.tables.get(driver.name):
        parts.append(sql.SQL("SELECT {} FROM staging.{}").format(keys, sql.Identifier(taken)))
    if driver.qualified_name in manifests and manifests[driver.qualified_name].deleted:
        parts.append(sql.SQL("SELECT {} FROM {}").format(keys, deletes.marked_keys(driver)))
    name = f"touched_{model}"
    connection.execute(
        sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS {}").format(
            sql.Identifier(name), sql.SQL(" UNION ").join(parts)
        )
    )
    connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(name)))
    return f'pg_temp."{name}"'


def _move_watermark(connection: psycopg.Connection[Any], manifest: Manifest) -> None:
    if manifest.watermark_to is None:
        return
    connection.execute(
        "INSERT INTO etl.watermark AS w (source, table_name, watermark, run_id, moved_at) "
        "VALUES (%s, %s, %s, %s, clock_timestamp()) ON CONFLICT (source, table_name) DO UPDATE "
        "SET watermark = excluded.watermark, run_id = excluded.run_id, moved_at = excluded.moved_at "
        # Back too: the server's clock was set back, or rows came with earlier times than their commit.
        "WHERE excluded.watermark != w.watermark",
        (manifest.source, manifest.table, manifest.watermark_to, manifest.run_id),
    )
