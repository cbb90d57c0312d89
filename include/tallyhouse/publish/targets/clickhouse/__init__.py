"""ClickHouse: each table is filled as a staging table and exchanged with the old one.

Which runs it shows is in its own table `etl_run`. Its tables are made by migrations (`sql/clickhouse`). It
reads the lake by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar, Self

import clickhouse_connect
from clickhouse_connect.driver.binding import format_str
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError
from sqlalchemy import URL

from tallyhouse.contracts import PipelineContract
from tallyhouse.lake import Lake
from tallyhouse.models import Definition, definition
from tallyhouse.models.drift import Change
from tallyhouse.models.load import own_key
from tallyhouse.models.mart_totals import totals
from tallyhouse.models.postgres import NO_GROUP
from tallyhouse.publish import sql as statements
from tallyhouse.publish import target
from tallyhouse.publish.target import Groups, LakeAccess, Migrations, Place, RowsRefusedError
from tallyhouse.publish.targets.clickhouse import tables


def _url(place: Place) -> URL:
    import clickhouse_connect.cc_sqlalchemy.alembic  # noqa: F401, PLC0415 - makes its dialect known to Alembic

    return URL.create("clickhousedb", place.user, place.password, place.host, place.port, "default")


class Target(target.Target):
    """See `tallyhouse.publish.target.Target`.

    Args:
        client: In the star schema's database.
        lake: Where increments are.
        access: How the server reaches them.
    """

    title = "ClickHouse"
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
    migrations = Migrations(_url, tables.DATABASE, f"CREATE DATABASE IF NOT EXISTS {tables.DATABASE}")

    def __init__(self, client: Client, lake: Lake, access: LakeAccess) -> None:
        self.client = client
        self._lake = lake
        self._access = access

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

    def apply(self, pipeline: PipelineContract, run_id: str, models: Sequence[str]) -> None:
        """Swaps each model in with the run's rows in place of those of the same key."""
        for model in models:
            (key,) = definition(model).key
            names = _names(model)
            staging = f"`{model}__staging`"
            stays, new = [], []
            if self._lake.keys(prefix := f"increment/{model}/run={run_id}"):
                increment = self._parquet(prefix)
                stays.append(f"`{key}` NOT IN (SELECT `{key}` FROM {increment})")
                new.append(f"INSERT INTO {staging} ({names}) SELECT {names} FROM {increment}")
            if self._lake.keys(prefix := f"removed/{model}/run={run_id}"):
                gone = own_key(definition(model))[0]
                stays.append(f"`{gone}` NOT IN (SELECT `{gone}` FROM {self._parquet(prefix)})")
            with _naming(model):
                self._swap_in(
                    model,
                    [
                        f"INSERT INTO {staging} ({names}) SELECT {names} FROM `{model}` "
                        f"WHERE {' AND '.join(stays)}",
                        *new,
                    ],
                )
        self._mark_shown(pipeline, [run_id])

    def copy(self, pipeline: PipelineContract, runs: Sequence[str], folders: Mapping[str, str]) -> None:
        """Swaps each model in; one that is refused stays as it was, and the others are filled."""
        refusal = None
        for model in pipeline.models:
            names = _names(model)
            insert = f"INSERT INTO `{model}__staging` ({names}) SELECT {names} FROM "
            try:
                with _naming(model):
                    self._swap_in(model, [insert + self._parquet(folders[model])] if model in folders else [])
            except RowsRefusedError as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal
        self._mark_shown(pipeline, runs)

    def build_marts(self, pipeline: PipelineContract) -> None:
        """Swaps each mart in."""
        for mart in pipeline.marts:
            query = statements.render(f"clickhouse/models/{mart}/build.sql", staging=f"{mart}__staging")
            self._swap_in(mart, [query])

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
        rows = self.client.query(f"SELECT {found} FROM `{model.name}` GROUP BY grouped").result_rows
        return list(rows)

    def mart_totals(self, mart: Definition) -> tuple[Groups, Groups]:
        """By the two queries that the definition gives."""
        of_model, of_mart = (list(self.client.query(query).result_rows) for query in totals(mart))
        return of_model, of_mart

    def differing(self, model: Definition, folder: str) -> int:
        """By EXCEPT, both ways."""
        names = _names(model.name)
        mine, theirs = (
            f"SELECT {names} FROM `{model.name}`",
            f"SELECT {names} FROM {self._parquet(folder)}",
        )
        ((rows,),) = self.client.query(
            f"SELECT (SELECT count() FROM ({mine} EXCEPT {theirs})) + "
            f"(SELECT count() FROM ({theirs} EXCEPT {mine}))"
        ).result_rows
        return int(rows)

    def _mark_shown(self, pipeline: PipelineContract, runs: Iterable[str]) -> None:
        for run_id in runs:
            self.client.command(
                "INSERT INTO etl_run (run_id, pipeline, applied_at) VALUES "
                f"({format_str(run_id)}, {format_str(pipeline.name)}, now64(6, 'UTC'))"
            )

    def _swap_in(self, table: str, inserts: list[str]) -> None:
        """Fills a table of the same shape aside, then exchanges the two; readers see one of them whole."""
        staging = f"`{table}__staging`"
        self.client.command(f"DROP TABLE IF EXISTS {staging} SYNC")
        self.client.command(f"CREATE TABLE {staging} AS `{table}`")
        for insert in inserts:
            # Facts are partitioned by month; a first run may bring any number of them.
            self.client.command(insert, settings={"max_partitions_per_insert_block": 0})
        self.client.command(f"EXCHANGE TABLES {staging} AND `{table}`")
        self.client.command(f"DROP TABLE {staging} SYNC")

    def _parquet(self, folder: str) -> str:
        """The table function that reads the Parquet objects below a prefix."""
        # In the statement's text, quoted: bound parameters would carry the secret in the URL.
        access = self._access
        url, account, secret = map(
            format_str,
            (f"{access.endpoint}/{self._lake.root}/{folder}/*.parquet", access.access_key, access.secret_key),
        )
        return f"s3({url}, {account}, {secret}, 'Parquet')"


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
