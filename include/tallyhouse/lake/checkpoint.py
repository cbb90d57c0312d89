"""Checkpoints: what the warehouse cannot be given again once raw is gone, as Parquet in the lake.

    checkpoint/<pipeline>/run=<run_id>/<schema>/<table>/part-*.parquet
    checkpoint/<pipeline>/run=<run_id>/_manifest.json          written last: its presence is the commit

A checkpoint is the state after one published run: every table of `ods`, and the dimensions with history,
whose versions no table of `ods` has. All other models follow from these. With the raw batches of the later
runs it takes the place of those before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql

from tallyhouse.contracts import ColumnType, Kind, PipelineContract, load_pipeline
from tallyhouse.errors import TallyhouseError
from tallyhouse.extract.digest import row_digest, total
from tallyhouse.extract.raw_digest import raw_view
from tallyhouse.extract.to_raw import write_parts
from tallyhouse.lake.manifest import MANIFEST, Part
from tallyhouse.lake.store import Lake
from tallyhouse.models import definition
from tallyhouse.models.digest import TIMES
from tallyhouse.publish.staging import read_rows, table_schema

log = logging.getLogger(__name__)

PREFIX = "checkpoint"
_KINDS = {
    pa.int16(): Kind.SMALLINT,
    pa.int32(): Kind.INTEGER,
    pa.int64(): Kind.BIGINT,
    pa.bool_(): Kind.BOOLEAN,
    pa.date32(): Kind.DATE,
    pa.float64(): Kind.DOUBLE,
    pa.timestamp("us", tz="UTC"): Kind.TIMESTAMP,
    pa.string(): Kind.TEXT,
    pa.binary(): Kind.BINARY,
}


@dataclass(frozen=True)
class Held:
    """A table in a checkpoint.

    Attributes:
        rows: How many rows it had.
        digest: Of all its columns but floating-point ones, by PostgreSQL.
        parts: The Parquet objects; none where it was empty.
    """

    rows: int
    digest: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Checkpoint:
    """The state of a pipeline's tables after a run.

    Attributes:
        pipeline: Such as `techmarket`.
        run_id: The last published run that it holds.
        published_at: When that one was published, UTC; it holds all that were published before, too.
        made_at: When it was written, UTC.
        tables: By qualified name, such as `ods.orders`.
    """

    pipeline: str
    run_id: str
    published_at: datetime
    made_at: datetime
    tables: dict[str, Held]

    @property
    def place(self) -> str:
        """Its folder in the lake."""
        return folder(self.pipeline, self.run_id)

    @property
    def parts(self) -> list[Part]:
        """Of all tables."""
        return [part for held in self.tables.values() for part in held.parts]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; times as ISO 8601 with offset."""
        times = {name: getattr(self, name).isoformat() for name in ("published_at", "made_at")}
        return asdict(self) | times

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Checkpoint:
        """Reads what `to_json` wrote."""
        times = {name: datetime.fromisoformat(content[name]) for name in ("published_at", "made_at")}
        tables = {
            name: Held(held["rows"], held["digest"], tuple(Part(**part) for part in held["parts"]))
            for name, held in content["tables"].items()
        }
        return cls(content["pipeline"], content["run_id"], tables=tables, **times)


def folder(pipeline: str, run_id: str) -> str:
    """Where a checkpoint is."""
    return f"{PREFIX}/{pipeline}/run={run_id}"


