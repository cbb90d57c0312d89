"""The kill proof: whatever dies at which durable write, started again, the stores hold what the source holds.

`make proof` does all of it and writes build/proof.json; `make test` takes a sample.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import clickhouse_connect
import psycopg
import pytest
from clickhouse_connect.driver.client import Client
from psycopg import sql
from pyarrow import fs

from tallyhouse.migrate import migrate_target, migrate_warehouse
from tallyhouse.settings import ROOT, Settings
from tests.conftest import CLICKHOUSE_PASSWORD, embedded_clickhouse
from tests.proof import boundaries, page
from tests.proof.oracle import Ask, differences
from tests.proof.readers import Readers
from tests.proof.run import FRESH, launch
from tests.proof.servers import Servers, small_disk, versitygw
from tests.proof.wire import Blow, HttpProxy, PostgresProxy, Trap, clickhouse_write, s3_write

pytestmark = [pytest.mark.integration, pytest.mark.spark]

ALL = os.environ.get("PROOF") == "1"
SECOND_S3 = os.environ.get("PROOF_S3") == "versitygw"
"""Another S3 server under the lake."""
ONLY = re.compile(os.environ.get("PROOF_ONLY", ""))
"""Which writes, for a part of it."""
_POSTGRES = {"conn_type": "postgres", "host": "127.0.0.1"}
SECONDS = 300
type At = tuple[str, int]
"""A write: its name, and which one of that name."""
SIGNALS = {Blow.KILLED: signal.SIGKILL, Blow.CUT: 0, Blow.DELAYED: 0}


def signal_group(process: BaseProcess, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, number)


class World:
    """A source, the stores behind proxies, and runs between them.

    Attributes:
        trap: Where the writes of a run are seen.
        source: Asks the source; it is changed by `change`.
    """

    def __init__(
        self,
        trap: Trap,
        folder: Path,
        environment: dict[str, str],
        source: str,
        warehouse: str,
        port: int,
        servers: Servers,
    ) -> None:
        self.trap, self.folder, self.environment = trap, folder, environment
        self.source_uri, self.warehouse_uri, self.clickhouse_port = source, warehouse, port
        self.servers = servers
        self.dice = random.Random(20260101)  # noqa: S311
        self.runs = 0

    @staticmethod
    def postgres(address: str) -> Ask:
        def ask(query: str) -> list[tuple[Any, ...]]:
            with psycopg.connect(address) as connection:
                return connection.execute(query.encode()).fetchall()

        return ask

    def clickhouse(self, query: str) -> list[tuple[Any, ...]]:
        with self.client() as client:
            return [tuple(row) for row in client.query(query).result_rows]

    def connect(self) -> psycopg.Connection[Any]:
        """A connection to the warehouse, not by the proxy."""
        return psycopg.connect(self.warehouse_uri, autocommit=True)

    def client(self) -> Client:
        """A connection to ClickHouse, not by the proxy."""
        return clickhouse_connect.get_client(
            host="127.0.0.1",
            port=self.clickhouse_port,
            username="default",
            password=CLICKHOUSE_PASSWORD,
            compress=False,
            tz_mode="aware",
        )

    def command(self, statement: str) -> None:
        """Changes ClickHouse."""
        with self.client() as client:
            client.command(statement, settings={"mutations_sync": 1})

    def change(self) -> None:
        """Another day at the shop: rows come, change and go."""
        with psycopg.connect(self.source_uri) as connection:
            connection.execute(
                "INSERT INTO pancakes (name, fluffiness_level, syrup_type, is_buttery, magical_factor, "
                "created_at, taste_notes) SELECT 'млинець ' || n, 1 + n %% 10, "
                "(ARRAY['maple', 'honey'])[1 + n %% 2], n %% 3 = 0, n / 7.0, "
                "'2026-01-01'::timestamptz + n * interval '9 hours', nullif('note ' || n %% 4, 'note 0') "
                "FROM generate_series(%s::integer, %s::integer) AS n",
                (self.runs * 20, self.runs * 20 + 19),
            )
            connection.execute(
                "UPDATE pancakes SET fluffiness_level = 1 + (fluffiness_level + %s::integer) %% 10 "
                "WHERE id %% 7 = %s::integer",
                (1 + self.dice.randrange(8), self.dice.randrange(7)),
            )
            connection.execute(
                "DELETE FROM pancakes WHERE id %% 11 = %s::integer", (self.dice.randrange(11),)
            )
        self.runs += 1

    def launch(self, state: Path) -> BaseProcess:
        """Carries out what is left of a run."""
        return launch(state, self.environment, self.folder / "runs.log")

    def start(self, state: Path, at: At | None = None, **blow: Any) -> int:
        """Carries out what is left of a run, which something may befall; answers the exit code."""
        started: list[BaseProcess] = []
        self.trap.arm(lambda: signal_group(started[0], SIGNALS[self.trap.blow]), at, **blow)
        started.append(self.launch(state))
        return self.end(started[0])

    def start_twice(self, state: Path, other: Path, at: At, *, before: bool) -> tuple[int, int]:
        """Freezes a run at a write, carries out another one meanwhile, and lets the first one go.

        Returns:
            The exit codes: of the one that was frozen, and of the other one.
        """
        started: list[BaseProcess] = []
        self.trap.arm(lambda: signal_group(started[0], signal.SIGSTOP), at, before=before, blow=Blow.FROZEN)
        started.append(self.launch(state))
        while started[0].exitcode is None and not self.trap.sprung.wait(0.1):
            pass
        if state.exists() and not other.exists():
            shutil.copy(state, other)
        ended = self.end(self.launch(other)) if started[0].exitcode is None else 0
        signal_group(started[0], signal.SIGCONT)
        self.trap.let_go.set()
        return self.end(started[0]), ended

    def end(self, process: BaseProcess) -> int:
        """Waits for the end of a run, within bounds."""
        try:
            process.join(SECONDS)
            assert process.exitcode is not None, f"no end after {SECONDS} s: {self.log()}"
            return process.exitcode
        finally:
            signal_group(process, signal.SIGKILL)

    def differences(self) -> list[str]:
        return differences(self.postgres(self.source_uri), self.postgres(self.warehouse_uri), self.clickhouse)

    def log(self) -> str:
        return (self.folder / "runs.log").read_text(errors="replace")[-6000:]


@pytest.fixture(scope="module")
def world(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("proof")
    trap = Trap()
    server = f"{settings.postgres_host}:{settings.postgres_port}"
    root = f"postgresql://{settings.postgres_user}:{quote(settings.postgres_password, safe='')}@{server}"
    names = [f"proof_{secrets.token_hex(4)}" for _ in range(2)]
    bucket = names[0].replace("_", "-")
    with ExitStack() as stack:
        host, s3_port = settings.minio_host, settings.minio_port
        if SECOND_S3:
            s3_port = stack.enter_context(
                versitygw(folder, settings.minio_root_user, settings.minio_root_password)
            )
        store = fs.S3FileSystem(
            access_key=settings.minio_root_user,
            secret_key=settings.minio_root_password,
            region=settings.lake_region,
            endpoint_override=f"{host}:{s3_port}",
            scheme="http",
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
        )

        def administer(statement: sql.Composed) -> None:
            # Connected anew: the server may have been killed since.
            with psycopg.connect(f"{root}/postgres", autocommit=True) as admin:
                admin.execute(statement)

        for name in names:
            owner = sql.Identifier(settings.dwh_user)
            administer(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), owner))
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            stack.callback(administer, drop)
        source, warehouse = (f"{root}/{name}" for name in names)
        with psycopg.connect(source) as connection:
            connection.execute((ROOT / "sql/oltp/05_pancake_schema.sql").read_bytes())
        migrate_warehouse(settings.model_copy(update={"dwh_db": names[1]}))
        store.create_dir(bucket)
        stack.callback(store.delete_dir, bucket)
        lake = stack.enter_context(closing(HttpProxy(host, s3_port, trap, s3_write)))
        dwh = stack.enter_context(
            closing(PostgresProxy(settings.postgres_host, settings.postgres_port, trap))
        )
        if ALL:
            stack.enter_context(small_disk(folder / "data"))
        port = stack.enter_context(embedded_clickhouse(folder, f"http://127.0.0.1:{lake.port}"))
        own = settings.model_copy(
            update={
                "clickhouse_host": "127.0.0.1",
                "clickhouse_http_port": port,
                "clickhouse_user": "default",
                "clickhouse_password": CLICKHOUSE_PASSWORD,
            }
        )
        migrate_target(own, "clickhouse")
        clickhouse = stack.enter_context(closing(HttpProxy("127.0.0.1", port, trap, clickhouse_write)))
        connections = {
            "pg_pancake": {
                **_POSTGRES,
                "port": settings.postgres_port,
                "login": settings.postgres_user,
                "password": settings.postgres_password,
                "schema": names[0],
            },
            "pg_dwh": {
                **_POSTGRES,
                "port": dwh.port,
                "login": settings.dwh_user,
                "password": settings.dwh_password,
                "schema": names[1],
            },
            "s3_lake": {
                "conn_type": "aws",
                "login": settings.minio_root_user,
                "password": settings.minio_root_password,
                "extra": {
                    "endpoint_url": f"http://127.0.0.1:{lake.port}",
                    "region_name": settings.lake_region,
                    "bucket": bucket,
                },
            },
            "clickhouse_dwh": {
                "conn_type": "clickhouse",
                "host": "127.0.0.1",
                "port": clickhouse.port,
                "schema": "dwh",
                "login": "default",
                "password": CLICKHOUSE_PASSWORD,
            },
            "spark_default": {
                "conn_type": "spark",
                "host": "local[2]",
                "extra": {"deploy-mode": "client", "conf": {}, "gate": "duckdb"},
            },
        }
        environment = {
            name: value
            for name, value in os.environ.items()
            # The stack's own connections would come first.
            if not name.startswith(("AIRFLOW_CONN_", "AIRFLOW__SECRETS__"))
        }
        environment |= {f"AIRFLOW_CONN_{name.upper()}": json.dumps(one) for name, one in connections.items()}
        environment |= {"TARGETS": "clickhouse", "NO_PROXY": "*"}
        servers = Servers(
            source, folder, lambda: embedded_clickhouse(folder, f"http://127.0.0.1:{lake.port}", port)
        )
        stack.callback(servers.started.close)
        yield World(trap, folder, environment, source, warehouse, port, servers)


def total(world: World) -> int:
    ((found,),) = world.postgres(world.source_uri)("SELECT coalesce(sum(fluffiness_level), 0) FROM pancakes")
    return int(found)


def writes_of_a_run(world: World) -> list[At]:
    """Every durable write of an ordinary run: its name, and which one of that name it is."""
    world.change()
    assert world.start(world.folder / secrets.token_hex(4)) == 0, world.log()
    assert world.differences() == [], world.log()
    numbered: list[At] = []
    for write in world.trap.writes:
        numbered.append((write, 1 + sum(name == write for name, _ in numbered)))
    return numbered


def prove(world: World, at: At, blow: Blow, *, before: bool, again: str) -> dict[str, Any]:
    """Lets something befall a run at a write, starts it again, and asks the oracle.

    Args:
        world: The stores.
        at: The write.
        blow: What befalls it.
        before: Whether the write has not reached its store.
        again: `the task` is tried again, or `a new run` takes over; after what is frozen has been let go.
    """
    earlier = total(world)
    world.change()
    state, other = (world.folder / secrets.token_hex(4) for _ in range(2))
    if blow is Blow.FROZEN and again == "a new run":
        other.write_text(json.dumps(FRESH))
    with Readers(world.connect, world.client, {earlier, total(world)}) as readers:
        if blow is Blow.FROZEN:
            _, ended = world.start_twice(state, other, at, before=before)
            reached = world.trap.sprung.is_set()
        else:
            code = world.start(state, at, before=before, blow=blow)
            reached = world.trap.sprung.is_set()
            again = again if code else "nothing: it went on by itself"
            ended = 0 if code == 0 else world.start(other if again == "a new run" else state)
    result = "; ".join(world.differences()) or ("ok" if ended == 0 else "the next try failed")
    return {
        "boundary": f"{at[0]} ({at[1]})",
        "death": f"{blow.value} {'before' if before else 'after'}, then {again}",
        "reached": reached,
        "readers_saw": readers.said,
        "result": result,
    }


PHASES = {
    "extract": r"lake COMPLETE raw/.*/part",
    "check": r"lake COMPLETE report/.*/validation",
    "transform": r"lake (PUT|COMPLETE) accepted",
    "publish to PostgreSQL": r"warehouse COMMIT .*ods\.",
    "publish to ClickHouse": r"clickhouse EXCHANGE",
}
"""Each phase of a run, and a write in it."""
SERVER_SAMPLE = ("publish to ClickHouse", "ClickHouse is killed")


def prove_server(world: World, phase: str, at: At, death: str) -> dict[str, Any]:
    """Kills a server in a phase of a run, tries the task again once it is back, and asks the oracle."""
    earlier = total(world)
    world.change()
    state = world.folder / secrets.token_hex(4)
    with Readers(world.connect, world.client, {earlier, total(world)}) as readers:
        started: list[BaseProcess] = []

        def strike() -> None:
            world.servers.run = started[0].pid or 0
            world.servers.deaths[death]()

        world.trap.arm(strike, at, blow=Blow.SERVER)
        started.append(world.launch(state))
        code = world.end(started[0])
        reached = world.trap.sprung.is_set()
        world.servers.bring_back()
        ended = 0 if code == 0 else world.start(state)
    result = "; ".join(world.differences()) or ("ok" if ended == 0 else "the next try failed")
    return {
        "boundary": f"{phase}: {at[0]} ({at[1]})",
        "death": f"{death}, then {'the task' if code else 'nothing: it went on by itself'}",
        "reached": reached,
        "readers_saw": readers.said,
        "result": result,
    }


@pytest.fixture(scope="module")
def writes(world: World) -> list[At]:
    world.change()
    assert world.start(world.folder / "first") == 0, world.log()
    return writes_of_a_run(world)


def test_every_durable_write_is_known(writes: list[At]) -> None:
    unknown = {name for name, _ in writes if boundaries.of(name) is None}
    assert unknown == set(), "\n".join(f"{name} ({number})" for name, number in writes)


def keep(said: list[dict[str, Any]]) -> None:
    if ALL:
        page.keep(said)
    else:
        page.add(said)


def whole_matrix(writes: list[At]) -> list[tuple[At, Blow, bool]]:
    """What `make proof` does: a write, what befalls the run at it, and whether the write has been made.

    Killed at every write, of those with one name at the first and the last one. The connection cut, all
    standing still, or the network slow, at one write of each place in the code.
    """
    last = dict(writes)
    ends = [at for at in writes if at[1] in (1, last[at[0]])]
    places: dict[str | None, At] = {}
    for at in writes:
        places.setdefault(boundaries.of(at[0]), at)
    each = [
        (Blow.KILLED, ends),
        *((blow, [*places.values()]) for blow in (Blow.CUT, Blow.FROZEN, Blow.DELAYED)),
    ]
    return [(at, blow, before) for blow, those in each for at in those for before in (True, False)]


SAMPLE = [
    (r"COMMIT .*ods\.", Blow.KILLED, True),
    (r"COMMIT .*ods\.", Blow.CUT, False),
    (r"INSERT INTO etl_run", Blow.KILLED, False),
    (r"INSERT INTO etl_run", Blow.FROZEN, True),
]


def test_a_run_that_is_killed_and_started_again_leaves_the_stores_right(
    world: World, writes: list[At]
) -> None:
    chosen = [one for one in whole_matrix(writes) if ONLY.search(f"{one[1].value} {one[0][0]}")]
    if not ALL:
        chosen = [
            (next(at for at in writes if re.search(pattern, at[0])), blow, before)
            for pattern, blow, before in SAMPLE
        ]
    said: list[dict[str, Any]] = []
    for number, (at, blow, before) in enumerate(chosen, start=1):
        one = prove(world, at, blow, before=before, again=("the task", "a new run")[number // 2 % 2])
        said.append(one)
        print(f"{datetime.now():%H:%M:%S} {number}/{len(chosen)} {one['boundary']} {one['death']}: ", end="")
        print(one["result"], flush=True)
        keep([one])
    assert page.wrong(said) == []
    # The order of writes that Spark's tasks make at the same time is not the same in each run.
    assert all(one["reached"] for one in said if not one["boundary"].startswith("lake")), said


def test_a_server_that_dies_under_a_run_leaves_the_stores_right(world: World, writes: list[At]) -> None:
    chosen = [
        (phase, next(at for at in writes if re.search(pattern, at[0])), death)
        for phase, pattern in PHASES.items()
        for death in world.servers.deaths
        if (phase == "transform" or "Spark" not in death)
        and not (SECOND_S3 and "MinIO" in death)
        and (ONLY.search(f"{death} {phase}") if ALL else (phase, death) == SERVER_SAMPLE)
    ]
    said = []
    for one in chosen:
        said.append(prove_server(world, *one))
        keep(said[-1:])
    assert page.wrong(said) == []
    assert all(one["reached"] for one in said), said


def test_the_oracle_finds_a_row_that_is_altered_missing_or_doubled(world: World, writes: list[At]) -> None:
    """The last test: it leaves the stores wrong."""
    assert world.differences() == []
    ((slot,),) = world.clickhouse("SELECT slots['fact_pancake_rating'] FROM dwh.etl_slots")
    here, there = "dwh.fact_pancake_rating", f"dwh.fact_pancake_rating__{slot or 'a'}"
    first, last = (f"= (SELECT {one}(pancake_id) FROM dwh.fact_pancake_rating)" for one in ("min", "max"))
    spoilt = [
        ("PostgreSQL", f"UPDATE {here} SET magical_factor = magical_factor + 1 WHERE pancake_id {first}"),
        ("PostgreSQL", f"DELETE FROM {here} WHERE pancake_id {last}"),
        ("PostgreSQL", f"ALTER TABLE {here} DROP CONSTRAINT fact_pancake_rating_pkey"),
        ("PostgreSQL", f"INSERT INTO {here} SELECT * FROM {here} WHERE pancake_id {first}"),
        ("ClickHouse", f"INSERT INTO {there} SELECT * FROM {there} LIMIT 1"),
        ("ClickHouse", f"ALTER TABLE {there} UPDATE taste_notes = 'x' WHERE pancake_id {first}"),
        ("ClickHouse", f"DELETE FROM {there} WHERE pancake_id {last}"),
    ]
    found: list[str] = []
    for where, statement in spoilt:
        if where == "ClickHouse":
            world.command(statement)
        else:
            with psycopg.connect(world.warehouse_uri) as connection:
                connection.execute(statement.encode())
        before, found = found, world.differences()
        assert "CONSTRAINT" in statement or len(found) > len(before), statement
        assert all(where in one for one in found if one not in before), statement
