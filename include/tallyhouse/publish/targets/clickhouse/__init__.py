"""ClickHouse: what people query are views, each over two tables, of which one is seen.

A change is made in tables aside. Then they take the place of those that nobody sees, and one INSERT into
`etl_run` says at once, of all the views, which table each of them shows from now on, and which runs that is.
A query sees one state of all views, since the engine asks for it once a query. The tables are made by
migrations (`sql/clickhouse`). It reads the lake by itself.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any, ClassVar, Self

import clickhouse_connect
from clickhouse_connect.driver.binding import format_str
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError
from sqlalchemy import URL, Connection, text

from tallyhouse.contracts import PipelineContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake
from tallyhouse.models import Definition, definition
from tallyhouse.models.digest import count_and_digest
from tallyhouse.models.drift import Change
from tallyhouse.models.load import own_key
from tallyhouse.models.mart_totals import totals
from tallyhouse.models.postgres import NO_GROUP
from tallyhouse.publish import sql as statements
from tallyhouse.publish import target
from tallyhouse.publish.target import Groups, LakeAccess, Migrations, Place, RowsRefusedError
from tallyhouse.publish.targets.clickhouse import tables

REPLICA_SECONDS = 300
"""How long the replicas of a cluster have to take over what is about to be shown."""
PLANNING_SECONDS = 10
"""How long a query may take until it has opened its tables; from then on it sees one run."""


def _url(place: Place) -> URL:
    import clickhouse_connect.cc_sqlalchemy.alembic  # noqa: F401, PLC0415 - makes its dialect known to Alembic

    return URL.create("clickhousedb", place.user, place.password, place.host, place.port, "default")


def _adapted(connection: Connection, statement: str) -> str:
    """In a database of the engine Replicated tables are replicated as well."""
    engine = text("SELECT engine FROM system.databases WHERE name = :name")
    if connection.execute(engine, {"name": tables.DATABASE}).scalar() != "Replicated":
        return statement
    return re.sub(r"\bENGINE = MergeTree\b", "ENGINE = ReplicatedMergeTree", statement)


class Target(target.Target):
    """See `tallyhouse.publish.target.Target`.

    Args:
        client: In the star schema's database.
        lake: Where increments are.
        access: How the server reaches them.
    """

    title = "ClickHouse"
    engine = "clickhouse"
    exclusive = False
    # Whole numbers and decimals have the same range in both stores; times and days end sooner here.
    ranges: ClassVar[Mapping[str, tuple[str, str, str]]] = {
        "smallint": ("-32768", "32767", "Int16"),
        "integer": ("-2147483648", "2147483647", "Int32"),
        "bigint": ("-9223372036854775808", "9223372036854775807", "Int64"),
        "date": ("1900-01-01", "2299-12-31", "Date32"),
        "timestamp with time zone": (
            "1900-01-01 00:00:00+00",
            "2299-12-31 23:59:59.999999+00",
            "DateTime64(6)",
        ),
    }
    decimals = 76
    errors = (ClickHouseError,)
    migrations = Migrations(
        _url, tables.DATABASE, f"CREATE DATABASE IF NOT EXISTS {tables.DATABASE}", _adapted
    )

    def __init__(self, client: Client, lake: Lake, access: LakeAccess) -> None:
        self.client = client
        self._lake = lake
        self._access = access
        self._token = ""
        self._aside: dict[str, str] = {}  # the change: the table of each model or mart that it has
        self._made: list[str] = []  # all tables that it made
        self._slots: dict[str, str] = {}  # which of its two tables each view shows

    @classmethod
    def open(cls, place: Place, lake: Lake, access: LakeAccess) -> Self:
        """Connects; `secure`, `verify`, `session_settings` and `client_kwargs` are read from the extra."""
        options = {name: place.extra[name] for name in ("secure", "verify") if name in place.extra}
        client = clickhouse_connect.get_client(
            host=place.host,
            port=place.port or 0,
            username=place.user or None,
            password=place.password,
            database=place.database,
            settings=place.extra.get("session_settings"),
            **{"compress": False} | dict(place.extra.get("client_kwargs") or {}) | options,
        )
        return cls(client, lake, access)

    def close(self) -> None:
        """Disconnects."""
        self.client.close()

    def changes(self) -> list[Change]:
        """What a migration has to change."""
        return tables.changes(self.client)

    def shown_runs(self) -> set[str]:
        """The runs of `etl_run`."""
        return {row[0] for row in self.client.query("SELECT run_id FROM etl_run").result_rows}

    def forget(self, runs: Sequence[str]) -> None:
        """The copy's own row says of every view which table it shows."""
        listed = ", ".join(map(format_str, runs))
        self.client.command(
            f"ALTER TABLE etl_run DELETE WHERE run_id IN ({listed})", settings={"mutations_sync": 2}
        )

    def begin(self, pipeline: PipelineContract) -> None:
        """Drops what an earlier change left; its publish finds its tables gone and shows nothing."""
        self._aside, self._made = {}, []
        self._token = secrets.token_hex(4)
        names = [*pipeline.models, *pipeline.marts]
        kept = {*names, *(tables.of_slot(name, slot) for name in names for slot in tables.SLOTS)}
        for table in self._column("SELECT name FROM system.tables WHERE database = currentDatabase()"):
            if table.partition("__")[0] in names and table not in kept:
                self._drop(table)
        self._slots = dict(self.client.query("SELECT slots FROM etl_slots").result_rows[0][0])

    def apply(self, run_id: str, models: Sequence[str]) -> None:
        """Puts a run's rows in place of those of the same key.

        A table aside takes over the live one's parts as they are; of the partitions where rows change, the
        rows that stay are written again.
        """
        for model in models:
            with _naming(model):
                self._apply(model, run_id)

    def _apply(self, model: str, run_id: str) -> None:
        defined = definition(model)
        (key,), gone, names = defined.key, own_key(defined)[0], _names(model)
        increment, removed = f"increment/{model}/run={run_id}", f"removed/{model}/run={run_id}"
        changed = [
            f"`{column}` IN (SELECT `{column}` FROM {self._parquet(prefix)})"
            for prefix, column in ((increment, key), (removed, gone))
            if self._lake.keys(prefix)
        ]
        if not changed:
            return
        goes, live = " OR ".join(changed), self._live(model)
        touched = self._column(f"SELECT DISTINCT _partition_id FROM `{live}` WHERE {goes}")
        # As CLONE AS does it, which a database of the engine Replicated refuses.
        table = self._new(model, f"AS `{live}`")
        self.client.command(f"ALTER TABLE `{table}` ATTACH PARTITION ALL FROM `{live}`")
        for partition in touched:
            self.client.command(f"ALTER TABLE `{table}` DROP PARTITION ID {format_str(partition)}")
        if touched:
            self._insert(
                table,
                f"({names}) SELECT {names} FROM `{live}` WHERE _partition_id IN "
                f"({', '.join(map(format_str, touched))}) AND NOT ({goes})",
            )
        if self._lake.keys(increment):
            self._insert(table, f"({names}) SELECT {names} FROM {self._parquet(increment)}")
        self._aside[model] = table

    def copy(self, pipeline: PipelineContract, folders: Mapping[str, str]) -> None:
        """Fills each model anew; one that is refused stays as it was, and the others are filled."""
        refusal = None
        for model in pipeline.models:
            names = _names(model)
            try:
                with _naming(model):
                    table = self._new(model, f"AS `{self._live(model)}`")
                    if model in folders:
                        self._insert(table, f"({names}) SELECT {names} FROM {self._parquet(folders[model])}")
                    self._aside[model] = table
            except RowsRefusedError as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal

    def build_marts(self, pipeline: PipelineContract) -> None:
        """By their queries."""
        for mart in pipeline.marts:
            table = self._new(mart, f"AS `{self._live(mart)}`")
            query = statements.render(f"clickhouse/models/{mart}/build.sql", staging=f"`{table}`")
            self._fill(self._of_change(query))
            self._aside[mart] = table

    def show(self, pipeline: PipelineContract, runs: Sequence[str]) -> None:
        """Exchanges what is aside with what nobody sees, and says by one row for each run which is seen.

        The rows are one block of one partition, so they are there all at once; and none of them, where the
        tables are no longer this change's: a later one has begun since.
        """
        slots = {name: _other(self._slots.get(name, "")) for name in self._aside}
        self._let_planning_end()
        uuids = self._uuids(self._aside.values())
        for name, table in self._aside.items():
            if table not in uuids:
                raise _superseded()
            self.client.command(f"EXCHANGE TABLES `{table}` AND `{tables.of_slot(name, slots[name])}`")
        self._let_replicas_follow([tables.of_slot(name, slot) for name, slot in slots.items()])
        mine = {tables.of_slot(name, slot): uuids[self._aside[name]] for name, slot in slots.items()}
        listed, names, shown = (
            f"[{', '.join(map(format_str, some))}]::Array(String)" for some in (runs, slots, slots.values())
        )
        self.client.command(
            "INSERT INTO etl_run (run_id, pipeline, applied_at, slots) "
            # Later than all before, whatever the server's clock says: the last one counts.
            "WITH greatest(now64(6, 'UTC'), (SELECT max(applied_at) FROM etl_run)) AS now "
            f"SELECT run, {format_str(pipeline.name)}, now + toIntervalMicrosecond(number), "
            f"mapFromArrays({names}, {shown}) "
            f"FROM system.one ARRAY JOIN {listed} AS run, arrayEnumerate({listed}) AS number "
            f"WHERE {_still_there(mine)}"
        )
        if not self.client.query(f"SELECT {_still_there(mine)}").result_rows[0][0]:
            raise _superseded()
        self.abandon()

    def _let_planning_end(self) -> None:
        """Waits, within bounds, for queries that began before the last act.

        They have been told of the tables that nobody sees since, and one that is still planned may be about
        to open them; what is put there now would be two acts later than what it has opened already.
        """
        deadline = monotonic() + PLANNING_SECONDS
        while monotonic() < deadline:
            earlier = (
                "SELECT count() FROM system.processes WHERE query_id <> queryID() AND elapsed > "
                "(SELECT dateDiff('microsecond', max(applied_at), now64(6, 'UTC')) / 1e6 FROM etl_run)"
            )
            if not self.client.query(earlier).result_rows[0][0]:
                return
            sleep(0.1)

    def _let_replicas_follow(self, names: Sequence[str]) -> None:
        """Waits until every replica of a cluster has what is about to be shown; alone there is none.

        Raises:
            TallyhouseError: One does not follow; nothing is shown.
        """
        ((engine, database),) = self.client.query(
            "SELECT engine, name FROM system.databases WHERE name = currentDatabase()"
        ).result_rows
        if engine != "Replicated":
            return
        listed = ", ".join(map(format_str, names))
        behind = (
            f"SELECT arraySort(groupUniqArray(replica_name)) FROM clusterAllReplicas({format_str(database)}, "
            f"system.replicas) WHERE database = currentDatabase() AND table IN ({listed}) "
            "AND (queue_size > 0 OR log_pointer <= log_max_index)"
        )
        deadline = monotonic() + REPLICA_SECONDS
        while late := self.client.query(behind).result_rows[0][0]:
            if monotonic() > deadline:
                raise TallyhouseError(
                    f"ClickHouse's replica {late[0]} does not follow",
                    remedy="Nothing is shown; see its `system.replication_queue`, then clear the task",
                    transient=True,
                )
            sleep(0.5)

    def abandon(self) -> None:
        """Drops every table that the change made, or what its exchanges put in their place."""
        for table in self._made:
            self._drop(table)
        self._aside, self._made = {}, []

    def totals(self, model: Definition) -> Groups:
        """Sums of Decimal and integers, which are exact."""
        measures = model.measures
        names = measures.sum if measures else ()
        by = measures.by if measures else None
        found = ", ".join(
            [
                f"ifNull(toString(`{by}`), '{NO_GROUP}') AS grouped" if by else "'' AS grouped",
                "toString(count())",
                *(f"toString(ifNull(sum(`{name}`), 0))" for name in names),
            ]
        )
        query = f"SELECT {found} FROM dwh.`{model.name}` GROUP BY grouped"
        rows = self.client.query(self._of_change(query)).result_rows
        return list(rows)

    def digest(self, model: Definition, parts: Sequence[str] | None) -> tuple[str, str]:
        """Keys are read from the lake by the server."""
        which = ""
        if parts is not None:
            (key,) = model.key
            keys = " UNION ALL ".join(f"SELECT `{key}` FROM {self._parquet(part)}" for part in parts)
            which = f" WHERE `{key}` IN ({keys})"
        query = f"SELECT {count_and_digest('clickhouse', model)} FROM dwh.`{model.name}`{which}"
        ((rows, digest),) = self.client.query(self._of_change(query)).result_rows
        return rows, digest

    def mart_totals(self, mart: Definition) -> tuple[Groups, Groups]:
        """By the two queries that the definition gives."""
        of_model, of_mart = (
            list(self.client.query(self._of_change(query)).result_rows) for query in totals(mart)
        )
        return of_model, of_mart

    def differing(self, model: Definition, folder: str) -> int:
        """By EXCEPT, both ways."""
        names = _names(model.name)
        mine, theirs = (
            self._of_change(f"SELECT {names} FROM dwh.`{model.name}`"),
            f"SELECT {names} FROM {self._parquet(folder)}",
        )
        ((rows,),) = self.client.query(
            f"SELECT (SELECT count() FROM ({mine} EXCEPT {theirs})) + "
            f"(SELECT count() FROM ({theirs} EXCEPT {mine}))"
        ).result_rows
        return int(rows)

    def ask(self, query: str) -> Iterator[Sequence[Any]]:
        """Streamed."""
        with self.client.query_rows_stream(self._of_change(query)) as rows:
            yield from rows

    def _live(self, name: str) -> str:
        """The table that holds a model's or mart's rows: aside, else the one that is seen."""
        return self._aside.get(name) or tables.of_slot(name, self._slots.get(name) or tables.SLOTS[0])

    def _new(self, name: str, how: str) -> str:
        table = f"{name}__{self._token}_{len(self._made)}"
        self._made.append(table)
        self.client.command(f"CREATE TABLE `{table}` {how}")
        return table

    def _drop(self, table: str) -> None:
        # Not SYNC: that would wait for whoever still reads what was seen before.
        self.client.command(f"DROP TABLE IF EXISTS `{table}`")

    def _insert(self, table: str, rows: str) -> None:
        self._fill(f"INSERT INTO `{table}` {rows}")

    def _fill(self, insert: str) -> None:
        # Facts are partitioned by month; a first run may bring any number of them.
        self.client.command(insert, settings={"max_partitions_per_insert_block": 0})

    def _of_change(self, query: str) -> str:
        """A query over the star schema, to be asked of the change's own tables."""

        def table(found: re.Match[str]) -> str:
            return f"`{self._aside[found[1]]}`" if found[1] in self._aside else found[0]

        return re.sub(r"\bdwh\.`?(\w+)`?", table, query)

    def _uuids(self, names: Iterable[str]) -> dict[str, str]:
        """The server's own identities of tables, for those that are there."""
        listed = ", ".join(map(format_str, [*names, ""]))
        found = self.client.query(
            "SELECT name, toString(uuid) FROM system.tables WHERE database = currentDatabase() "
            f"AND name IN ({listed})"
        ).result_rows
        return {name: uuid for name, uuid in found}  # noqa: C416 - rows are sequences

    def _column(self, query: str) -> list[str]:
        return [row[0] for row in self.client.query(query).result_rows]

    def _parquet(self, folder: str) -> str:
        """The table function that reads a Parquet object, or those below a prefix."""
        # In the statement's text, quoted: bound parameters would carry the secret in the URL.
        access = self._access
        objects = folder if folder.endswith(".parquet") else f"{folder}/*.parquet"
        url, account, secret = map(
            format_str,
            (f"{access.endpoint}/{self._lake.root}/{objects}", access.access_key, access.secret_key),
        )
        return f"s3({url}, {account}, {secret}, 'Parquet')"


def _still_there(uuids: Mapping[str, str]) -> str:
    """A condition: whether these names are still those of these tables."""
    if not uuids:
        return "true"
    pairs = ", ".join(f"({format_str(name)}, {format_str(uuid)})" for name, uuid in uuids.items())
    return (
        "(SELECT count() FROM system.tables WHERE database = currentDatabase() "
        f"AND (name, toString(uuid)) IN ({pairs})) = {len(uuids)}"
    )


def _other(slot: str) -> str:
    return next(one for one in tables.SLOTS if one != (slot or tables.SLOTS[0]))


def _superseded() -> TallyhouseError:
    return TallyhouseError(
        "a later publish of the pipeline took over; this one shows nothing",
        remedy="Nothing is lost: that one brings in all published runs",
    )


@contextmanager
def _naming(model: str) -> Iterator[None]:
    try:
        yield
    except OperationalError:
        raise  # the server went away
    except DatabaseError as error:
        raise RowsRefusedError(model, error) from error


def _names(model: str) -> str:
    return ", ".join(f"`{column}`" for column in definition(model).columns)
