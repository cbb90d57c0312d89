"""Rows that are committed late arrive in the next run.

Transactions are held open on real servers, in every way in which a watermark can pass them by.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import mysql.connector
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import sql

from tallyhouse.contracts import Column, ColumnType, SourceContract, TableContract
from tallyhouse.errors import TallyhouseError
from tallyhouse.extract import mysql as mysql_source
from tallyhouse.extract import open_work, open_work_mysql, open_work_postgres
from tallyhouse.extract import postgres as postgres_source
from tallyhouse.extract.open_work import OpenWork, behind, check_primary, next_watermark
from tallyhouse.servers import MySqlServer
from tallyhouse.settings import Settings
from tests.extract.oracle import differences
from tests.store_servers import running

pytestmark = pytest.mark.integration

TABLE = TableContract(
    source="scratch",
    name="things",
    columns=tuple(
        Column(name, ColumnType.parse(spelled), False)
        for name, spelled in {"id": "varchar(40)", "v": "varchar(40)", "updated_at": "datetime(6)"}.items()
    ),
    key=("id",),
    cursor="updated_at",
    pii=(),
    control_totals=(),
)
SOURCE = SourceContract("scratch", "mysql", "mysql_scratch", (TABLE,))
DDL = (
    "CREATE TABLE things (id varchar(40) PRIMARY KEY, v varchar(40) NOT NULL, updated_at datetime(6) "
    "DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL, KEY (updated_at)) "
    "CHARACTER SET utf8mb4"
)
LATER = 0.3
"""Seconds after which a watermark that saw nothing would have passed a row."""


@pytest.fixture(autouse=True)
def hardly_any_skew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested is the method, not what its margin covers."""
    monkeypatch.setattr(open_work, "SKEW", timedelta(milliseconds=20))


@dataclass
class Runs:
    """Runs one after the other, and what they have taken: values by key."""

    look: Callable[[], OpenWork]
    read: Callable[[datetime | None], Any]
    contract: SourceContract = SOURCE
    watermark: datetime | None = None
    taken: dict[str, str] = field(default_factory=dict)
    work: OpenWork | None = None

    def run(self) -> set[str]:
        """One run; returns the keys that it took."""
        self.work = self.look()
        rows = [row for batch in self.read(self.watermark).batches for row in batch.to_pylist()]
        self.taken |= {row["id"]: row["v"] for row in rows}
        self.watermark = next_watermark(self.work, self.contract, self.watermark)
        return {row["id"] for row in rows}


class Server:
    """A scratch database as its writers and as extraction see it."""

    def __init__(self, scratch: Any) -> None:
        self.scratch = scratch
        scratch.cursor.execute(DDL)
        self.runs = Runs(
            lambda: open_work_mysql.open_work(self.reader, SOURCE),
            lambda watermark: mysql_source.open_stream(self.address(), TABLE, watermark),
        )

    def connect(self, user: str, password: str, **more: Any) -> Any:
        s = self.scratch.settings
        return mysql.connector.connect(
            **{"host": s.mysql_orders_host, "port": s.mysql_orders_port, "database": self.scratch.name}
            | more,
            user=user,
            password=password,
        )

    def writer(self, **more: Any) -> Any:
        connection = self.connect("root", self.scratch.settings.mysql_root_password, **more)
        connection.cursor().execute("SET SESSION innodb_lock_wait_timeout = 20")
        return connection

    def reader(self) -> Any:
        s = self.scratch.settings
        return self.connect(s.etl_reader_user, s.etl_reader_password)

    def address(self) -> str:
        s = self.scratch.settings
        return MySqlServer(
            host=s.mysql_orders_host,
            port=s.mysql_orders_port,
            user=s.etl_reader_user,
            password=s.etl_reader_password,
            database=self.scratch.name,
        )

    def nothing_is_missing(self) -> bool:
        return not differences(self.scratch.cursor, "things", self.runs.taken)


@pytest.fixture
def server(mysql_scratch: Any) -> Server:
    return Server(mysql_scratch)


def do(connection: Any, *statements: str) -> None:
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
        if cursor.with_rows:
            cursor.fetchall()