def write(connection: psycopg.Connection[Any], lake: Lake, pipeline: PipelineContract) -> Checkpoint:
    """Writes a checkpoint of what the warehouse shows now, and verifies it.

    It is read in one snapshot. What an earlier try left at the same place is overwritten: without its
    manifest nobody reads it.

    Args:
        connection: To the warehouse; not in a transaction.
        lake: Where to.
        pipeline: Whose tables.

    Returns:
        The checkpoint, committed.

    Raises:
        TallyhouseError: The pipeline was never published, or the lake holds other rows than the warehouse;
            nothing was committed.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # The last day that Python knows is another one elsewhere.
        connection.execute("SET LOCAL TIME ZONE 'UTC'")
        row = connection.execute(
            "SELECT run_id, published_at FROM etl.run WHERE pipeline = %s AND status = 'published' "
            "ORDER BY published_at DESC LIMIT 1",
            (pipeline.name,),
        ).fetchone()
        if row is None:
            raise TallyhouseError(
                "no run was published, so there is nothing to keep",
                where=f"pipeline {pipeline.name}",
                remedy="Run it first",
            )
        run_id, published_at = row
        place = folder(pipeline.name, run_id)
        tables = {
            f"{schema}.{name}": _write_table(connection, lake, place, schema, name)
            for schema, name in tables_of(pipeline)
        }
    made = Checkpoint(pipeline.name, run_id, published_at, datetime.now(UTC), tables)
    lake.write_json(f"{place}/{MANIFEST}", made.to_json())
    log.info("%s: %s rows of %s tables", place, sum(one.rows for one in tables.values()), len(tables))
    return made


def tables_of(pipeline: PipelineContract) -> Iterable[tuple[str, str]]:
    """The tables of a checkpoint, each as schema and name."""
    yield from (("ods", table.name) for table in pipeline.tables)
    yield from (("dwh", model) for model in pipeline.models if definition(model).history)


def can_be_written(connection: psycopg.Connection[Any], pipeline: str) -> PipelineContract | None:
    """The contract of a pipeline whose tables are all in `ods`; None where it has none, or ends elsewhere."""
    try:
        contract = load_pipeline(pipeline)
    except ValueError:
        return None
    names = [f'ods."{table.name}"' for table in contract.tables]
    with connection.transaction():
        row = connection.execute(
            "SELECT bool_and(to_regclass(n) IS NOT NULL) FROM unnest(%s::text[]) AS n", (names,)
        )
        return contract if row.fetchall() == [(True,)] else None


def read(lake: Lake, pipeline: str, run_id: str) -> Checkpoint:
    """A committed checkpoint."""
    return Checkpoint.from_json(lake.read_json(f"{folder(pipeline, run_id)}/{MANIFEST}"))


def _write_table(connection: psycopg.Connection[Any], lake: Lake, place: str, schema: str, name: str) -> Held:
    columns = pa.schema([_in_lake(field) for field in table_schema(connection, schema, name)])
    rows = read_rows(connection, schema, name, columns)
    parts = tuple(write_parts(rows, lake, f"{place}/{schema}/{name}", columns))
    said = connection.execute(
        sql.SQL("SELECT count(*), {} FROM {}").format(
            sql.SQL(digest_of("postgres", columns)), sql.Identifier(schema, name)
        )
    ).fetchone()
    count, digest = said or (0, "0")
    found = read_back(lake, parts)
    if found != (count, digest):
        raise TallyhouseError(
            f"the warehouse has {count} rows with the digest {digest}, the checkpoint {found[0]} with "
            f"{found[1]}",
            remedy="Nothing was committed, and no raw was removed. Start the upkeep again; if it stays so, "
            "keep raw (LAKE_RAW_DAYS=0)",
            table=f"{schema}.{name}",
            rule="warehouse=checkpoint",
        )
    return Held(count, digest, parts)


def read_back(lake: Lake, parts: Iterable[Part]) -> tuple[int, str]:
    """Rows and digest of a table's parts as they are in the lake, by DuckDB."""
    keys = [part.key for part in parts]
    if not keys:
        return 0, "0"
    with lake.filesystem.open_input_file(lake.path(keys[0])) as file:
        columns = pq.read_schema(file)
    with raw_view(lake, keys) as connection:
        row = connection.execute(f"SELECT count(*), {digest_of('duckdb', columns)} FROM raw").fetchone()
    assert row is not None  # noqa: S101 - an aggregate without GROUP BY has one row
    return int(row[0]), str(row[1])


def _in_lake(field: pa.Field) -> pa.Field:
    """DuckDB has no decimals of more than 38 digits: they are kept as PostgreSQL prints them."""
    return pa.field(field.name, pa.string()) if pa.types.is_decimal256(field.type) else field


def digest_of(engine: str, columns: pa.Schema) -> str:
    """The digest of all rows of a table, as SQL over these columns, in their order; see `extract.digest`.

    Args:
        engine: `postgres` or `duckdb`.
        columns: As `table_schema` has them.
    """
    values = []
    for field in columns:
        is_decimal = pa.types.is_decimal(field.type)
        kind = Kind.DECIMAL if is_decimal else _KINDS[field.type]
        value = f'"{field.name}"'
        if kind is Kind.TIMESTAMP:
            value = TIMES[engine](value)
        elif kind is Kind.TEXT:
            value = f"CAST({value} AS text)"  # CHAR(n) is padded but as text
        values.append((ColumnType(kind), value))
    return total(engine, row_digest(engine, values))
