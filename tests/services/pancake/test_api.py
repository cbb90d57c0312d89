"""The API on a real PostgreSQL: what is taken, what is refused, and how the list is paged."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.orm import Session

from services.common.security import new_key
from tests.services.pancake.conftest import PANCAKE, Make, Postgres

COLUMNS = "name, fluffiness_level, syrup_type, is_buttery, magical_factor, taste_notes"
SHARED = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_health_is_what_its_document_says(client: TestClient):
    answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "healthy", "service": "pancake-backend"})
    assert client.get("/ready").json() == {"status": "ready", "service": "pancake-backend"}


def test_a_pancake_with_no_more_than_it_needs(client: TestClient, table: psycopg.Connection):
    answer = client.post("/api/pancakes", json=PANCAKE)
    assert answer.status_code == 201
    stored = answer.json()
    made = datetime.fromisoformat(stored.pop("created_at"))
    assert made.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)
    assert stored == PANCAKE | {"id": 1, "is_buttery": False, "magical_factor": 0, "taste_notes": None}
    assert table.execute(f"SELECT {COLUMNS} FROM pancakes").fetchall() == [
        ("Fluffy buttermilk", 8, "maple", False, Decimal("0.00"), None)
    ]
    assert client.get("/api/pancakes").json() == [answer.json()]


def test_the_largest_that_the_table_holds(client: TestClient, table: psycopg.Connection):
    given = {
        "name": "ї" * 100,
        "fluffiness_level": 10,
        "syrup_type": "🥞" * 50,
        "is_buttery": True,
        "magical_factor": -9999.99,
        "taste_notes": "два\nрядки " + "x" * 9000,
    }
    assert client.post("/api/pancakes", json=given).status_code == 201
    assert table.execute("SELECT magical_factor, name FROM pancakes").fetchone() == (
        Decimal("-9999.99"),
        "ї" * 100,
    )
    found = client.get("/api/pancakes").json()[0]
    assert {name: found[name] for name in given} == given


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "   "),
        ("name", None),
        ("name", 5),
        ("name", "x" * 101),
        ("name", "nul\0"),
        ("name", "two\nlines"),
        ("syrup_type", ""),
        ("syrup_type", "x" * 51),
        ("fluffiness_level", 0),
        ("fluffiness_level", 11),
        ("fluffiness_level", 5.5),
        ("fluffiness_level", "5"),
        ("fluffiness_level", True),
        ("fluffiness_level", None),
        ("is_buttery", "yes"),
        ("is_buttery", None),
        ("magical_factor", 10000),
        ("magical_factor", -10000),
        ("magical_factor", 0.005),
        ("magical_factor", "1"),
        ("magical_factor", 1e300),
        ("magical_factor", None),
        ("taste_notes", "nul\0"),
        ("taste_notes", "x" * 10001),
        ("id", 7),
        ("created_at", "2026-01-01T00:00:00Z"),
    ],
)
def test_what_is_refused_is_named_and_not_stored(
    client: TestClient, table: psycopg.Connection, field: str, value: object
):
    answer = client.post("/api/pancakes", json=PANCAKE | {field: value})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert {error["where"] for error in answer.json()["errors"]} == {f"body.{field}"}
    assert table.execute("SELECT count(*) FROM pancakes").fetchone() == (0,)


@pytest.mark.parametrize("field", PANCAKE)
def test_what_is_missing_is_named(client: TestClient, field: str):
    body = {name: value for name, value in PANCAKE.items() if name != field}
    answer = client.post("/api/pancakes", json=body)
    assert answer.status_code == 422
    assert [error["where"] for error in answer.json()["errors"]] == [f"body.{field}"]


def test_bodies_that_are_no_pancake_at_all(make: Make):
    client = make(max_body_bytes=1024)
    for body, status in ((b"{", 400), (b'{"name": "\xff"}', 400), (b"[]", 422), (b"{" * 2000, 413)):
        answer = client.post("/api/pancakes", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, body[:20]
    nan = b'{"name": "x", "syrup_type": "y", "fluffiness_level": 1, "magical_factor": NaN}'
    assert client.post("/api/pancakes", content=nan).status_code in {400, 422}


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
LINE = TEXT.map(lambda t: "".join(c for c in t if c >= " " and c != "\x7f").strip())


@SHARED
@given(
    name=LINE.filter(lambda t: 1 <= len(t) <= 100),
    fluff=st.integers(1, 10),
    syrup=LINE.filter(lambda t: 1 <= len(t) <= 50),
    buttery=st.booleans(),
    hundredths=st.integers(-999999, 999999),
    notes=st.none() | TEXT.map(str.strip).filter(lambda t: len(t) <= 10_000),
)
def test_what_is_taken_comes_back_and_is_in_the_table(
    client: TestClient,
    table: psycopg.Connection,
    name: str,
    fluff: int,
    syrup: str,
    buttery: bool,
    hundredths: int,
    notes: str | None,
):
    given = {
        "name": name,
        "fluffiness_level": fluff,
        "syrup_type": syrup,
        "is_buttery": buttery,
        "magical_factor": hundredths / 100,
        "taste_notes": notes,
    }
    answer = client.post("/api/pancakes", json=given)
    assert answer.status_code == 201, answer.text
    assert {field: answer.json()[field] for field in given} == given
    row = table.execute(f"SELECT {COLUMNS} FROM pancakes WHERE id = %s", [answer.json()["id"]]).fetchone()
    assert row == (name, fluff, syrup, buttery, Decimal(hundredths).scaleb(-2), notes)
    assert client.get("/api/pancakes?limit=1").json() == [answer.json()]


@SHARED
@given(count=st.integers(0, 12), limit=st.integers(1, 13), added=st.integers(0, 3))
def test_pages_show_each_once_while_others_are_added(
    client: TestClient, table: psycopg.Connection, count: int, limit: int, added: int
):
    table.execute("TRUNCATE pancakes RESTART IDENTITY")

    def add(how_many: int) -> None:
        table.execute(
            "INSERT INTO pancakes (name, fluffiness_level, syrup_type)"
            " SELECT 'p', 5, 'maple' FROM generate_series(1, %s)",
            [how_many],
        )

    add(count)
    seen: list[int] = []
    address = f"/api/pancakes?limit={limit}"
    while True:
        answer = client.get(address)
        page = [pancake["id"] for pancake in answer.json()]
        assert len(page) <= limit
        seen += page
        if "next" not in answer.links:
            break
        address = answer.links["next"]["url"]
        add(added)
    assert seen == list(range(count, 0, -1))


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "limit=x", "before=0", "before=2147483648", "offset=3"]
)
def test_pages_that_there_are_not(client: TestClient, query: str):
    assert client.get(f"/api/pancakes?{query}").status_code == 422


def test_many_at_once(make: Make, table: psycopg.Connection):
    client = make(pool_size=2)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: client.post("/api/pancakes", json=PANCAKE), range(120)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 120
    assert table.execute("SELECT count(*) FROM pancakes").fetchone() == (120,)


def test_pages_of_any_origin_may_call(make: Make):
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    anybody = make()
    before = anybody.options(
        "/api/pancakes", headers=asked | {"Access-Control-Request-Headers": "content-type"}
    )
    assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, "*")
    answer = anybody.get("/api/pancakes", headers=asked)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "Link" in answer.headers["access-control-expose-headers"]
    some = make(cors_origins=("https://shop.example",))
    assert some.get("/health", headers=asked).headers["access-control-allow-origin"] == asked["Origin"]
    other = some.get("/health", headers={"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_the_settings_that_its_document_names(monkeypatch: pytest.MonkeyPatch):
    from services.pancake.settings import Settings  # noqa: PLC0415

    for name, value in {
        "DB_USER": "u",
        "DB_PASSWORD": "p@ss/word",
        "DB_HOST": "db.example",
        "DB_PORT": "6543",
        "DB_NAME": "n",
        "PANCAKE_CORS_ORIGINS": "https://a.example, https://b.example",
    }.items():
        monkeypatch.setenv(name, value)
    found = Settings()
    url = found.url
    assert (url.username, url.password, url.host, url.port, url.database) == (
        *("u", "p@ss/word", "db.example", 6543, "n"),
    )
    assert found.cors_origins == ("https://a.example", "https://b.example")
    assert "p@ss" not in repr(found)
    assert "p@ss" not in found.where


def test_with_security_on(make: Make, tmp_path):
    key, entry = new_key("reader", "reader")
    (tmp_path / "keys.json").write_text(f"[{entry.model_dump_json()}]")
    client = make(auth="on", api_keys_file=tmp_path / "keys.json")
    assert client.get("/health").status_code == 200
    assert client.get("/ready").status_code == 200
    for path in ("/api/pancakes", "/metrics"):
        assert client.get(path).status_code == 401
    assert client.get("/").headers["www-authenticate"].startswith("Basic")
    assert client.get("/api/pancakes", headers={"X-API-Key": key}).status_code == 200
    assert client.post("/api/pancakes", json=PANCAKE, headers={"X-API-Key": key}).status_code == 403


def test_metrics(client: TestClient):
    client.post("/api/pancakes", json=PANCAKE)
    client.post("/api/pancakes", json={})
    found = client.get("/metrics").text
    for line in (
        "pancakes_created_total 1.0",
        'http_errors_total{code="invalid",endpoint="/api/pancakes"} 1.0',
        'http_request_duration_seconds_count{endpoint="/api/pancakes",method="POST",status="201"} 1.0',
        'store_operation_duration_seconds_count{operation="insert",outcome="ok"} 1.0',
        "store_breaker_open 0.0",
        'store_pool_connections{state="idle"} 1.0',
    ):
        assert line in found


def test_the_database_goes_and_comes_back(make: Make, postgres: Postgres):
    client = make(breaker_seconds=0.5)
    first = client.post("/api/pancakes", json=PANCAKE).json()
    postgres.kill()
    try:
        for answer in (
            client.post("/api/pancakes", json=PANCAKE),
            client.get("/api/pancakes"),
            client.get("/ready"),
        ):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["detail"].startswith("the database")
            assert "127.0.0.1" not in answer.text
        assert client.get("/health").status_code == 200
        assert client.get("/metrics").status_code == 200
    finally:
        postgres.start()
    threading.Event().wait(0.6)
    assert client.get("/ready").status_code == 200
    assert client.get("/api/pancakes").json() == [first]
    assert client.post("/api/pancakes", json=PANCAKE).status_code == 201


def test_a_connection_that_was_dropped_is_replaced(client: TestClient, table: psycopg.Connection):
    client.get("/api/pancakes")
    table.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert client.post("/api/pancakes", json=PANCAKE).status_code == 201


@pytest.mark.parametrize("moment", ["before_flush", "before_commit"])
def test_a_server_that_dies_while_it_stores(client: TestClient, table: psycopg.Connection, moment: str):
    """Before anything can be stored it is tried again; at the commit the client is told that nobody knows."""
    killed: list[int] = []

    def kill(session: Session, *_: object) -> None:
        if not killed:
            pid = session.connection().connection.driver_connection.info.backend_pid
            killed.append(pid)
            table.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    event.listen(Session, moment, kill)
    try:
        answer = client.post("/api/pancakes", json=PANCAKE)
    finally:
        event.remove(Session, moment, kill)
    assert killed
    stored = table.execute("SELECT count(*) FROM pancakes").fetchone()
    if moment == "before_flush":
        assert (answer.status_code, stored) == (201, (1,))
    else:
        assert (answer.status_code, stored) == (503, (0,))
        assert "look at the list before you send it again" in answer.json()["detail"]


def test_without_the_table_it_says_what_to_do(make: Make, table: psycopg.Connection):
    client = make()
    table.execute("ALTER TABLE pancakes RENAME TO hidden")
    try:
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert "run python -m services.pancake.migrate" in answer.json()["detail"]
    finally:
        table.execute("ALTER TABLE hidden RENAME TO pancakes")
