"""The migrations' runner: repeatable, safe side by side, and one line when something is wrong."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from clickhouse_connect.driver.client import Client
from psycopg import sql

from tallyhouse.errors import TallyhouseError
from tallyhouse.migrate import main, migrate_target, migrate_warehouse
from tallyhouse.settings import ROOT, Settings
from tests.warehouse.conftest import administrator, owner

pytestmark = pytest.mark.integration


def numbers(folder: str) -> list[str]:
    return sorted(file.name[:4] for file in (ROOT / "sql" / folder / "migrations").glob("*.sql"))


def test_dry_run_changes_nothing_and_a_second_run_has_nothing_to_do(empty: Settings) -> None:
    expected = numbers("dwh")
    for dry_run, found in ((True, expected), (True, expected), (False, expected), (False, []), (True, [])):
        assert [label[:4] for label in migrate_warehouse(empty, dry_run=dry_run)] == found


def test_runs_side_by_side_apply_each_migration_once(empty: Settings) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = [*pool.map(lambda _: migrate_warehouse(empty), range(4))]
    assert sorted(len(labels) for labels in applied) == [0, 0, 0, len(numbers("dwh"))]


def test_a_migration_that_fails_leaves_nothing_behind(empty: Settings) -> None:
    with owner(empty) as connection:
        connection.execute("CREATE SCHEMA dwh")
    with pytest.raises(TallyhouseError, match=r'schema "dwh" already exists'):
        migrate_warehouse(empty)
    with owner(empty) as connection:
        connection.execute("DROP SCHEMA dwh")
        schemas = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname IN ('etl', 'ods')")
        assert schemas.fetchall() == []
    assert len(migrate_warehouse(empty)) == len(numbers("dwh"))


def test_runs_keep_what_they_had_when_a_subject_becomes_a_pipeline(empty: Settings) -> None:
    """A warehouse as it was left by the migrations before 0009."""
    with owner(empty) as connection:
        for number in range(1, 9):
            (script,) = (ROOT / "sql" / "dwh" / "migrations").glob(f"{number:04}_*.sql")
            connection.execute(script.read_bytes())
        connection.execute("CREATE TABLE etl.schema_version (version_num VARCHAR(32) PRIMARY KEY)")
        connection.execute("INSERT INTO etl.schema_version VALUES ('0008')")
        connection.execute(
            "INSERT INTO etl.run (run_id, subject, dag_id, dag_run_id, status) "
            "VALUES ('shop-1', 'shop', 'd', 'm', 'published'), ('other-1', 'other', 'd', 'm', 'failed')"
        )
        connection.execute(
            "INSERT INTO etl.ledger (run_id, subject, table_name, hop, measure, left_value, right_value, "
            "parts) VALUES ('shop-1', 'shop', 't', 'raw=curated', 'rows', 5, 5, "
            """'{"curated": 3, "superseded": 0, "kept aside": 2}'), """
            """('other-1', 'other', 't', 'accepted=ods', 'sum(x)', 3, 3, '{"ods": 1, "overtaken": 2}')"""
        )
    assert [label[:4] for label in migrate_warehouse(empty)] == numbers("dwh")[8:]
    with owner(empty) as connection:
        runs = connection.execute("SELECT run_id, pipeline, status FROM etl.run ORDER BY run_id").fetchall()
        assert runs == [("other-1", "other", "failed"), ("shop-1", "shop", "published")]
        lines = connection.execute("SELECT pipeline, parts FROM etl.ledger ORDER BY pipeline").fetchall()
        assert lines == [
            ("other", {"ods": 1, "superseded": 2}),
            ("shop", {"curated": 3, "superseded": 0, "quarantined": 2}),
        ]


def test_what_was_known_of_clickhouse_is_kept_by_target(empty: Settings) -> None:
    """A warehouse as it was left by the migrations before 0010."""
    with owner(empty) as connection:
        for number in range(1, 10):
            (script,) = (ROOT / "sql" / "dwh" / "migrations").glob(f"{number:04}_*.sql")
            connection.execute(script.read_bytes())
        connection.execute("CREATE TABLE etl.schema_version (version_num VARCHAR(32) PRIMARY KEY)")
        connection.execute("INSERT INTO etl.schema_version VALUES ('0009')")
        connection.execute(
            "INSERT INTO etl.run (run_id, pipeline, dag_id, dag_run_id, status, clickhouse_at, failure) "
            "VALUES "
            "('a', 'shop', 'd', '1', 'published', '2026-01-02', NULL), "
            """('b', 'shop', 'd', '2', 'published', NULL, '{"task": "publish.clickhouse"}'), """
            "('c', 'shop', 'd', '3', 'published', NULL, NULL), "
            """('d', 'shop', 'd', '4', 'failed', NULL, '{"task": "check"}'), """
            "('e', 'events', 'd', '5', 'published', '2026-01-02', NULL)"
        )
        connection.execute(
            "INSERT INTO etl.ledger (run_id, pipeline, table_name, hop, measure, left_value, right_value) "
            "VALUES ('a', 'shop', 'm', 'model=mart', 'rows', 1, 1), "
            "('e', 'events', 't', 'raw=curated', 'rows', 1, 1)"
        )
    assert [label[:4] for label in migrate_warehouse(empty)][:1] == ["0010"]
    with owner(empty) as connection:
        found = connection.execute(
            "SELECT run_id, target, state, failure ->> 'task' FROM etl.run_target ORDER BY run_id"
        ).fetchall()
        assert found == [
            ("a", "clickhouse", "shown", None),
            ("b", "clickhouse", "failed", "publish.clickhouse"),
            ("c", "clickhouse", "pending", None),
        ]
        found = connection.execute(
            "SELECT run_id, missing, failure ->> 'task', shown_at IS NOT NULL FROM etl.run_state "
            "ORDER BY run_id"
        ).fetchall()
        assert found == [
            ("a", [], None, True),
            ("b", ["clickhouse"], "publish.clickhouse", False),
            ("c", ["clickhouse"], None, False),
            ("d", [], "check", False),
            ("e", [], None, False),
        ]
        hops = connection.execute("SELECT hop FROM etl.ledger ORDER BY run_id").fetchall()
        assert hops == [("clickhouse=mart",), ("raw=curated",)]


def test_reader_reads_what_is_there_and_what_comes_later_and_writes_nothing(
    empty: Settings, settings: Settings
) -> None:
    reader = "reader of the tests"  # quoted wherever it is used
    with administrator(settings) as connection:
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(reader)))
        migrate_warehouse(empty.model_copy(update={"dwh_reader_user": reader}))  # no such role: no error
        connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(reader)))
    migrate_warehouse(empty.model_copy(update={"dwh_reader_user": reader}))
    with owner(empty) as connection:
        connection.execute("CREATE TABLE dwh.later (id integer)")
        rights = connection.execute(
            """
            SELECT table_schema, privilege_type, count(*) FROM information_schema.role_table_grants
            WHERE grantee = %s GROUP BY 1, 2 ORDER BY 1
            """,
            (reader,),
        ).fetchall()
        assert [row[:2] for row in rights] == [(schema, "SELECT") for schema in ("dwh", "etl")], (
            "ods holds what analysts may not see"
        )
        assert connection.execute(
            "SELECT has_table_privilege(%s, 'dwh.later', 'SELECT')", (reader,)
        ).fetchone() == (True,)
    with administrator(settings, empty.dwh_db) as connection:
        connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(reader)))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(reader)))


def test_clickhouse_is_migrated_once(
    clickhouse_server: Client, clickhouse_settings: Settings, empty: Settings
) -> None:
    both = clickhouse_settings.model_copy(update={"dwh_db": empty.dwh_db})
    expected = numbers("clickhouse")
    assert [label[:4] for label in migrate_target(both, "clickhouse", dry_run=True)] == expected
    assert clickhouse_server.command("SELECT count() FROM system.databases WHERE name = 'dwh'") == 0
    with ThreadPoolExecutor(3) as pool:
        applied = [*pool.map(lambda _: migrate_target(both, "clickhouse"), range(3))]
    assert sorted(len(labels) for labels in applied) == [0, 0, len(expected)]


def test_clickhouse_goes_on_after_a_migration_that_died_half_way(
    clickhouse: Client, clickhouse_settings: Settings
) -> None:
    counted = "SELECT count(), uniqExact(date_key) FROM dwh.dim_date"
    before = clickhouse.query(counted).result_rows
    clickhouse.command("TRUNCATE TABLE dwh.schema_version")
    clickhouse.command("DROP VIEW dwh.mart_revenue_daily SYNC")
    clickhouse.command("DROP TABLE dwh.mart_revenue_daily__a SYNC")
    clickhouse.command("TRUNCATE TABLE dwh.dim_pancake__a")
    assert [label[:4] for label in migrate_target(clickhouse_settings, "clickhouse")] == numbers("clickhouse")
    assert clickhouse.query(counted).result_rows == before
    assert clickhouse.command("SELECT count() FROM dwh.dim_pancake") == 1
    assert clickhouse.command("SELECT count() FROM dwh.mart_revenue_daily") == 0


def test_clickhouse_tables_become_views_with_their_rows(
    clickhouse: Client, clickhouse_settings: Settings
) -> None:
    """As the migrations before 0006 left it; then again, as after a death before the version was written."""
    clickhouse.command("INSERT INTO dwh.dim_pancake__a VALUES (7, 7, 'thin', 'maple', true)")
    names = clickhouse.query("SELECT name FROM system.tables WHERE database = 'dwh' AND engine = 'View'")
    clickhouse.command("DROP VIEW dwh.etl_slots SYNC")
    for name in {row[0] for row in names.result_rows} - {"etl_slots"}:
        clickhouse.command(f"DROP VIEW dwh.{name} SYNC")
        clickhouse.command(f"RENAME TABLE dwh.{name}__a TO dwh.{name}")
        clickhouse.command(f"DROP TABLE dwh.{name}__b SYNC")
    clickhouse.command("ALTER TABLE dwh.etl_run DROP COLUMN slots")
    rows = "SELECT * FROM dwh.dim_pancake ORDER BY pancake_key"
    before = clickhouse.query(rows).result_rows
    for version in ("0005", None):
        clickhouse.command("TRUNCATE TABLE dwh.schema_version")
        if version:
            clickhouse.command(f"INSERT INTO dwh.schema_version (version_num) VALUES ('{version}')")
        migrate_target(clickhouse_settings, "clickhouse")
        assert clickhouse.query(rows).result_rows == before
        assert clickhouse.command("SELECT count() FROM dwh.dim_pancake__b") == 0
        clickhouse.command("INSERT INTO dwh.etl_run VALUES ('r', 'p', now64(6), {'fact_refund': 'a'})")
    assert len(before) == 2


def test_clickhouse_keeps_its_runs_when_a_subject_becomes_a_pipeline(
    clickhouse: Client, clickhouse_settings: Settings
) -> None:
    """As the migrations before 0005 left it; then again, as after a death before the version was written."""
    clickhouse.command("DROP TABLE dwh.etl_run SYNC")
    clickhouse.command((ROOT / "sql/clickhouse/migrations/0004_etl_run.sql").read_text().rstrip().rstrip(";"))
    clickhouse.command("INSERT INTO dwh.etl_run VALUES ('shop-1', 'shop', now64(6)), ('a-1', 'a', now64(6))")
    rows = "SELECT run_id, {}, applied_at FROM dwh.etl_run ORDER BY run_id"
    before = clickhouse.query(rows.format("subject")).result_rows
    for _ in range(2):
        clickhouse.command("TRUNCATE TABLE dwh.schema_version")
        migrate_target(clickhouse_settings, "clickhouse")
        assert clickhouse.query(rows.format("pipeline")).result_rows == before
    assert len(before) == 2


@pytest.mark.parametrize(
    ("wrong", "migrate", "said"),
    [
        ({"postgres_port": 1}, migrate_warehouse, "PostgreSQL 127.0.0.1:1/"),
        ({"dwh_db": "not_there"}, migrate_warehouse, 'database "not_there" does not exist'),
        (
            {"clickhouse_http_port": 1},
            lambda settings: migrate_target(settings, "clickhouse"),
            "ClickHouse 127.0.0.1:1",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    empty: Settings, wrong: dict[str, object], migrate: Callable[[Settings], list[str]], said: str
) -> None:
    with pytest.raises(TallyhouseError) as error:
        migrate(empty.model_copy(update=wrong))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert empty.dwh_password not in str(error.value)


def test_command_line(
    empty: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DWH_DB", empty.dwh_db)
    assert main(["dwh", "--dry-run"]) == 0
    assert main(["dwh"]) == 0
    assert main(["dwh"]) == 0
    lines = capsys.readouterr().out.splitlines()
    count = len(numbers("dwh"))
    assert [line.split()[1] for line in lines] == ["would"] * count + ["applied"] * count + ["up"]
    monkeypatch.setenv("DWH_DB", "not_there")
    assert main(["dwh"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("migrate: PostgreSQL ")
    assert said.count("\n") == 1
