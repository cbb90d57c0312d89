"""What stands in for Oracle, of which no server can be had here.

It takes the calls that python-oracledb takes, refuses what that would refuse (another set of binds than the
statement's placeholders, a datetime or a long text without its type), parses every statement in Oracle's
dialect, keeps a record, and executes the statement, translated, on SQLite, so that its meaning is checked
too. It shows nothing of Oracle's own locking, planning or types.
"""

import re
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import sqlglot

from services.pipeline_info.backends import oracle as backend

STATEMENT_KINDS = (sqlglot.exp.Select, sqlglot.exp.Insert)


class DatabaseError(Exception):
    """As the driver's."""


@dataclass
class Call:
    statement: str
    binds: dict[str, object]
    types: dict[str, str]


@dataclass
class StandIn:
    """The driver module: `create_pool` and the names that the backend uses."""

    file: Path
    calls: list[Call] = field(default_factory=list)
    pools: list[dict[str, object]] = field(default_factory=list)

    DatabaseError = DatabaseError
    POOL_GETMODE_TIMEDWAIT = "timedwait"
    DB_TYPE_TIMESTAMP = "timestamp"
    DB_TYPE_BINARY_DOUBLE = "double"
    DB_TYPE_CLOB = "clob"

    def __post_init__(self) -> None:
        self.defaults = SimpleNamespace(fetch_lobs=True)
        self.turn = threading.Lock()
        self.cache: dict[str, str] = {}
        ddl = Path(backend.__file__).with_name("oracle.sql").read_text()
        # SQLite would keep a NUMBER as a float, whose sums are not exact beyond 2**53; Oracle's are.
        ddl = re.sub(r"\bNUMBER\(\d+\)", "INTEGER", ddl)
        with sqlite3.connect(self.file) as db:
            for statement in sqlglot.transpile(ddl, read="oracle", write="sqlite"):
                statement = re.sub(" NULLS (FIRST|LAST)", "", statement)  # noqa: PLW2901 - not in an index of SQLite
                db.execute(re.sub(r"CREATE (TABLE|INDEX) ", r"CREATE \1 IF NOT EXISTS ", statement))

    def create_pool(self, **options: object) -> "Pool":
        self.pools.append(options)
        return Pool(self)

    def translated(self, statement: str) -> str:
        if statement not in self.cache:
            (tree,) = sqlglot.parse(statement, read="oracle")
            assert isinstance(tree, STATEMENT_KINDS), statement
            assert not list(tree.find_all(sqlglot.exp.Command)), statement
            assert not [x for x in tree.find_all(sqlglot.exp.Literal) if x.is_string], statement
            self.cache[statement] = tree.sql(dialect="sqlite")
        return self.cache[statement]


class Pool:
    busy, opened = 0, 1

    def __init__(self, driver: StandIn) -> None:
        self.driver = driver

    @contextmanager
    def acquire(self):
        with self.driver.turn:
            connection = Connection(self.driver)
            try:
                yield connection
            finally:
                connection.db.close()

    def close(self, force: bool) -> None:
        assert force


class Connection:
    call_timeout = 0

    def __init__(self, driver: StandIn) -> None:
        assert driver.defaults.fetch_lobs is False
        self.driver = driver
        self.db = sqlite3.connect(driver.file)

    def cursor(self) -> "Cursor":
        assert self.call_timeout > 0
        return Cursor(self)

    def commit(self) -> None:
        self.db.commit()

    def rollback(self) -> None:
        self.db.rollback()

    def ping(self) -> None:
        self.db.execute("SELECT 1")


class Cursor:
    def __init__(self, connection: Connection) -> None:
        self.driver, self.cursor = connection.driver, connection.db.cursor()
        self.types: dict[str, str] = {}
        self.errors: list[SimpleNamespace] = []

    def setinputsizes(self, **types: str) -> None:
        self.types = types

    def _bind(self, statement: str, binds: dict[str, object]) -> dict[str, object]:
        assert set(re.findall(r":(\w+)", statement)) == set(binds), statement
        self.driver.calls.append(Call(statement, dict(binds), dict(self.types)))
        made = {}
        for name, value in binds.items():
            if isinstance(value, datetime):
                assert self.types.get(name) == "timestamp", f"{name} would be bound as DATE"
                assert value.tzinfo is None
                value = value.isoformat(sep=" ", timespec="microseconds")  # noqa: PLW2901
            if isinstance(value, str) and len(value.encode()) > 4000:
                assert self.types.get(name) == "clob", f"{name} is too long for VARCHAR2"
            made[name] = value
        return made

    def execute(self, statement: str, binds: dict[str, object]) -> None:
        self.cursor.execute(self.driver.translated(statement), self._bind(statement, binds))

    def executemany(self, statement: str, rows: list[dict[str, object]], *, batcherrors: bool) -> None:
        assert batcherrors
        for number, row in enumerate(rows):
            try:
                self.cursor.execute(self.driver.translated(statement), self._bind(statement, row))
            except sqlite3.IntegrityError as error:
                self.errors.append(SimpleNamespace(code=1, offset=number, message=str(error)))

    def getbatcherrors(self) -> list[SimpleNamespace]:
        return self.errors

    @property
    def description(self):
        return [(column[0].upper(), *column[1:]) for column in self.cursor.description]

    @staticmethod
    def _typed(row):
        def value(cell):
            if isinstance(cell, str) and re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", cell):
                return datetime.fromisoformat(cell)
            return cell

        return tuple(value(cell) for cell in row)

    def fetchall(self):
        return [self._typed(row) for row in self.cursor.fetchall()]

    def fetchone(self):
        row = self.cursor.fetchone()
        return None if row is None else self._typed(row)