def late(key: str) -> str:
    return f"INSERT INTO things (id, v) VALUES ('{key}', 'x')"


@pytest.mark.parametrize("begin", ["START TRANSACTION", "SET autocommit = 0"])
@pytest.mark.parametrize("more", [0, 30])
def test_a_transaction_that_is_open_during_the_run_is_waited_for(
    server: Server, begin: str, more: int
) -> None:
    with closing(server.writer(autocommit=True)) as writer, closing(server.writer(autocommit=True)) as other:
        do(writer, begin, late("late"), *["SELECT 1"] * more)
        time.sleep(LATER)
        do(other, late("early"))
        assert server.runs.run() == {"early"}
        assert server.runs.work
        assert server.runs.work.seen_by == "performance_schema"
        do(writer, "COMMIT")
        assert "late" in server.runs.run()
    assert server.nothing_is_missing()


def test_a_transaction_that_commits_after_the_snapshot_is_opened_is_waited_for(server: Server) -> None:
    runs = server.runs
    with closing(server.writer(autocommit=True)) as writer:
        do(writer, late("early"), "START TRANSACTION", late("late"))
        time.sleep(LATER)
        work, stream = runs.look(), runs.read(None)
        do(writer, "COMMIT")
    assert Runs(lambda: work, lambda _: stream, taken=runs.taken).run() == {"early"}
    runs.watermark = next_watermark(work, SOURCE, None)
    assert "late" in runs.run()
    assert server.nothing_is_missing()


