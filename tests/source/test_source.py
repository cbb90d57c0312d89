"""`make source` on databases of other shapes, to runs whose ledgers close; judged by plain SQL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mysql.connector
import psycopg
import pytest
import yaml

from tallyhouse.settings import ROOT, Settings

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
COPIED = (
    *("config", "dags", "docs", "include", "jobs", "plugins"),
    *("scripts", "services", "spark_jobs", "sql"),
)
WIDE = 250
MYSQL, POSTGRES = "shapes", "other_shapes"


@dataclass
class Checkout:
    """A copy of the repository in which `make source` may write, with a warehouse of its own.

    Attributes:
        path: Where it is.
        environment: What commands run with.
        warehouse: To the warehouse.
    """

    path: Path
    environment: dict[str, str]
    warehouse: psycopg.Connection[Any]
    said: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, fails: bool = False, **more: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        errors = [line for line in said.splitlines() if "[error" in line or "Exception:" in line]
        assert (done.returncode != 0) == fails, "\n".join([*errors, said[-6000:]])
        return said

    def source(self, name: str, *arguments: str, fails: bool = False, **more: str) -> str:
        return self.run(
            *(sys.executable, "-m", "scripts.source", "--name", name, *arguments), fails=fails, **more
        )

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for folder in (*COPIED, ".env")
            for path in [self.path / folder, *(self.path / folder).rglob("*")]
            if path.is_file() and "__pycache__" not in path.parts
        }

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.warehouse.execute(query).fetchall()


@pytest.fixture(scope="module")
def scratch(settings: Settings) -> Iterator[dict[str, str]]:
    """Two databases with the shapes, an empty warehouse and one for Airflow; gone after the tests."""
    names = {one: f"scratch_source_{one}_{os.getpid()}" for one in ("mysql", "postgres", "dwh", "airflow")}
    owners = {
        "postgres": settings.dwh_user,
        "dwh": settings.dwh_user,
        "airflow": settings.airflow_db_user,
    }
    with (
        mysql.connector.connect(
            host=settings.mysql_orders_host,
            port=settings.mysql_orders_port,
            user="root",
            password=settings.mysql_root_password,
            autocommit=True,
        ) as stores,
        psycopg.connect(server(settings, "postgres"), autocommit=True) as admin,
    ):
        cursor = stores.cursor()
        cursor.execute(f"CREATE DATABASE {names['mysql']} CHARACTER SET utf8mb4")
        reader = f"'{settings.etl_reader_user}'@'%'"
        cursor.execute(f"GRANT SELECT ON {names['mysql']}.* TO {reader}")
        for one, owner in owners.items():
            admin.execute(f"CREATE DATABASE {names[one]} OWNER {owner}".encode())
        try:
            yield names
        finally:
            cursor.execute(f"REVOKE SELECT ON {names['mysql']}.* FROM {reader}")
            cursor.execute(f"DROP DATABASE {names['mysql']}")
            for one in owners:
                admin.execute(f"DROP DATABASE {names[one]} WITH (FORCE)".encode())


def server(settings: Settings, database: str, user: str = "", password: str = "") -> str:
    login = f"{user or settings.postgres_user}:{quote(password or settings.postgres_password)}"
    return f"postgresql://{login}@{settings.postgres_host}:{settings.postgres_port}/{database}"


@pytest.fixture(scope="module")
def mysql_shapes(settings: Settings, scratch: dict[str, str]) -> Iterator[Any]:
    with closing(
        mysql.connector.connect(
            host=settings.mysql_orders_host,
            port=settings.mysql_orders_port,
            user="root",
            password=settings.mysql_root_password,
            database=scratch["mysql"],
            autocommit=True,
        )
    ) as connection:
        cursor = connection.cursor()
        script = (HERE / "mysql.sql").read_text(encoding="utf-8")
        for statement in script.split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        cursor.execute("SET SESSION sql_mode = ''")
        cursor.execute("INSERT INTO employees VALUES (3, '1960-01-01', 'Zed', 'Null', '0000-00-00')")
        cursor.execute(wide())
        cursor.execute("INSERT INTO wide (id, c1, c2, c3) VALUES (1, 1, 'x', 0.5), (2, NULL, NULL, NULL)")
        yield cursor


@pytest.fixture(scope="module")
def postgres_shapes(settings: Settings, scratch: dict[str, str]) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(server(settings, scratch["postgres"]), autocommit=True) as connection:
        connection.execute((HERE / "postgres.sql").read_text(encoding="utf-8").encode())
        connection.execute(wide().encode())
        connection.execute("INSERT INTO wide (id, c1, c2, c3) VALUES (1, 1, 'x', 0.5), (2, NULL, NULL, NULL)")
        for schema in ("public", '"HR"'):
            connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {settings.etl_reader_user}".encode())
            connection.execute(
                f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {settings.etl_reader_user}".encode()
            )
        yield connection


def wide() -> str:
    types = ("INTEGER", "VARCHAR(20)", "DECIMAL(10, 3)", "DATE")
    columns = ", ".join(f"c{number} {types[(number - 1) % len(types)]}" for number in range(1, WIDE))
    return f"CREATE TABLE wide (id INTEGER NOT NULL PRIMARY KEY, {columns})"


@pytest.fixture(scope="module")
def checkout(
    settings: Settings, scratch: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Checkout]:
    path = tmp_path_factory.mktemp("checkout")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, path)
    (path / ".venv").symlink_to(ROOT / ".venv")
    environment = {
        **os.environ,
        **settings.environment(),
        "DWH_DB": scratch["dwh"],
        # The stack's Airflow does not have the checkout's DAGs in its folder, and would now and then take
        # what they refer to for gone.
        "AIRFLOW_DB": scratch["airflow"],
        "TALLYHOUSE_LOCAL": str(path / ".local"),
        "PYTHONPATH": ":".join(map(str, (path / "include", path / "plugins", path))),
        f"MYSQL_{MYSQL.upper()}_PASSWORD": settings.etl_reader_password,
    }
    warehouse = server(settings, scratch["dwh"], settings.dwh_user, settings.dwh_password)
    with psycopg.connect(warehouse, autocommit=True) as connection:
        made = Checkout(path, environment, connection)
        made.run("scripts/airflow", "db", "migrate")
        yield made


@pytest.fixture(scope="module")
def mysql_url(settings: Settings, scratch: dict[str, str]) -> str:
    where = f"{settings.mysql_orders_host}:{settings.mysql_orders_port}"
    return f"mysql://{settings.etl_reader_user}@{where}/{scratch['mysql']}"


def test_a_dry_run_shows_and_writes_nothing(checkout: Checkout, mysql_shapes: Any, mysql_url: str) -> None:
    before = checkout.files()
    said = checkout.source(MYSQL, URL=mysql_url)
    assert checkout.files() == before
    for line in (
        "not the cursor: rental_id, a number that counts up",
        "cursor last_update: NOT NULL, the server stamps it at each change, an index begins with it",
        "cursor last_update: NOT NULL, the server stamps it at each change, but no index begins with it",
        "key code, region: the unique index by_code, all of it NOT NULL",
        "no key: it has no primary key and no unique index",
        "code of the key is compared as its collation does",
        "contact is taken for personal data: 100% of the values seen are e-mail addresses",
        "first_name is taken for personal data: its name says first name",
        "hire_date has 1 values that no store downstream holds: they become NULL",
        "group is decimal(65,30): more than Spark's 38 digits",
        "order-items -> ods.shapes_order_items: table, 2 rows",
        "Nothing was written.",
    ):
        assert line in said, said
    assert checkout.environment["MYSQL_SHAPES_PASSWORD"] not in said


def run_and_close(checkout: Checkout, source: str) -> None:
    said = checkout.run("scripts/airflow", "dags", "test", f"{source}_nightly", "2026-01-02")
    assert "task_id=close_run" in said, said[-6000:]
    (status,) = checkout.rows(
        f"SELECT status FROM etl.run WHERE pipeline = '{source}' ORDER BY started_at DESC LIMIT 1"
    )
    assert status == ("published",), said[-6000:]
    assert checkout.rows("SELECT * FROM etl.ledger WHERE NOT closed") == []


def test_a_mysql_database_arrives_whole(checkout: Checkout, mysql_shapes: Any, mysql_url: str) -> None:
    said = checkout.source(MYSQL, "--write", URL=mysql_url)
    assert "now: scripts/airflow dags test shapes_nightly 2026-01-02" in said
    assert checkout.environment["MYSQL_SHAPES_PASSWORD"] not in "".join(
        content.decode(errors="replace") for content in checkout.files().values()
    )
    run_and_close(checkout, MYSQL)
    tables = names(checkout, MYSQL)
    assert tables["order-items"] == "shapes_order_items"  # TechMarket has one already
    for table, ods in tables.items():
        mysql_shapes.execute(f"SELECT COUNT(*) FROM `{table}`")
        (count,) = mysql_shapes.fetchone()
        assert checkout.rows(f'SELECT count(*) FROM ods."{ods}"') == [(count,)], table
    same(mysql_shapes, "SELECT line, at FROM log_lines", checkout, "SELECT line, at FROM ods.log_lines")
    same(
        mysql_shapes,
        'SELECT `orderNumber`, `order-line`, `select`, `a b``c"d%s`, `table`, `note` FROM `order-items`',
        checkout,
        'SELECT order_number, order_line, "select", a_b_c_d_s, "table", note FROM ods.shapes_order_items',
    )
    same(
        mysql_shapes,
        "SELECT `key`, `group`, `end`, started, ratio FROM `user`",
        checkout,
        'SELECT "key", "group", "end", started, ratio FROM ods."user"',
    )
    same(
        mysql_shapes,
        "SELECT emp_no, to_date FROM salaries",
        checkout,
        "SELECT emp_no, to_date FROM ods.salaries",
    )
    same(
        mysql_shapes,
        "SELECT released, films, rates FROM `films by year`",
        checkout,
        "SELECT released, films, rates FROM ods.films_by_year",
    )
    assert checkout.rows("SELECT hire_date FROM ods.employees WHERE emp_no = 3") == [(None,)]
    suite = json.loads((checkout.path / "include/contracts/suites/shapes/readings.json").read_text())
    rules = [(one["type"], one["kwargs"]) for one in suite["expectations"]]
    assert ("expect_column_values_to_be_in_set", {"column": "state", "value_set": ["off", "on"]}) in rules
    assert ("expect_column_values_to_be_between", {"column": "value", "min_value": 0}) in rules
    assert "expect_column_values_to_match_regex" not in [kind for kind, _ in rules]


def test_run_again_it_follows_the_schema(checkout: Checkout, mysql_shapes: Any) -> None:
    path = checkout.path / "include/contracts/shapes.yaml"
    text = path.read_text()
    path.write_text(text.replace("  film:\n", "  film:\n    proof: count # said by hand\n"))
    for statement in (
        "ALTER TABLE film ADD COLUMN length INT NOT NULL DEFAULT 90, MODIFY title VARCHAR(200) NOT NULL",
        "ALTER TABLE film ADD COLUMN `on` VARCHAR(40), ADD COLUMN `contact e-mail` VARCHAR(90)",
        "CREATE TABLE later (id INT PRIMARY KEY)",
    ):
        mysql_shapes.execute(statement)
    before = checkout.files()
    said = checkout.source(MYSQL)
    assert checkout.files() == before
    for line in (
        "changed: film.length: new, integer",
        "changed: film.title: was varchar(128), is varchar(200)",
        "taken whole in the next run: film",
        "not taken: later (TABLES=all takes every table)",
        "+  length int(11) [not null]",
    ):
        assert line in said, said
    checkout.source(MYSQL, "--write")
    assert "proof: count # said by hand" in path.read_text()
    assert overlay(checkout, MYSQL)["tables"]["film"]["pii"] == ["contact_e_mail"]
    assert "as the definitions say" in checkout.run(sys.executable, "-m", "tallyhouse.models", "drift")
    assert checkout.rows("SELECT 1 FROM etl.watermark WHERE source = 'shapes' AND table_name = 'film'") == []
    assert "Nothing was written" in checkout.source(MYSQL)
    # What would throw data away is drafted, and left to a person.
    mysql_shapes.execute("ALTER TABLE film DROP COLUMN released")
    assert "The migration throws data away" in checkout.source(MYSQL, "--write")
    assert checkout.rows("SELECT count(released) FROM ods.film") == [(1,)]


def test_bad_input_gets_one_line_and_nothing_written(checkout: Checkout, mysql_url: str) -> None:
    before = checkout.files()
    for name, more, line in (
        ("orders", {"URL": mysql_url}, "the source orders was written by hand"),
        ("Shipping", {"URL": mysql_url}, "NAME='Shipping': use lower-case letters"),
        ("shipping", {}, "there is no source shipping yet"),
        (MYSQL, {"URL": mysql_url + "_2"}, "leads mysql_shapes to another place than the URL"),
        ("shipping", {"URL": "oracle://x@y/z"}, "URL: such as mysql://user@host:3306/database"),
        ("shipping", {"URL": mysql_url}, "the password: set MYSQL_SHIPPING_PASSWORD"),
        ("shipping", {"URL": mysql_url, "MYSQL_SHIPPING_PASSWORD": "no"}, "cannot be entered as"),
    ):
        said = checkout.source(name, "--write", fails=True, **more)
        assert said.startswith("source: ") and said.count("\n") == 1, said
        assert line in said, said
    said = checkout.source(MYSQL, "--tables", "flim", fails=True)
    assert "has no table 'flim'; did you mean 'film'?" in said
    assert checkout.files() == before


def test_a_postgres_database_arrives_whole(
    checkout: Checkout, settings: Settings, scratch: dict[str, str], postgres_shapes: psycopg.Connection[Any]
) -> None:
    url = server(settings, scratch["postgres"], settings.etl_reader_user, settings.etl_reader_password)
    checkout.source(POSTGRES, "--write", URL=url)
    assert (checkout.path / ".env").stat().st_mode & 0o077 == 0  # the password of the URL is there
    run_and_close(checkout, POSTGRES)
    tables = names(checkout, POSTGRES)
    assert tables["measured"] == "measured"
    assert "measured_2026" not in tables
    for table, ods in tables.items():
        schema = '"HR".' if table in ("employees", "salaries") else ""
        (count,) = postgres_shapes.execute(f'SELECT count(*) FROM {schema}"{table}"'.encode()).fetchall()
        assert checkout.rows(f'SELECT count(*) FROM ods."{ods}"') == [count], table
    same(
        postgres_shapes,
        'SELECT "key"::text, "group", "end"::text, started, ratio, during::text, at_most::text FROM "user"',
        checkout,
        f'SELECT "key", "group", "end", started, ratio, during, at_most FROM ods."{tables["user"]}"',
    )
    same(
        postgres_shapes,
        "SELECT film_id, rating::text, special_features::text, details::text, poster FROM film",
        checkout,
        f"SELECT film_id, rating, special_features, details, poster FROM ods.{tables['film']}",
    )
    same(
        postgres_shapes,
        "SELECT code::text, region, off FROM coupons",
        checkout,
        f"SELECT code, region, off FROM ods.{tables['coupons']}",
    )
    cursors = {ods: said.get("cursor") for ods, said in overlay(checkout, POSTGRES)["tables"].items()}
    assert cursors[tables["film"]] == "last_update"  # a trigger stamps it
    assert cursors[tables["rental"]] is None


def overlay(checkout: Checkout, source: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((checkout.path / f"include/contracts/{source}.yaml").read_text())
    return found


def names(checkout: Checkout, source: str) -> dict[str, str]:
    """By the source's name of a table, its name in `ods`."""
    return {said.get("table", name): name for name, said in overlay(checkout, source)["tables"].items()}


def same(source: Any, query: str, checkout: Checkout, other: str) -> None:
    """The source's rows are those of `ods`, value by value."""
    answer = source.execute(query.encode() if isinstance(source, psycopg.Connection) else query)
    there = (answer if answer is not None else source).fetchall()
    plain = Counter(tuple(map(value, row)) for row in there)
    assert Counter(tuple(map(value, row)) for row in checkout.rows(other)) == plain


def value(one: Any) -> Any:
    if isinstance(one, datetime):
        return one.astimezone(UTC).replace(tzinfo=None) if one.tzinfo else one
    if isinstance(one, bytes | bytearray):
        return bytes(one)
    if isinstance(one, float | Decimal | int | date) or one is None:
        return one
    return str(one).rstrip()
