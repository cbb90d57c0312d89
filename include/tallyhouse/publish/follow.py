"""Brings a target to what the warehouse shows: runs applied or models copied, marts built, all compared.

A target keeps itself which runs it shows. Every published run of the pipeline that is missing there is
applied, oldest first, so a run that died between the two stores is finished by the next one, and a target
that was emptied is filled again from the lake. One that shows runs which the warehouse does not know, since
that was restored from an earlier backup, is copied anew. All of that is a change that nobody sees; it is
compared with the warehouse first, and then shown by one act. Publishes of one pipeline into one target wait
for each other.

A run that a target refuses, or whose increments are gone, is marked in `etl.run_target` and holds up no
other, nor another target. Its increments may no longer be applied once those of a later run are, so what it
changed is taken from the warehouse: every model is copied as it stands there now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from decimal import Decimal
from threading import Event, Thread
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql

from tallyhouse.contracts import PipelineContract
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.extract.to_raw import write_parts
from tallyhouse.lake import Lake
from tallyhouse.ledger import ROWS, Line, check_closed, mart_in, shown_in, store
from tallyhouse.models import definition
from tallyhouse.models.definition import Totals
from tallyhouse.models.digest import count_and_digest
from tallyhouse.models.postgres import NO_GROUP
from tallyhouse.publish.differing import Difference, compare_target, differences, with_keys
from tallyhouse.publish.limits import Capacity, check_fits
from tallyhouse.publish.phases import Phases
from tallyhouse.publish.staging import read_rows, table_schema
from tallyhouse.publish.target import Groups, RowsRefusedError, Target, task
from tallyhouse.runs import mark_shown, pipeline_of, published_runs, record_failure

log = logging.getLogger(__name__)

SILENT_SECONDS = 60
"""After how long without a word the warehouse takes the lock from a publish."""
DIFFERING = "rows that differ"


def publish(
    connect: Callable[[], psycopg.Connection[Any]],
    name: str,
    target: Target,
    lake: Lake,
    pipeline: PipelineContract,
    run_id: str,
    *,
    whole: bool = False,
) -> list[Line]:
    """Brings a target to what the warehouse shows, and proves it.

    Args:
        connect: Opens a connection to the warehouse.
        name: The target's, such as `clickhouse`.
        target: The target.
        lake: Where the increments are.
        pipeline: What the run carries.
        run_id: The run whose ledger gets the lines.
        whole: Copy every model from the warehouse, whatever the target shows.

    Returns:
        The lines of the hops from PostgreSQL to the target, and from its models to its marts.

    Raises:
        TallyhouseError: The run is not published, the warehouse holds what the target cannot, the target
            fails, or the ledger does not close.
    """
    with _server_errors(target), _alone(connect, _tables(name, target, pipeline)), connect() as connection:
        return _publish(connection, name, target, lake, pipeline, run_id, whole=whole)


def _tables(name: str, target: Target, pipeline: PipelineContract) -> str:
    """What one publish at a time fills."""
    return name if target.exclusive else f"{name} {pipeline.name}"


@contextmanager
def _server_errors(target: Target) -> Iterator[None]:
    try:
        yield
    except target.errors as error:
        raise TallyhouseError(
            f"{target.title} failed ({type(error).__name__}: {first_line(error)})",
            remedy="Nothing was half-published; see `make status`, then clear the task",
            transient=True,
        ) from error


def _publish(
    connection: psycopg.Connection[Any],
    name: str,
    target: Target,
    lake: Lake,
    pipeline: PipelineContract,
    run_id: str,
    *,
    whole: bool,
) -> list[Line]:
    capacity = Capacity.of(target)
    published = published_runs(connection, pipeline.name, name)
    if run_id not in published:
        raise TallyhouseError(
            "the warehouse does not show this run",
            remedy="Publish it into PostgreSQL first; clear that task",
        )
    target.prepare(lambda model: _rows(connection, capacity, model))
    if unknown := _unknown(connection, target, pipeline):
        log.warning(
            "%s shows runs that the warehouse does not know, such as %s: the warehouse was restored from an "
            "earlier backup. All models are copied as it has them",
            *(target.title, unknown[0]),
        )
    target.begin(pipeline)
    try:
        whole = whole or bool(unknown)
        lines = _change(connection, name, target, lake, pipeline, run_id, published, whole=whole)
    finally:
        # Where the server went away, the next change clears up; the first error counts.
        with suppress(*target.errors):
            target.abandon()
    if unknown:
        target.forget(unknown)
    shown = target.shown_runs()
    mark_shown(connection, name, [run for run in published if run in shown])
    return lines


def _unknown(connection: psycopg.Connection[Any], target: Target, pipeline: PipelineContract) -> list[str]:
    """Runs of a pipeline that a target shows and the warehouse has never heard of."""
    shown = sorted(run for run in target.shown_runs() if pipeline_of(run) == pipeline.name)
    with connection.transaction():
        known = connection.execute("SELECT run_id FROM etl.run WHERE run_id = ANY(%s)", (shown,)).fetchall()
    return [run for run in shown if (run,) not in known]


def _change(
    connection: psycopg.Connection[Any],
    name: str,
    target: Target,
    lake: Lake,
    pipeline: PipelineContract,
    run_id: str,
    published: Sequence[str],
    *,
    whole: bool,
) -> list[Line]:
    """What a publish changes, compared and then shown."""
    phases = Phases()
    shown = target.shown_runs()
    # Of two runs, the older one's increments would put its rows in the place of newer ones.
    last = max((number for number, run in enumerate(published) if run in shown), default=-1)
    left = [run for run in published[: last + 1] if run not in shown]
    applied = []
    for missing in published[last + 1 :]:
        with phases("apply"):
            refusal = _apply(name, target, lake, pipeline, missing)
        if refusal is None:
            applied.append(missing)
        else:
            left.append(missing)
            log.error("%s", refusal)
            record_failure(connection, missing, refusal.failure(task(name)), target=name)
    refusal, copied = None, False
    if left or whole:
        with phases("copy"):
            refusal = _copy(connection, name, target, lake, pipeline, run_id)
        copied = refusal is None
    if applied or copied:
        with phases("marts"):
            target.build_marts(pipeline)
    lines = []
    for model in pipeline.models:
        with phases("compare"):
            rows, *sums = _compare(connection, name, target, model)
        # Of one model in each run, in turn, all; of the others what has changed.
        its_turn = model == pipeline.models[len(published) % len(pipeline.models)]
        changed = [f"increment/{model}/run={run}" for run in applied or [run_id]]
        parts = [key for prefix in changed for key in lake.keys(prefix) if key.endswith(".parquet")]
        most = sum(lake.row_count(key) for key in parts) > rows.left / 2
        some = None if copied or its_turn or most else parts
        with phases("digest"):
            lines += [rows, *sums, *_digests(connection, name, target, lake, model, some)]
    with phases("check marts"):
        marts = [line for mart in pipeline.marts for line in check_mart(name, target, mart)]
        lines = [*_named(connection, name, target, lines), *marts]
    with connection.transaction():
        store.write(connection, run_id, pipeline.name, lines, [shown_in(name), mart_in(name)])
    if copied:
        refusal = _unfit(connection, target, pipeline)
    # What a target refuses holds up no other run; what differs without a reason is not shown.
    if refusal is None:
        check_closed(lines, run_id)
    runs = [*(left if copied else ()), *applied]
    if runs or copied:
        with phases("show"):
            target.show(pipeline, runs or [run_id])
        for run in runs:
            log.info("run %s is in %s", run, target.title)
    log.info("%s: %s", run_id, phases)
    if refusal is not None:
        raise refusal
    return lines


def _named(
    connection: psycopg.Connection[Any],
    name: str,
    target: Target,
    lines: list[Line],
) -> list[Line]:
    """Lines of models that do not close get some of the rows that differ."""

    def of(model: str) -> Iterator[Difference]:
        yield from differences(connection, target, model, compare_target(connection, target, model))

    found = {(line.table, shown_in(name)): of(line.table) for line in lines}
    return with_keys(connection, lines, found, target.errors)


def _unfit(
    connection: psycopg.Connection[Any], target: Target, pipeline: PipelineContract
) -> TallyhouseError | None:
    """Which rows of the warehouse a copy had to leave out, where the ledger only says how many."""
    try:
        with connection.transaction():
            for model in pipeline.models:
                check_fits(connection, "dwh", model, Capacity.of(target), model=model)
    except TallyhouseError as error:
        return error
    return None


def verify(
    connect: Callable[[], psycopg.Connection[Any]],
    name: str,
    target: Target,
    lake: Lake,
    pipeline: PipelineContract,
) -> list[Line]:
    """Compares every row of every model with the warehouse, and the marts with the models.

    It costs what the tables hold, so no run does it.

    Returns:
        Lines of the ledger, which are not written.
    """
    with _server_errors(target), _alone(connect, _tables(name, target, pipeline)), connect() as connection:
        target.prepare(lambda model: _rows(connection, Capacity.of(target), model))
        lines = []
        for model in pipeline.models:
            with _aside(connection, target, lake, [model], f"verify/{name}") as folders:
                differing = target.differing(definition(model), folders[model]) if folders else 0
            lines += _compare(connection, name, target, model)
            lines.append(Line(model, shown_in(name), DIFFERING, Decimal(0), Decimal(differing)))
        lines = _named(connection, name, target, lines)
        return lines + [line for mart in pipeline.marts for line in check_mart(name, target, mart)]


def compare_rebuilt(
    connect: Callable[[], psycopg.Connection[Any]],
    rebuilt: psycopg.Connection[Any],
    name: str,
    target: Target,
    lake: Lake,
    pipeline: PipelineContract,
) -> list[Line]:
    """Fills a target from a rebuilt warehouse, where nobody sees it, and compares that with what it shows.

    Args:
        connect: Opens a connection to the warehouse that the target follows.
        rebuilt: To the other database.
        name: The target's, such as `clickhouse`.
        target: The target.
        lake: Where the rows are written on their way.
        pipeline: Whose models and marts.

    Returns:
        Rows and digest of every model and mart; they are not written, and need not be closed.

    Raises:
        TallyhouseError: The target does not show what the warehouse shows yet, or fails.
    """
    with _server_errors(target), _alone(connect, _tables(name, target, pipeline)), connect() as connection:
        if owed := set(published_runs(connection, pipeline.name, name)) - target.shown_runs():
            raise TallyhouseError(
                f"{target.title} does not show run {min(owed)} yet",
                remedy=f"Bring it there first: `make repair RUN={min(owed)}`",
            )
        names = [*pipeline.models, *pipeline.marts]
        target.begin(pipeline)
        try:
            shown = [target.digest(definition(one), None) for one in names]
            with _aside(rebuilt, target, lake, pipeline.models, f"rebuilt/{name}") as folders:
                target.copy(pipeline, folders)
            target.build_marts(pipeline)
            built = [target.digest(definition(one), None) for one in names]
        finally:
            with suppress(*target.errors):
                target.abandon()
    return [
        Line(one, f"{name}=rebuilt", measure, Decimal(left), Decimal(right))
        for one, *sides in zip(names, shown, built, strict=True)
        for measure, left, right in zip((ROWS, "digest"), *sides, strict=True)
    ]


@contextmanager
def _alone(connect: Callable[[], psycopg.Connection[Any]], what: str) -> Iterator[None]:
    """Waits until no other publish fills the same tables, and keeps others out while the block runs.

    The warehouse takes the lock from a process that it has not heard of for `SILENT_SECONDS`, as when that
    was stopped; should it wake, its change is no longer the newest, and the target does not show it.
    """
    with connect() as connection:
        connection.autocommit = True
        connection.execute(f"SET idle_session_timeout = '{SILENT_SECONDS}s'".encode())
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"tallyhouse {what}",))
        done = Event()

        def be_heard() -> None:
            with suppress(psycopg.Error):  # the lock is lost: what counts is asked of the target
                while not done.wait(SILENT_SECONDS / 4):
                    connection.execute("SELECT 1")

        thread = Thread(target=be_heard, name="lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _apply(
    name: str, target: Target, lake: Lake, pipeline: PipelineContract, run_id: str
) -> TallyhouseError | None:
    """Applies a run's increments.

    Returns:
        Why the run could not be applied; None when it was.
    """
    try:
        with _refusals(target, run_id, name):
            target.apply(run_id, _increments(lake, pipeline, run_id))
    except TallyhouseError as error:
        error.add_context(f"pipeline {pipeline.name}", run_id)
        return error
    return None


@contextmanager
def _refusals(target: Target, run_id: str, name: str) -> Iterator[None]:
    try:
        yield
    except RowsRefusedError as error:
        raise TallyhouseError(
            f"{target.title} refused its rows ({error})",
            remedy="Fix what it names; the next run then copies the models from the warehouse, and so "
            f"does `make repair RUN={run_id}`",
            table=error.model,
            rule=f"{target.title} takes the rows",
        ) from error


def _copy(
    connection: psycopg.Connection[Any],
    name: str,
    target: Target,
    lake: Lake,
    pipeline: PipelineContract,
    run_id: str,
) -> TallyhouseError | None:
    """Copies every model as the warehouse has it, but for rows that the target cannot hold.

    Those are missing in the ledger then, by number, until the source is fixed.

    Returns:
        What the target said of the first model that it refused.
    """
    try:
        with (
            _aside(connection, target, lake, pipeline.models, f"repair/{name}") as folders,
            _refusals(target, run_id, name),
        ):
            target.copy(pipeline, folders)
    except TallyhouseError as error:
        error.add_context(f"pipeline {pipeline.name}", run_id)
        log.error("%s", error)
        return error
    return None


@contextmanager
def _aside(
    connection: psycopg.Connection[Any], target: Target, lake: Lake, models: Sequence[str], prefix: str
) -> Iterator[dict[str, str]]:
    """The warehouse's rows of models as Parquet of the lake, for as long as the block runs.

    Yields:
        By model, the prefix below which they are; models without rows are left out.
    """
    capacity = Capacity.of(target)
    folders = {model: f"{prefix}/{model}" for model in models}
    found = {}
    try:
        for model, folder in folders.items():
            _clear(lake, folder)
            with connection.transaction():
                schema = table_schema(connection, "dwh", model)
                parts = list(write_parts(_rows(connection, capacity, model), lake, folder, schema))
            if parts:
                found[model] = folder
            log.info("%s: %s rows of the warehouse", model, sum(part.rows for part in parts))
        yield found
    finally:
        for folder in folders.values():
            _clear(lake, folder)


def _clear(lake: Lake, folder: str) -> None:
    for key in lake.keys(folder):
        lake.filesystem.delete_file(lake.path(key))


def _rows(connection: psycopg.Connection[Any], capacity: Capacity, model: str) -> Iterator[pa.RecordBatch]:
    with connection.transaction():
        schema = table_schema(connection, "dwh", model)
        limits = capacity.limits_of(connection, "dwh", model)
        fitting = sql.SQL("NOT {}").format(capacity.outside(limits))
        yield from read_rows(connection, "dwh", model, schema, fitting)


def _increments(lake: Lake, pipeline: PipelineContract, run_id: str) -> list[str]:
    """The models that a run changed; the lake must still hold every row that the transform reported."""
    remedy = "Nothing is lost: the models are copied from the warehouse instead"
    key = f"report/{pipeline.name}/run={run_id}/transform.json"
    try:
        report = lake.read_json(key)
    except FileNotFoundError as error:
        raise TallyhouseError(f"{key} is gone from the lake", remedy=remedy) from error
    removed = report.get("removed", {})  # earlier runs removed nothing
    for model in pipeline.models:
        for folder, said in (("increment", report["models"][model]), ("removed", removed.get(model, 0))):
            keys = lake.keys(f"{folder}/{model}/run={run_id}")
            found = sum(lake.row_count(key) for key in keys if key.endswith(".parquet"))
            if found != said:
                raise TallyhouseError(
                    f"the transform reported {said} rows, the lake holds {found} of them",
                    remedy=remedy,
                    table=model,
                )
    return [model for model in pipeline.models if report["models"][model] or removed.get(model)]


def _compare(connection: psycopg.Connection[Any], name: str, target: Target, model: str) -> list[Line]:
    """Rows, and the sum of every measure, by currency where the definition says so."""
    measures = definition(model).measures
    names = list(measures.sum) if measures else []
    by = measures.by if measures else None
    sums = [sql.SQL("coalesce(sum({}), 0)::text").format(sql.Identifier(name)) for name in names]
    group: sql.Composable = sql.SQL("''")
    if by:
        group = sql.SQL("coalesce({}::text, {})").format(sql.Identifier(by), NO_GROUP)
    with connection.transaction():
        left = connection.execute(
            sql.SQL("SELECT {} FROM dwh.{} GROUP BY 1").format(
                sql.SQL(", ").join([group, sql.SQL("count(*)::text"), *sums]), sql.Identifier(model)
            )
        ).fetchall()
    here, there = _totals(left, names), _totals(target.totals(definition(model)), names)
    return _lines(model, shown_in(name), {ROWS: Decimal(0)} | here, there)


def _digests(
    connection: psycopg.Connection[Any],
    name: str,
    target: Target,
    lake: Lake,
    model: str,
    parts: list[str] | None,
) -> list[Line]:
    """The digest of all rows of a model, or of those whose keys are in some Parquet of the lake."""
    defined = definition(model)
    what = "all rows"
    with connection.transaction():
        query = sql.SQL("SELECT {} FROM dwh.{}").format(
            sql.SQL(count_and_digest("postgres", defined)), sql.Identifier(model)
        )
        if parts is not None:
            if not parts:
                return []
            what = "rows changed"
            key = sql.Identifier(defined.key[0])
            connection.execute(
                sql.SQL(
                    "CREATE TEMP TABLE changed ON COMMIT DROP AS SELECT {} FROM dwh.{} WITH NO DATA"
                ).format(key, sql.Identifier(model))
            )
            with connection.cursor() as cursor, cursor.copy("COPY changed FROM STDIN") as copy:
                for batch in lake.read_batches(parts, columns=[defined.key[0]]):
                    for value in batch.column(0).to_pylist():
                        copy.write_row((value,))
            connection.execute("ANALYZE changed")
            query += sql.SQL(" WHERE {0} IN (SELECT {0} FROM changed)").format(key)
        # Two servers: each digests its rows while the other does.
        with ThreadPoolExecutor(1) as pool:
            there = pool.submit(target.digest, defined, parts)
            here = connection.execute(query).fetchall()[0]
    return [
        Line(model, shown_in(name), f"{measure}({what})", Decimal(left), Decimal(right))
        for measure, left, right in zip(("count", "digest"), here, there.result(), strict=True)
    ]


def _totals(groups: Iterable[Sequence[str]], measures: list[str]) -> dict[str, Decimal]:
    """What was counted and summed, by the measure's name in the ledger: `rows`, `sum(amount) UAH`."""
    totals = {ROWS: Decimal(0)}
    for group, rows, *sums in groups:
        totals[ROWS] += Decimal(rows)
        for name, value in zip(measures, sums, strict=True):
            totals[f"sum({name}) {group}".rstrip()] = Decimal(value)
    return totals


def check_mart(name: str, target: Target, mart: str) -> list[Line]:
    """The sums of a mart against those of the model that it adds up, as its definition says."""
    defined = definition(mart)
    if defined.totals is None:
        return []
    here, there = (_mart_totals(defined.totals, rows) for rows in target.mart_totals(defined))
    return _lines(mart, mart_in(name), here, there)


def _lines(table: str, hop: str, here: dict[str, Decimal], there: dict[str, Decimal]) -> list[Line]:
    return [
        Line(table, hop, name, here.get(name, Decimal(0)), there.get(name, Decimal(0)))
        for name in dict.fromkeys([*here, *there])
    ]


def _mart_totals(said: Totals, rows: Groups) -> dict[str, Decimal]:
    """By the measure's name in the ledger: `rows`, `revenue UAH`."""
    found: dict[str, Decimal] = {ROWS: Decimal(0)} if said.rows else {}
    for row in rows:
        # A sum over no row is 0 in one store and NULL in another.
        values = [Decimal(value or 0) for value in row[len(said.by) :]]
        if said.rows:
            found[ROWS] += values.pop(0)
        group = " ".join(row[: len(said.by)])
        found |= {f"{name} {group}".rstrip(): value for name, value in zip(said.sums, values, strict=True)}
    return found