@pytest.mark.parametrize("rights", ["performance_schema", "InnoDB's list of transactions"])
def test_a_statement_that_waited_for_a_metadata_lock_has_older_rows_than_its_transaction(
    server: Server, rights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rights != "performance_schema":
        monkeypatch.setattr(open_work_mysql, "_CAN_TELL", "SELECT 0")
    with closing(server.writer(autocommit=True)) as ddl, closing(server.writer(autocommit=True)) as writer:
        do(ddl, "LOCK TABLES things WRITE")
        do(writer, "SET autocommit = 0")
        waiting = threading.Thread(target=do, args=(writer, late("late")))
        waiting.start()
        time.sleep(1.2)
        do(ddl, "UNLOCK TABLES")
        waiting.join()
        server.runs.run()
        assert server.runs.work
        assert server.runs.work.seen_by == rights
        do(writer, "COMMIT")
        assert server.runs.run() == {"late"}


@pytest.mark.parametrize("rights", ["performance_schema", "InnoDB's list of transactions"])
@pytest.mark.parametrize("lock", ["LOCK TABLES things WRITE", "the row"])
def test_a_statement_that_still_waits_is_waited_for(
    server: Server, lock: str, rights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rights != "performance_schema":
        monkeypatch.setattr(open_work_mysql, "_CAN_TELL", "SELECT 0")
    server.scratch.cursor.execute(late("one"))
    server.runs.run()
    with closing(server.writer(autocommit=True)) as holder, closing(server.writer(autocommit=True)) as writer:
        do(
            holder,
            *(["START TRANSACTION", "SELECT * FROM things FOR UPDATE"] if lock == "the row" else [lock]),
        )
        waiting = threading.Thread(target=do, args=(writer, "UPDATE things SET v = 'late' WHERE id = 'one'"))
        waiting.start()
        time.sleep(LATER)
        work = server.runs.look()
        do(holder, "ROLLBACK" if lock == "the row" else "UNLOCK TABLES")
        waiting.join()
        (stamped,) = one(server, "SELECT updated_at FROM things")
        assert next_watermark(work, SOURCE, None) <= stamped.replace(tzinfo=UTC)  # type: ignore[operator]
        server.runs.run()
        assert server.nothing_is_missing()


def one(server: Server, query: str) -> tuple[Any, ...]:
    server.scratch.cursor.execute(query)
    (row,) = server.scratch.cursor.fetchall()
    return tuple(row)


def test_a_prepared_transaction_without_a_session_holds_the_watermark(server: Server) -> None:
    server.scratch.cursor.execute(late("early"))
    server.runs.run()
    before = server.runs.watermark
    xid = f"'{server.scratch.name}'"
    with closing(server.writer(autocommit=True)) as writer:
        do(writer, f"XA START {xid}", late("late"), f"XA END {xid}", f"XA PREPARE {xid}")
    time.sleep(LATER)
    try:
        server.runs.run()
        assert server.runs.work
        assert server.runs.work.held
        assert "prepared (XA)" in server.runs.work.held
        assert server.runs.watermark == before
    finally:
        with closing(server.writer(autocommit=True)) as writer:
            do(writer, f"XA COMMIT {xid}")
    assert "late" in server.runs.run()
    assert server.nothing_is_missing()


@pytest.mark.parametrize("engine", ["mariadb", "mysql"])
def test_a_prepared_transaction_that_outlives_a_restart_holds_the_watermark(
    settings: Settings, engine: str
) -> None:
    with running(f"{engine}-restarted", settings, engine) as (its, restart):
        where = {
            "host": its.mysql_orders_host,
            "port": its.mysql_orders_port,
            "user": "root",
            "password": its.mysql_root_password,
            "database": its.mysql_orders_db,
            "autocommit": True,
        }
        with closing(mysql.connector.connect(**where)) as writer:
            do(writer, "DROP TABLE IF EXISTS things", DDL)
            do(writer, "XA START 'x'", late("late"), "XA END 'x'", "XA PREPARE 'x'")
        restart()
        time.sleep(LATER)
        with closing(mysql.connector.connect(**where)) as writer:
            try:
                work = open_work_mysql.open_work(lambda: mysql.connector.connect(**where), SOURCE)
            finally:
                do(writer, "XA COMMIT 'x'")
    assert work.held
    before = datetime(2026, 1, 1, tzinfo=UTC)
    assert next_watermark(work, SOURCE, before) == before


def test_a_transaction_whose_first_statement_is_forgotten_holds_the_watermark(server: Server) -> None:
    (kept,) = one(server, "SELECT @@performance_schema_events_statements_history_size")
    with closing(server.writer(autocommit=True)) as writer:
        do(writer, "SET autocommit = 0", late("late"), *["SELECT 1"] * (int(kept) + 1))
        server.runs.run()
        assert server.runs.work
        assert server.runs.work.held
        assert "no longer known" in server.runs.work.held
        assert server.runs.watermark is None
        do(writer, "COMMIT")
    assert server.runs.run() == {"late"}


def test_a_transaction_that_only_reads_holds_nothing_back(server: Server) -> None:
    with closing(server.writer(autocommit=True)) as analyst:
        do(analyst, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY", "SELECT * FROM things")
        time.sleep(LATER)
        work = server.runs.look()
        assert not work.held
        assert not work.unseen
        assert work.oldest is None or work.at - work.oldest < timedelta(seconds=LATER)


def test_without_rights_the_overlap_stands_in_and_is_warned_of(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    user = f"poor_{server.scratch.name[-8:]}"
    server.scratch.cursor.execute(f"CREATE USER {user}@'%' IDENTIFIED BY 'Pour-1789'")
    try:
        work = open_work_mysql.open_work(lambda: server.connect(user, "Pour-1789", database=None), SOURCE)
    finally:
        server.scratch.cursor.execute(f"DROP USER {user}@'%'")
    open_work.tell(work, SOURCE)
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1
    assert "source scratch: the account may not see open transactions" in warned[0]
    assert "grant it PROCESS" in warned[0]
    assert next_watermark(work, SOURCE, None) == work.at - open_work.SKEW - timedelta(seconds=60)


def test_a_list_that_somebody_else_reads_all_the_time_is_believed_only_when_it_is_fresh(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_work_mysql, "_CAN_TELL", "SELECT 0")
    stop = threading.Event()

    def poll() -> None:
        with closing(server.writer(autocommit=True)) as monitoring:
            while not stop.is_set():
                do(monitoring, "SELECT COUNT(*) FROM information_schema.INNODB_TRX")

    polling = threading.Thread(target=poll)
    polling.start()
    try:
        for _ in range(3):
            with closing(server.writer(autocommit=True)) as writer:
                do(writer, "START TRANSACTION", "REPLACE INTO things (id, v) VALUES ('late', 'x')")
                time.sleep(0.03)
                work = server.runs.look()
                assert work.unseen or work.oldest
                do(writer, "COMMIT")
            (stamped,) = one(server, "SELECT updated_at FROM things")
            assert next_watermark(work, SOURCE, None) <= stamped.replace(tzinfo=UTC)  # type: ignore[operator]
    finally:
        stop.set()
        polling.join()


def test_a_read_only_server_is_refused_unless_its_lag_is_told(server: Server) -> None:
    server.scratch.cursor.execute("SET GLOBAL read_only = 1")
    try:
        work = server.runs.look()
    finally:
        server.scratch.cursor.execute("SET GLOBAL read_only = 0")
    with pytest.raises(TallyhouseError, match=r"the server is a replica"):
        check_primary(work, SOURCE)
    told = SourceContract("scratch", "mysql", "mysql_scratch", (TABLE,), replica_lag=30)
    check_primary(work, told)
    assert next_watermark(work, told, None) <= work.at - timedelta(seconds=30)  # type: ignore[operator]
    check_primary(server.runs.look(), SOURCE)


def test_a_clock_that_was_set_back_is_noticed() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert behind(OpenWork(at), at + timedelta(seconds=1))
    assert not behind(OpenWork(at), at)
    assert not behind(OpenWork(at), None)


def test_a_clock_of_the_applications_is_given_the_overlap() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    contract = SourceContract("s", "mysql", "c", (TABLE,), overlap=300, clock="application")
    assert next_watermark(OpenWork(at), contract, None) == at - open_work.SKEW - timedelta(seconds=300)


# -- any order of things ----------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["begin", "implicit", "commit", "rollback"]), st.integers(0, 2)),
        st.tuples(st.sampled_from(["insert", "update"]), st.integers(0, 2)),
        st.tuples(st.just("run"), st.just(0)),
    ),
    min_size=4,
    max_size=24,
)


@hypothesis_settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_whatever_the_order_of_writers_and_runs_nothing_is_missed(
    server: Server, steps: list[tuple[str, int]]
) -> None:
    server.scratch.cursor.execute("DELETE FROM things")
    runs = Runs(server.runs.look, server.runs.read)
    writers = [server.writer(autocommit=True) for _ in range(3)]
    for writer in writers:
        do(writer, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")  # no locks on gaps
    try:
        play(steps, writers, runs, ("START TRANSACTION", "SET autocommit = 0"))
        for writer in writers:
            do(writer, "COMMIT")
        runs.run()
    finally:
        for writer in writers:
            writer.close()
    server.runs = runs
    assert server.nothing_is_missing()


def play(steps: list[tuple[str, int]], writers: list[Any], runs: Runs, begins: tuple[str, str]) -> None:
    own: dict[int, list[str]] = {}
    for number, (step, who) in enumerate(steps):
        if step == "run":
            runs.run()
        elif step == "insert":
            own.setdefault(who, []).append(f"{who}-{number}")
            do(writers[who], f"INSERT INTO things (id, v) VALUES ('{own[who][-1]}', 'new')")
        elif step == "update":
            # Each its own rows, by their keys: a lock would make the test wait for itself.
            for row in own.get(who, []):
                do(writers[who], f"UPDATE things SET v = 'step {number}' WHERE id = '{row}'")
        else:
            do(writers[who], {"begin": begins[0], "implicit": begins[1]}.get(step, step.upper()))


# -- PostgreSQL -------------------------------------------------------------------------------------

PG = SourceContract("scratch", "postgres", "pg_scratch", (TABLE,))
PG_DDL = (
    "CREATE TABLE things (id text PRIMARY KEY, v text NOT NULL, updated_at timestamptz NOT NULL DEFAULT "
    "now()); CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$; "
    "CREATE TRIGGER stamp BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION stamp()"
)


@dataclass
class PgServer:
    """A scratch database of PostgreSQL; its owner writes, and `reader` extracts."""

    owner: str
    reader: str

    def __post_init__(self) -> None:
        self.runs = Runs(
            lambda: open_work_postgres.open_work(lambda: psycopg.connect(self.reader)),
            lambda watermark: postgres_source.open_stream(self.reader, TABLE, watermark),
            PG,
        )

    def writer(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.owner, autocommit=True)

    def nothing_is_missing(self) -> bool:
        with self.writer() as connection:
            return not differences(connection.cursor(), "things", self.runs.taken)


@pytest.fixture
def pg_server(postgres_scratch: str, settings: Settings) -> Iterator[PgServer]:
    role = f"reader_{postgres_scratch[-8:]}"
    admin = (
        f"host={settings.postgres_host} port={settings.postgres_port} user={settings.postgres_user} "
        f"password={settings.postgres_password} dbname=postgres"
    )
    with psycopg.connect(admin, autocommit=True) as superuser:
        superuser.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'reads'").format(sql.Identifier(role)))
        superuser.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(sql.Identifier(role)))
        with psycopg.connect(postgres_scratch, autocommit=True) as owner:
            owner.execute(PG_DDL.encode())
            owner.execute("GRANT SELECT ON things TO PUBLIC")
        place = postgres_scratch.partition("@")[2]
        try:
            yield PgServer(postgres_scratch, f"postgresql://{role}:reads@{place}")
        finally:
            superuser.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def pg_do(connection: psycopg.Connection[Any], *statements: str) -> None:
    for statement in statements:
        connection.execute(statement.encode())


def test_postgres_a_session_that_has_only_read_may_still_write_the_past(pg_server: PgServer) -> None:
    with pg_server.writer() as writer:
        pg_do(writer, "BEGIN", "SELECT 1")
        time.sleep(LATER)
        assert pg_server.runs.run() == set()
        pg_do(writer, late("late"), "COMMIT")
    assert pg_server.runs.run() == {"late"}
    assert pg_server.nothing_is_missing()


def test_postgres_a_prepared_transaction_holds_the_watermark(pg_server: PgServer) -> None:
    gid = pg_server.owner[-16:]
    with pg_server.writer() as writer:
        pg_do(writer, late("early"))
        pg_server.runs.run()
        before = pg_server.runs.watermark
        pg_do(writer, "BEGIN", late("late"), f"PREPARE TRANSACTION '{gid}'")
        time.sleep(LATER)
        try:
            pg_server.runs.run()
            assert pg_server.runs.work
            assert pg_server.runs.work.held
            assert pg_server.runs.watermark == before
        finally:
            pg_do(writer, f"COMMIT PREPARED '{gid}'")
    assert "late" in pg_server.runs.run()
    assert pg_server.nothing_is_missing()


def test_postgres_without_rights_the_overlap_stands_in(pg_server: PgServer, settings: Settings) -> None:
    work = open_work_postgres.open_work(lambda: psycopg.connect(pg_server.owner))
    assert work.unseen
    assert "pg_read_all_stats" in work.unseen
    assert next_watermark(work, PG, None) <= work.at - timedelta(seconds=60)  # type: ignore[operator]


@hypothesis_settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_postgres_whatever_the_order_of_writers_and_runs_nothing_is_missed(
    pg_server: PgServer, steps: list[tuple[str, int]]
) -> None:
    runs = Runs(pg_server.runs.look, pg_server.runs.read, PG)
    writers = [pg_server.writer() for _ in range(3)]
    try:
        pg_do(writers[0], "DELETE FROM things")
        play_postgres(steps, writers, runs)
        for writer in writers:
            pg_do(writer, "COMMIT")
        runs.run()
    finally:
        for writer in writers:
            writer.close()
    pg_server.runs = runs
    assert pg_server.nothing_is_missing()


def play_postgres(steps: list[tuple[str, int]], writers: list[Any], runs: Runs) -> None:
    for number, (step, who) in enumerate(steps):
        if step == "run":
            runs.run()
        elif step == "insert":
            pg_do(writers[who], f"INSERT INTO things (id, v) VALUES ('{who}-{number}', 'new')")
        elif step == "update":
            pg_do(writers[who], f"UPDATE things SET v = 'step {number}' WHERE id LIKE '{who}-%'")
        else:
            pg_do(writers[who], {"begin": "BEGIN", "implicit": "SELECT 1"}.get(step, step.upper()))
