"""Which rows of each model a run's changed rows touch, worked out in PostgreSQL.

The joins that the definitions declare are one graph. The keys of the run's rows, and the columns by
which they are joined, are loaded aside; statements made from the graph walk from each changed row to the
rows of the model that it reaches, over what `ods` has and what the run brings, so that a row that moved
touches both where it was and where it goes. A new version of a dimension touches only what happened from
its beginning on.

What is found may be more than what changes; it is never less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql

from tallyhouse.contracts import PipelineContract, TableContract
from tallyhouse.models.definition import EXISTING, Definition
from tallyhouse.models.load import definition, table_of
from tallyhouse.models.paths import Link, Path, key_of, only_presence, paths
from tallyhouse.publish import staging
from tallyhouse.publish.deletes import copy_keys


@dataclass(frozen=True)
class Deleted:
    """Rows of a table that the source no longer has.

    Attributes:
        at: When that was seen; UTC.
        keys: Their keys, as the wire carries them.
    """

    at: datetime
    keys: Sequence[tuple[Any, ...]]


Load = Callable[[str, pa.Schema], None]
"""Puts rows into a staging table, given its name and the columns that it takes."""


_TOUCHED = "touched"
"""Stands for the model's touched rows where a walk begins with them."""


@dataclass(frozen=True)
class _Way:
    """A walk over a model's inputs; a column of one is `<input>.<column>`.

    Attributes:
        links: What joins them.
        goal: The columns that are wanted in the end.
        times: Pairs of columns of which the first is at or after the second.
    """

    links: tuple[Link, ...]
    goal: tuple[str, ...]
    times: tuple[tuple[str, str], ...] = ()

    def wanted(
        self, reached: set[str], links: Sequence[Link], times: Sequence[tuple[str, str]]
    ) -> dict[str, str]:
        """The columns of the inputs reached that are needed further on, each with a short name of its own.

        Args:
            reached: The inputs.
            links: Those of the way that are still to be walked.
            times: Those that are still to be compared.
        """
        later = [*self.goal, *(end for link in links for end in (link.left, link.right))]
        later += [column for pair in times for column in pair]
        needed = dict.fromkeys(column for column in later if _of(column) in reached)
        return {column: f"c{number}" for number, column in enumerate(needed)}


@contextmanager
def affected(
    connection: psycopg.Connection[Any], pipeline: PipelineContract, run_id: str
) -> Iterator[AffectedKeys]:
    """Works with staging tables of the run's own for as long as the block runs, and drops them after it.

    Their names carry hashes of the pipeline's whole name and of the run. What killed runs of the same
    pipeline left behind is dropped first.

    Args:
        connection: To the warehouse, each statement its own transaction.
        pipeline: Whose models are built.
        run_id: The run.
    """
    mine = f"keys_{_digest(pipeline.name)}_"
    _drop(connection, mine)
    try:
        yield AffectedKeys(connection, pipeline, f"{mine}{_digest(run_id)}_")
    finally:
        _drop(connection, mine)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _drop(connection: psycopg.Connection[Any], prefix: str) -> None:
    left = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'staging' AND starts_with(tablename, %s)",
        (prefix,),
    ).fetchall()
    staging.drop(connection, (name for (name,) in left))


