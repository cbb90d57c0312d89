"""A DuckDB file with the star schema and the marts, for a laptop: `TARGETS=clickhouse,duckdb`.

The connection's host is the file. It is open only while runs are brought in, by one transaction. Its tables
are made from the definitions; where they are not as those say, all are made anew and filled again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import sqlglot
from sqlglot import exp

from tallyhouse.contracts import Kind, PipelineContract
from tallyhouse.extract.keys import FETCH
from tallyhouse.lake import Lake
from tallyhouse.models import Definition, ModelKind, all_definitions, definition
from tallyhouse.models.definition import COUNTS, ModelColumn
from tallyhouse.models.digest import count_and_digest
from tallyhouse.models.load import own_key
from tallyhouse.models.mart_totals import totals
from tallyhouse.models.postgres import NO_GROUP
from tallyhouse.publish import sql as statements
from tallyhouse.publish import target
from tallyhouse.publish.target import Groups, LakeAccess, Place, Rows, RowsRefusedError
from tallyhouse.settings import ROOT

_TYPES = {
    **{kind: kind.name for kind in (Kind.BOOLEAN, Kind.SMALLINT, Kind.INTEGER, Kind.BIGINT)},
    **{Kind.DATE: "DATE", Kind.DOUBLE: "DOUBLE", Kind.BINARY: "BLOB"},
    Kind.TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
}
# What the marts' SQL uses of ClickHouse's functions and sqlglot does not translate.
_MACROS = """
    CREATE OR REPLACE TEMP MACRO toString(x) AS x::VARCHAR;
    CREATE OR REPLACE TEMP MACRO assumeNotNull(x) AS x;
    CREATE OR REPLACE TEMP MACRO uniqExact(x) AS count(DISTINCT x);
    CREATE OR REPLACE TEMP MACRO uniqExactIf(x, c) AS count(DISTINCT x) FILTER (WHERE c);
    CREATE OR REPLACE TEMP MACRO sumIf(x, c) AS coalesce(sum(x) FILTER (WHERE c), 0);