@dataclass
class AffectedKeys:
    """The keys of one run.

    Attributes:
        connection: To the warehouse.
        pipeline: Whose models are built.
        prefix: What the names of the staging tables begin with.
        changed: Tables with rows in this run, and dimensions with versions that are new or differ.
        gone: Tables of which the source no longer has some rows, and since when that is known.
    """

    connection: psycopg.Connection[Any]
    pipeline: PipelineContract
    prefix: str
    changed: set[str] = field(default_factory=set)
    gone: dict[str, datetime] = field(default_factory=dict)
    _steps: Iterator[int] = field(default_factory=count)

    def stage(
        self,
        rows: dict[str, int],
        load: Callable[[TableContract], Load],
        deleted: Mapping[str, Deleted] | None = None,
    ) -> None:
        """Loads the keys and join columns of the run's rows aside.

        Args:
            rows: How many rows of each table the run brings.
            load: Gives what puts a table's rows into its staging table.
            deleted: Keys of rows that the source no longer has, by table; such rows count as changed, and are
                no longer there for any model.
        """
        models = self._built()
        contracts = {table.name: table for table in self.pipeline.tables}
        for name in dict.fromkeys(table for model in models for table in model.tables):
            contract = contracts[name]
            columns = _projection(models, contract)
            self._create(f"t_{name}", f"ods.{_id(name)}", columns)
            if rows.get(name):
                self.changed.add(name)
                self._fill(f"t_{name}", load(contract))
            if deleted and name in deleted:
                self._stage_deleted(contract, columns, deleted[name])

    def _stage_deleted(self, contract: TableContract, columns: tuple[str, ...], deleted: Deleted) -> None:
        name = contract.name
        self.changed.add(name)
        self.gone[name] = deleted.at
        table = sql.Identifier("staging", f"{self.prefix}d_{name}")
        copy_keys(self.connection, table, contract, list(deleted.keys), temporary=False)
        # What they were joined by, so that what they touched is found.
        self._execute(
            f"INSERT INTO {self._staged(contract)} SELECT {_list('o', columns)} FROM ods.{_id(name)} AS o "
            f"WHERE {self._is_gone('o', contract)}"
        )
        self._execute(f"ANALYZE {self._staged(contract)}")

    def _is_gone(self, alias: str, contract: TableContract) -> str:
        """Whether a row is one that the source no longer has."""
        if contract.name not in self.gone:
            return "FALSE"
        same = " AND ".join(f"d.{_id(column)} = {_id(alias)}.{_id(column)}" for column in contract.key)
        return f"EXISTS (SELECT 1 FROM {self._name(f'd_{contract.name}')} AS d WHERE {same})"

    def of(self, model: Definition) -> int | None:
        """Finds the rows of a model that are touched.

        Returns:
            How many there are; None where all of them are, since the model is always built whole.
        """
        if not any(self._is_changed(model, name) for name in model.inputs):
            return 0
        if model.whole:
            return None
        contract = table_of(model, model.driver)
        key = _list("x", contract.key)
        found = [f"SELECT {key} FROM {self._staged(contract)} AS x"]
        for name in model.inputs:
            if name not in (model.driver, EXISTING) and self._is_changed(model, name):
                ways = [self._backwards(model, name, path) for path in paths(model, name)]
                found += [way for way in ways if way]
        union = "\nUNION ALL\n".join(found)
        self._execute(
            f"CREATE UNLOGGED TABLE {self._name(f'm_{model.name}')} AS "
            f"SELECT DISTINCT {key} FROM (\n{union}\n) AS x"
        )
        self._execute(f"ANALYZE {self._name(f'm_{model.name}')}")
        row = self.connection.execute(
            f"SELECT count(*) FROM {self._name(f'm_{model.name}')}".encode()
        ).fetchone()
        return int(row[0]) if row else 0

    def rows(self, model: Definition, name: str) -> str:
        """The query that reads what a model needs of an input beside what the run itself brings.

        Args:
            model: A model whose touched rows have been found.
            name: One of its inputs.

        Returns:
            A query over `ods` or the star schema: whole rows of that table.
        """
        target = self._table(model, name)
        join = model.joins.get(name)
        is_table = name != EXISTING and not (join and join.dimension)
        there = f"NOT {self._is_gone('t', table_of(model, name))}" if is_table else "TRUE"
        if model.whole:
            return f"SELECT t.* FROM {target} AS t WHERE {there}"
        key = key_of(model, name)
        ways = [self._forwards(model, name, path) for path in paths(model, name)]
        wanted = [way for way in ways if way]
        if is_table:
            # A row that the run brings may be older than what is there; both have to be seen.
            wanted.append(f"SELECT {_list('x', key)} FROM {self._staged(table_of(model, name))} AS x")
        if name == EXISTING:
            key = (str(model.natural_key),)
        columns = self._ended(model) if name == EXISTING else "t.*"
        found = f"({_list('t', key)}) IN ({' UNION '.join(wanted)})" if wanted else "FALSE"
        return f"SELECT {columns} FROM {target} AS t WHERE {there} AND {found}"

    def _ended(self, model: Definition) -> str:
        """A model's own columns; the current version of a member that is gone ends when that was seen."""
        driver = table_of(model, model.driver)
        if driver.name not in self.gone or not model.history:
            return "t.*"
        (key,) = driver.key
        gone = (
            f"t.is_current AND EXISTS (SELECT 1 FROM {self._name(f'd_{driver.name}')} AS d "
            f"WHERE d.{_id(key)} = t.{_id(str(model.natural_key))})"
        )
        # Never before it began, should the clock of the source's data be ahead.
        end = f"greatest('{self.gone[driver.name].isoformat()}', t.valid_from + interval '1 microsecond')"
        changed = {
            "valid_to": f"CASE WHEN {gone} THEN {end} ELSE t.valid_to END AS valid_to",
            "is_current": f"t.is_current AND NOT ({gone}) AS is_current",
        }
        return ", ".join(changed.get(name, f"t.{_id(name)}") for name in model.columns)

    def compare(self, dimension: Definition, load: Load) -> None:
        """Finds the members of a dimension that differ from what the warehouse has, and from when on.

        Of two histories, what is in force at a time differs only from the first version on that is not in
        both, beginning and content alike.

        Args:
            dimension: One whose increment is written.
            load: Puts the increment into its staging table.
        """
        taken = {
            column
            for model in self._built()
            for join in model.joins.values()
            if join.dimension == dimension.name
            for column in join.taken
        }
        if not taken:
            return
        member = str(dimension.natural_key)
        begins = ("valid_from",) if dimension.history else ()
        columns = tuple(dict.fromkeys((member, *begins, *sorted(taken))))
        ends = ("valid_to",) if dimension.history else ()
        staged = tuple(dict.fromkeys((*columns, *ends)))
        self._create(f"v_{dimension.name}", f"dwh.{_id(dimension.name)}", staged)
        self._fill(f"v_{dimension.name}", load)
        new = f"SELECT {_list('v', columns)} FROM {self._name(f'v_{dimension.name}')} AS v"
        old = (
            f"SELECT {_list('d', columns)} FROM dwh.{_id(dimension.name)} AS d WHERE d.{_id(member)} IN "
            f"(SELECT v.{_id(member)} FROM {self._name(f'v_{dimension.name}')} AS v)"
        )
        differs = f"({new} EXCEPT {old}) UNION ALL ({old} EXCEPT {new})"
        if dimension.history:
            # A member that is gone, or back, differs from its end on.
            others = ", ".join(f"NULL::{_type_of(dimension, name)}" for name in columns[2:])
            for versions in (
                f"{self._name(f'v_{dimension.name}')} AS e",
                f"dwh.{_id(dimension.name)} AS e WHERE e.{_id(member)} IN "
                f"(SELECT v.{_id(member)} FROM {self._name(f'v_{dimension.name}')} AS v)",
            ):
                differs += (
                    f" UNION ALL (SELECT e.{_id(member)}, max(e.valid_to){', ' if others else ''}{others} "
                    f"FROM {versions} GROUP BY e.{_id(member)} "
                    "HAVING max(e.valid_to) < '2299-12-31 00:00:00+00')"
                )
        since = "min(x.valid_from)" if dimension.history else "'-infinity'::timestamptz"
        name = self._name(f"c_{dimension.name}")
        self._execute(
            f"CREATE UNLOGGED TABLE {name} AS SELECT x.{_id(member)}, {since} AS since "
            f"FROM ({differs}) AS x "
            f"GROUP BY x.{_id(member)}"
        )
        self._execute(f"ANALYZE {name}")
        if self.connection.execute(f"SELECT 1 FROM {name} LIMIT 1".encode()).fetchone():
            self.changed.add(dimension.name)

    def _built(self) -> list[Definition]:
        return [definition(name) for name in self.pipeline.models]

    def _is_changed(self, model: Definition, name: str) -> bool:
        if name == EXISTING:
            return False
        join = model.joins.get(name)
        return (join.dimension if join and join.dimension else table_of(model, name).name) in self.changed

    def _backwards(self, model: Definition, name: str, path: Path) -> str | None:
        """The keys of the model's rows that changed rows of an input reach; None where they reach none."""
        driver = table_of(model, model.driver)
        join = model.joins[name]
        since = bool(path.at and definition(str(join.dimension)).history)
        way = _Way(
            links=path.links,
            goal=tuple(f"{model.driver}.{column}" for column in driver.key),
            times=((str(path.at), f"{name}.since"),) if since else (),
        )
        return self._walk(model, way, name, self._changed(model, name))

    def _forwards(self, model: Definition, name: str, path: Path) -> str | None:
        """The keys of an input's rows that the model's touched rows reach; None where they reach none."""
        driver = table_of(model, model.driver)
        touched = self._name(f"m_{model.name}")
        if name in (model.driver, EXISTING):
            return f"SELECT {_list('touched', driver.key)} FROM {touched} AS touched"
        own = tuple(Link(f"{_TOUCHED}.{column}", f"{model.driver}.{column}") for column in driver.key)
        way = _Way((*own, *path.links), tuple(f"{name}.{column}" for column in key_of(model, name)))
        return self._walk(model, way, _TOUCHED, touched, {name: [self._table(model, name)]})

    def _walk(
        self,
        model: Definition,
        way: _Way,
        start: str,
        rows: str,
        relations: Mapping[str, list[str]] | None = None,
    ) -> str | None:
        """Joins one input after the other, from some rows of one of them to the keys that are wanted.

        Each join is a table of its own, with statistics: over all of them at once, and over rows of `ods`
        and of the run put together, the planner takes a join for as good as a cross product.

        Args:
            model: Whose inputs.
            way: What joins them, and what is wanted.
            start: The input that the walk begins with.
            rows: Its rows, as a table expression.
            relations: Of some inputs, what to read in place of what is current.

        Returns:
            A query of the keys; None where there are none.
        """
        reached, left, times = {start}, list(way.links), list(way.times)
        wanted = way.wanted(reached, left, times)
        columns = ", ".join(f"x.{_id(ref.partition('.')[2])} AS {_id(as_)}" for ref, as_ in wanted.items())
        table = self._step(f"SELECT DISTINCT {columns} FROM {rows} AS x")
        while left and table:
            link = next(one for one in left if (_of(one.left) in reached) != (_of(one.right) in reached))
            new = _of(link.right) if _of(link.left) in reached else _of(link.left)
            reached.add(new)
            joined = [one for one in left if {_of(one.left), _of(one.right)} <= reached]
            left = [one for one in left if one not in joined]
            timed = [pair for pair in times if {_of(pair[0]), _of(pair[1])} <= reached]
            times = [pair for pair in times if pair not in timed]

            def spelled(ref: str, new: str = new, known: Mapping[str, str] = wanted) -> str:
                return f"x.{_id(ref.partition('.')[2])}" if _of(ref) == new else f"w.{_id(known[ref])}"

            on = [f"{spelled(one.left)} = {spelled(one.right)}" for one in joined]
            on += [f"{spelled(at)} >= {spelled(since)}" for at, since in timed]
            following = way.wanted(reached, left, times)
            columns = ", ".join(f"{spelled(ref)} AS {_id(as_)}" for ref, as_ in following.items())
            table = self._step(
                " UNION ".join(
                    f"SELECT {columns} FROM {table} AS w JOIN {relation} AS x ON {' AND '.join(on)}"
                    for relation in (relations or {}).get(new) or self._current(model, new)
                )
            )
            wanted = following
        return f"SELECT {', '.join(_id(wanted[ref]) for ref in way.goal)} FROM {table}" if table else None

    def _step(self, query: str) -> str | None:
        """Keeps what a query finds in a table of the run's own; None where it finds nothing."""
        name = self._name(f"w_{next(self._steps)}")
        if not self.connection.execute(f"CREATE UNLOGGED TABLE {name} AS {query}".encode()).rowcount:
            return None
        self._execute(f"ANALYZE {name}")
        return name

    def _changed(self, model: Definition, name: str) -> str:
        """What of an input changed, as a table expression: where its rows were, and where they are now."""
        join = model.joins[name]
        if join.dimension:
            return self._name(f"c_{join.dimension}")
        contract = table_of(model, name)
        columns = _projection(self._built(), contract)
        same = " AND ".join(f"o.{_id(column)} = n.{_id(column)}" for column in contract.key)
        new = f"SELECT {_list('n', columns)} FROM {self._staged(contract)} AS n"
        if only_presence(model, name):
            there = f"SELECT 1 FROM ods.{_id(contract.name)} AS o WHERE {same} AND o._deleted_at IS NULL"
            return f"({new} WHERE NOT EXISTS ({there}) OR {self._is_gone('n', contract)})"
        old = (
            f"SELECT {_list('o', columns)} FROM ods.{_id(contract.name)} AS o "
            f"JOIN {self._staged(contract)} AS n ON {same}"
        )
        return f"({old} UNION ALL {new})"

    def _current(self, model: Definition, name: str) -> list[str]:
        """Where the rows of an input are: what is there, and what the run brings."""
        join = model.joins.get(name)
        if name == EXISTING or (join and join.dimension):
            return [self._table(model, name)]
        contract = table_of(model, name)
        return [f"ods.{_id(contract.name)}", self._staged(contract)]

    def _table(self, model: Definition, name: str) -> str:
        if name == EXISTING:
            return f"dwh.{_id(model.name)}"
        join = model.joins.get(name)
        if join and join.dimension:
            return f"dwh.{_id(join.dimension)}"
        return f"ods.{_id(table_of(model, name).name)}"

    def _staged(self, contract: TableContract) -> str:
        return self._name(f"t_{contract.name}")

    def _name(self, what: str) -> str:
        return f"staging.{_id(self.prefix + what)}"

    def _create(self, what: str, like: str, columns: tuple[str, ...]) -> None:
        self._execute(
            f"CREATE UNLOGGED TABLE {self._name(what)} AS SELECT {_list('x', columns)} FROM {like} AS x "
            "WITH NO DATA"
        )

    def _fill(self, what: str, load: Load) -> None:
        name = self.prefix + what
        load(name, staging.table_schema(self.connection, "staging", name))
        # The planner knows nothing of a new table and would take it for empty.
        self._execute(f"ANALYZE {self._name(what)}")

    def _execute(self, statement: str) -> None:
        self.connection.execute(statement.encode())


def _type_of(dimension: Definition, name: str) -> str:
    return dimension.columns[name].column_type.postgres


def _projection(models: list[Definition], contract: TableContract) -> tuple[str, ...]:
    """The columns of a table by which rows are found: its key, and what joins go by."""
    wanted = set(contract.key)
    for model in models:
        inputs = {
            name
            for name in model.inputs
            if name != EXISTING
            and not (name in model.joins and model.joins[name].dimension)
            and table_of(model, name).qualified_name == contract.qualified_name
        }
        for name, join in model.joins.items():
            if name in inputs:
                wanted |= set(join.match)
            for reference in (*(one for many in join.match.values() for one in many), join.at or ""):
                source, _, column = reference.partition(".")
                if source in inputs:
                    wanted.add(column)
    return tuple(column.name for column in contract.columns if column.name in wanted)


def _of(reference: str) -> str:
    """The input of a column's reference."""
    return reference.partition(".")[0]


def _id(name: str) -> str:
    return sql.Identifier(name).as_string()


def _list(alias: str, columns: tuple[str, ...]) -> str:
    return ", ".join(f"{_id(alias)}.{_id(column)}" for column in columns)