"""
_RUNS = "CREATE TABLE dwh.etl_run (run_id VARCHAR PRIMARY KEY, pipeline VARCHAR, applied_at TIMESTAMPTZ)"


class Target(target.Target):
    """See `tallyhouse.publish.target.Target`; a change is a transaction."""

    title = "DuckDB"
    engine = "duckdb"
    exclusive = True  # a file has one writer
    ranges: ClassVar[Mapping[str, tuple[str, str, str]]] = {}
    decimals = 38
    errors = (duckdb.Error,)
    migrations = None

    def __init__(self, file: Path, lake: Lake) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lake, self._db = lake, duckdb.connect(file)
        self._changing, self._applied = False, dict[str, Sequence[str]]()
        self._db.execute(f"SET TimeZone = 'UTC'; {_MACROS}")

    @classmethod
    def open(cls, place: Place, lake: Lake, access: LakeAccess) -> Self:
        """Opens the file; a relative path is below the checkout."""
        return cls(ROOT / place.host, lake)

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def prepare(self, rows: Rows) -> None:
        """Makes the tables anew unless they are as the definitions say; the calendar is the warehouse's."""
        wanted = {(m.name, n, type_of(c)) for m in all_definitions() for n, c in m.columns.items()}
        found = self._db.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = 'dwh' AND table_name <> 'etl_run'"
        ).fetchall()
        if wanted == set(found):
            return
        with self._transaction():
            self._db.execute(f"DROP SCHEMA IF EXISTS dwh CASCADE; CREATE SCHEMA dwh; {_RUNS}")
            for model in all_definitions():
                self._db.execute(create(model))
                if model.kind is ModelKind.CALENDAR:
                    self._db.register("aside", pa.Table.from_batches(rows(model.name)))
                    self._db.execute(f'INSERT INTO dwh."{model.name}" BY NAME SELECT * FROM aside')
                elif model.kind is ModelKind.DIMENSION:
                    values = list(model.unknown_member.values())
                    marks = ", ".join("?" * len(values))
                    self._db.execute(f'INSERT INTO dwh."{model.name}" VALUES ({marks})', values)

    def shown_runs(self) -> set[str]:
        """The runs of `etl_run`."""
        return {run_id for (run_id,) in self._db.execute("SELECT run_id FROM dwh.etl_run").fetchall()}

    def forget(self, runs: Sequence[str]) -> None:
        """From `etl_run`."""
        self._db.execute("DELETE FROM dwh.etl_run WHERE run_id = ANY(?)", [list(runs)])

    def begin(self, pipeline: PipelineContract) -> None:
        """Begins a transaction."""
        self._db.begin()
        self._changing, self._applied = True, {}

    def apply(self, run_id: str, models: Sequence[str]) -> None:
        """Rows by their keys."""
        with self._again_when_refused():
            for model in models:
                key, gone = definition(model).key[0], own_key(definition(model))[0]
                for folder, column in (("removed", gone), ("increment", key)):
                    those = f'"{column}" IN (SELECT "{column}" FROM aside)'
                    if self._lake.keys(prefix := f"{folder}/{model}/run={run_id}"):
                        self._replace(model, prefix, those, insert=folder == "increment")
        self._applied[run_id] = models

    def copy(self, pipeline: PipelineContract, folders: Mapping[str, str]) -> None:
        """All models, or none."""
        with self._again_when_refused():
            for model in pipeline.models:
                self._replace(model, folders.get(model), "true")

    def build_marts(self, pipeline: PipelineContract) -> None:
        """By the translated queries."""
        for mart in pipeline.marts:
            query = translated(statements.render(f"clickhouse/models/{mart}/build.sql", staging=mart))
            self._db.execute(f'DELETE FROM dwh."{mart}"; INSERT INTO dwh."{mart}" {query}')

    def show(self, pipeline: PipelineContract, runs: Sequence[str]) -> None:
        """Commits."""
        for run_id in runs:
            self._db.execute(
                "INSERT INTO dwh.etl_run VALUES (?, ?, now()) ON CONFLICT DO NOTHING", [run_id, pipeline.name]
            )
        self._db.commit()
        self._changing = False

    def abandon(self) -> None:
        """Rolls back."""
        if self._changing:
            self._db.rollback()
            self._changing = False

    def totals(self, model: Definition) -> Groups:
        """Sums of DECIMAL and integers, which are exact."""
        measures = model.measures
        sums = [f'coalesce(sum("{name}"), 0)::VARCHAR' for name in (measures.sum if measures else ())]
        by = measures.by if measures else None
        group = f"coalesce(\"{by}\"::VARCHAR, '{NO_GROUP}')" if by else "''"
        listed = ", ".join([group, "count(*)::VARCHAR", *sums])
        return self._db.execute(f'SELECT {listed} FROM dwh."{model.name}" GROUP BY 1').fetchall()

    def digest(self, model: Definition, parts: Sequence[str] | None) -> tuple[str, str]:
        """Keys are read from the lake by Arrow."""
        which = ""
        if parts is not None:
            self._register(*parts)
            which = f' WHERE "{model.key[0]}" IN (SELECT "{model.key[0]}" FROM aside)'
        query = f'SELECT {count_and_digest("duckdb", model)} FROM dwh."{model.name}"{which}'
        ((rows, digest),) = self._db.execute(query).fetchall()
        return rows, digest

    def mart_totals(self, mart: Definition) -> tuple[Groups, Groups]:
        """By the two queries that the definition gives, translated."""
        of_model, of_mart = (self._db.execute(translated(q)).fetchall() for q in totals(mart))
        return of_model, of_mart

    def differing(self, model: Definition, folder: str) -> int:
        """By EXCEPT, both ways; a row that stands twice counts twice."""
        mine, theirs = (f"SELECT {_names(model.name)} FROM {one}" for one in (f'dwh."{model.name}"', "aside"))
        self._register(*self._parts(folder))
        ((rows,),) = self._db.execute(
            f"SELECT count(*) FROM (({mine} EXCEPT ALL {theirs}) UNION ALL ({theirs} EXCEPT ALL {mine}))"
        ).fetchall()
        return int(rows)

    def ask(self, query: str) -> Iterator[Sequence[Any]]:
        """By a cursor of the same transaction."""
        found = self._db.execute(query)
        while rows := found.fetchmany(FETCH):
            yield from rows

    @contextmanager
    def _again_when_refused(self) -> Iterator[None]:
        """A statement that fails ends the transaction: what was applied before comes into a new one."""
        try:
            yield
        except RowsRefusedError:
            before, self._applied = self._applied, {}
            self._db.rollback()
            self._db.begin()
            for run_id, models in before.items():
                self.apply(run_id, models)
            raise

    def _replace(self, model: str, folder: str | None, which: str, *, insert: bool = True) -> None:
        """Puts the rows below a prefix, if there is one, in the place of those that are there."""
        if folder:
            self._register(*self._parts(folder))
        try:
            self._db.execute(f'DELETE FROM dwh."{model}" WHERE {which}')
            if folder and insert:
                self._db.execute(f'INSERT INTO dwh."{model}" BY NAME SELECT {_names(model)} FROM aside')
        except (duckdb.DataError, duckdb.IntegrityError, duckdb.ProgrammingError) as error:
            raise RowsRefusedError(model, error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.begin()
        try:
            yield
        except BaseException:
            self._db.rollback()
            raise
        self._db.commit()

    def _parts(self, folder: str) -> list[str]:
        return [key for key in self._lake.keys(folder) if key.endswith(".parquet")]

    def _register(self, *parts: str) -> None:
        """Parquet objects as the view `aside`, read in place by Arrow."""
        keys = [self._lake.path(key) for key in parts]
        self._db.register("aside", ds.dataset(keys, filesystem=self._lake.filesystem, format="parquet"))


def type_of(column: ModelColumn) -> str:
    """A column's type as DuckDB spells it; the counts of marts have its own names."""
    if column.type in COUNTS:
        return column.type.upper()
    parsed = column.column_type
    decimal = f"DECIMAL({parsed.precision},{parsed.scale})"
    return decimal if parsed.kind is Kind.DECIMAL else _TYPES.get(parsed.kind, "VARCHAR")


def create(model: Definition) -> str:
    """The statement that makes a model's or mart's table."""
    columns = (f'"{n}" {type_of(c)}{"" if c.nullable else " NOT NULL"}' for n, c in model.columns.items())
    return f'CREATE TABLE dwh."{model.name}" ({", ".join(columns)})'


def translated(query: str) -> str:
    """A query over the star schema in ClickHouse's SQL as one in DuckDB's; of an INSERT, what it inserts."""
    select: Any = sqlglot.parse_one(query, dialect="clickhouse").find(exp.Select)
    for part in select.find_all(exp.Select):
        part.set("settings", None)
        if part.args.get("group"):
            # ClickHouse groups by the aliases of the list, DuckDB by columns of the same name before them.
            part.set("group", exp.Group(all=True))
    return str(select.sql(dialect="duckdb", comments=False))


def _names(model: str) -> str:
    return ", ".join(f'"{column}"' for column in definition(model).columns)
