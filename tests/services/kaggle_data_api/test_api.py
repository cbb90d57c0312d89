"""The API on a real PostgreSQL: what is taken, what is refused, how datasets are found and paged."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.common.security import new_key
from services.kaggle_data_api.models import Cursor, Dataset, DatasetPage
from services.kaggle_data_api.settings import Settings
from tests.services.kaggle_data_api.conftest import DATASET, Make, Postgres

SHARED = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
WHOLE = {
    "name": "Замовлення 🛒 " + "x" * 200,
    "description": "Рядок.\nІ ще один.",
    "source_url": "https://www.kaggle.com/datasets/olistbr/brazilian-ecommerce",
    "ref": "olistbr/brazilian-ecommerce",
    "version": 2,
    "licence": "CC-BY-NC-SA-4.0",
    "files": [
        {"name": "olist_sellers_dataset.csv", "bytes": 174703, "sha256": "0a" * 32},
        {"name": "olist_orders_dataset.csv", "bytes": 17654914, "sha256": "1b" * 32},
    ],
}
EMPTY = {"description": None, "source_url": None, "ref": None, "version": None, "licence": None, "files": []}


def test_health(client: TestClient):
    answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "healthy", "service": "kaggle-data-api"})
    assert client.get("/ready").json() == {"status": "ready", "service": "kaggle-data-api"}


def test_the_list_has_what_was_inserted(client: TestClient, table: psycopg.Connection):
    """As its document's own test: rows put into the table by plain SQL."""
    for name in ("Titanic", "Iris", "Wine reviews"):
        table.execute("INSERT INTO datasets (name) VALUES (%s)", [name])
    found = client.get("/datasets")
    assert found.status_code == 200
    assert [dataset["name"] for dataset in found.json()["datasets"]] == ["Iris", "Titanic", "Wine reviews"]
    assert found.json()["next_cursor"] is None


def test_a_dataset_with_no_more_than_it_needs(client: TestClient):
    answer = client.post("/datasets", json=DATASET)
    assert (answer.status_code, answer.headers["location"]) == (201, "/datasets/1")
    stored = answer.json()
    assert client.get("/datasets/1").json() == stored
    made, changed = (datetime.fromisoformat(stored.pop(name)) for name in ("created_at", "updated_at"))
    assert made == changed
    assert made.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)
    assert stored == DATASET | EMPTY | {"id": 1, "total_bytes": 0}


def test_a_dataset_with_everything(client: TestClient, table: psycopg.Connection):
    stored = client.post("/datasets", json=WHOLE).json()
    assert {name: stored[name] for name in WHOLE} == WHOLE
    assert stored["total_bytes"] == 174703 + 17654914
    row = table.execute("SELECT name, ref, version, files, total_bytes FROM datasets").fetchone()
    assert row == (WHOLE["name"], WHOLE["ref"], 2, WHOLE["files"], 17829617)
    Dataset.model_validate(stored, strict=False)
    DatasetPage.model_validate(client.get("/datasets").json())


def test_a_dataset_is_replaced_whole(client: TestClient):
    first = client.post("/datasets", json=WHOLE).json()
    second = client.put("/datasets/1", json=DATASET | {"version": 3})
    assert second.status_code == 200
    found = client.get("/datasets/1").json()
    assert found == second.json()
    assert {name: found[name] for name in EMPTY} == EMPTY | {"version": 3}
    assert (found["id"], found["created_at"]) == (1, first["created_at"])
    assert found["updated_at"] > first["updated_at"]


def test_a_dataset_is_deleted(client: TestClient):
    client.post("/datasets", json=DATASET)
    gone = client.delete("/datasets/1")
    assert (gone.status_code, gone.content) == (204, b"")
    assert client.get("/datasets").json() == {"datasets": [], "next_cursor": None}


def test_what_is_not_there(client: TestClient):
    for answer in (
        client.get("/datasets/7"),
        client.put("/datasets/7", json=DATASET),
        client.delete("/datasets/7"),
    ):
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert "7" in answer.json()["detail"]


@pytest.mark.parametrize("number", ["0", "-1", "2147483648", "x", "1.5", "99999999999999999999"])
def test_numbers_that_no_dataset_can_have(client: TestClient, number: str):
    assert client.get(f"/datasets/{number}").status_code == 422
    assert client.delete(f"/datasets/{number}").status_code == 422
    assert client.put(f"/datasets/{number}", json=DATASET).status_code == 422


def test_a_ref_is_of_one_dataset_alone(client: TestClient, table: psycopg.Connection):
    assert client.post("/datasets", json=WHOLE).status_code == 201
    for _ in range(2):
        assert client.post("/datasets", json=DATASET).status_code == 201  # without one there may be many
    again = client.post("/datasets", json=WHOLE)
    moved = client.put("/datasets/2", json=WHOLE)
    for answer in (again, moved):
        assert answer.status_code == 409
        assert "olistbr/brazilian-ecommerce" in answer.json()["detail"]
    assert client.put("/datasets/1", json=WHOLE | {"version": 3}).status_code == 200
    assert table.execute("SELECT count(*), count(ref) FROM datasets").fetchone() == (3, 1)
    found = client.get("/datasets", params={"ref": WHOLE["ref"]}).json()["datasets"]
    assert [dataset["id"] for dataset in found] == [1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "   "),
        ("name", None),
        ("name", 5),
        ("name", "x" * 256),
        ("name", "nul\0"),
        ("name", "two\nlines"),
        ("description", "nul\0"),
        ("description", "x" * 10001),
        ("description", 5),
        ("source_url", "ftp://example.org"),
        ("source_url", "javascript:alert(1)"),
        ("source_url", "https://example.org/a b"),
        ("source_url", "https://" + "x" * 2048),
        ("ref", "brazilian-ecommerce"),
        ("ref", "../etc"),
        ("ref", "a/../b"),
        ("ref", "a/b/c"),
        ("ref", "a/" + "b" * 101),
        ("version", 0),
        ("version", 2**31),
        ("version", "2"),
        ("version", 1.5),
        ("version", True),
        ("licence", ""),
        ("licence", "x" * 201),
        ("files", None),
        ("files", [{"name": "a.csv", "bytes": -1, "sha256": "0a" * 32}]),
        ("files", [{"name": "a.csv", "bytes": 1, "sha256": "0A" * 32}]),
        ("files", [{"name": "a.csv", "bytes": 1}]),
        ("files", [{"name": "a.csv", "bytes": 1, "sha256": "0a" * 32, "more": 1}]),
        ("files", [{"name": "a.csv", "bytes": 1, "sha256": "0a" * 32}] * 1001),
        ("id", 7),
        ("created_at", "2026-01-01T00:00:00Z"),
        ("search", "'a'"),
    ],
)
def test_what_is_refused_is_named_and_not_stored(
    client: TestClient, table: psycopg.Connection, field: str, value: object
):
    kept = client.post("/datasets", json=DATASET).json()
    for answer in (
        client.post("/datasets", json=DATASET | {field: value}),
        client.put("/datasets/1", json=DATASET | {field: value}),
    ):
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert all(error["where"].startswith(f"body.{field}") for error in answer.json()["errors"])
    assert table.execute("SELECT count(*) FROM datasets").fetchone() == (1,)
    assert client.get("/datasets/1").json() == kept


def test_bodies_that_are_no_dataset_at_all(make: Make):
    client = make(max_body_bytes=1024)
    for body, status in ((b"{", 400), (b'{"name": "\xff"}', 400), (b"[]", 422), (b"{" * 2000, 413)):
        for answer in (
            client.post("/datasets", content=body, headers={"Content-Type": "application/json"}),
            client.put("/datasets/1", content=body, headers={"Content-Type": "application/json"}),
        ):
            assert answer.status_code == status, body[:20]
    twice = b'{"name": "a", "name": "b"}'
    assert client.post("/datasets", content=twice).status_code == 422


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
LINE = TEXT.map(lambda t: "".join(c for c in t if c >= " " and c != "\x7f").strip())


@SHARED
@given(
    name=LINE.filter(lambda t: 1 <= len(t) <= 255),
    description=st.none() | TEXT.map(str.strip).filter(lambda t: len(t) <= 10_000),
    version=st.none() | st.integers(1, 2**31 - 1),
)
def test_what_is_taken_comes_back_and_is_in_the_table(
    client: TestClient, table: psycopg.Connection, name: str, description: str | None, version: int | None
):
    given = {"name": name, "description": description, "version": version}
    answer = client.post("/datasets", json=given)
    assert answer.status_code == 201, answer.text
    stored = answer.json()
    assert {field: stored[field] for field in given} == given
    row = table.execute("SELECT name, description, version FROM datasets WHERE id = %s", [stored["id"]])
    assert row.fetchone() == (name, description, version)
    assert client.get(f"/datasets/{stored['id']}").json() == stored


@SHARED
@given(names=st.lists(st.sampled_from("aAbБї"), max_size=12), limit=st.integers(1, 13), added=st.booleans())
def test_pages_show_each_once_in_order_while_others_are_added(
    client: TestClient, table: psycopg.Connection, names: list[str], limit: int, added: bool
):
    table.execute("TRUNCATE datasets RESTART IDENTITY")

    def add(some: list[str]) -> None:
        for name in some:
            table.execute("INSERT INTO datasets (name) VALUES (%s)", [name])

    add(names)
    expected = sorted((name.encode(), number) for number, name in enumerate(names, 1))
    seen: list[tuple[bytes, int]] = []
    query: dict[str, object] = {"limit": limit}
    while True:
        page = client.get("/datasets", params=query).json()
        assert len(page["datasets"]) <= limit
        seen += [(dataset["name"].encode(), dataset["id"]) for dataset in page["datasets"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
        if added:
            add(["A"])  # before the place of most pages, and in the middle of the others
    assert seen == sorted(seen)
    assert [one for one in seen if one[1] <= len(names)] == expected


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "limit=x", "offset=3", "q=", "q=%00", "ref=a", "cursor=%21"]
)
def test_pages_that_there_are_not(client: TestClient, query: str):
    assert client.get(f"/datasets?{query}").status_code == 422


@pytest.mark.parametrize("cursor", ["a", "abcd", "W10", "WyJhIiwwXQ", "WzEsMV0", "bnVsbA"])
def test_a_cursor_of_nobodys(client: TestClient, cursor: str):
    answer = client.get(f"/datasets?cursor={cursor}")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:tallyhouse:problem:bad_cursor")


def test_the_longest_cursor_is_taken(client: TestClient):
    cursor = Cursor("🥞" * 255, 2**31 - 1).encode()
    assert client.get(f"/datasets?cursor={cursor}").json() == {"datasets": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("brazilian", {1}),
        ("BRAZ", {1}),
        ("e-commerce", {1}),
        ("commerce", {1, 2}),
        ("olist_orders", {2}),
        ("olistbr/orders", {2}),
        ("commerce brazilian", {1}),
        ("brazilian wine", set()),
        ("вина", {3}),
        ("вин", {3}),
        ("azilian", set()),
        ("'; DROP TABLE datasets; --", set()),
        ("!&|:*()", set()),
        ("   ", set()),
        ("the", {3}),
    ],
)
def test_search(client: TestClient, q: str, found: set[int]):
    for name, description in (
        ("Brazilian E-Commerce", None),
        ("olistbr/olist_orders", "Orders of a commerce."),
        ("Вина світу", "All the wine."),
    ):
        client.post("/datasets", json={"name": name, "description": description})
    answer = client.get("/datasets", params={"q": q})
    assert answer.status_code == 200
    assert {dataset["id"] for dataset in answer.json()["datasets"]} == found


def test_a_search_is_paged_and_follows_changes(client: TestClient):
    for number in range(7):
        client.post("/datasets", json={"name": f"wine {number}"})
        client.post("/datasets", json={"name": f"beer {number}"})
    first = client.get("/datasets", params={"q": "wine", "limit": 5}).json()
    rest = client.get("/datasets", params={"q": "wine", "limit": 5, "cursor": first["next_cursor"]}).json()
    names = [dataset["name"] for dataset in first["datasets"] + rest["datasets"]]
    assert names == [f"wine {number}" for number in range(7)]
    client.put(f"/datasets/{first['datasets'][0]['id']}", json={"name": "water"})
    assert len(client.get("/datasets", params={"q": "wine"}).json()["datasets"]) == 6


def test_many_at_once(make: Make, table: psycopg.Connection):
    client = make(pool_size=2)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: client.post("/datasets", json=DATASET), range(120)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 120
    assert table.execute("SELECT count(*) FROM datasets").fetchone() == (120,)


def test_one_ref_at_once(client: TestClient, table: psycopg.Connection):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/datasets", json=WHOLE), range(16)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 15
    assert table.execute("SELECT count(*) FROM datasets").fetchone() == (1,)


def test_the_settings_that_its_document_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://u:p%40ss@db.example:6543/n")
    found = Settings()
    assert found.where == "PostgreSQL db.example:6543/n"
    assert "p%40ss" not in repr(found)


@pytest.mark.parametrize("url", ["mysql://u:secretive@h/n", "u:secretive@h/n", "postgresql://u:secretive%@h"])
def test_an_address_that_is_none_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(ValueError, match="DATABASE_URL") as error:
        Settings()
    assert "secretive" not in str(error.value)


def test_with_security_on(make: Make, tmp_path):
    key, entry = new_key("reader", "reader")
    (tmp_path / "keys.json").write_text(f"[{entry.model_dump_json()}]")
    client = make(auth="on", api_keys_file=tmp_path / "keys.json")
    assert client.get("/health").status_code == 200
    assert client.get("/ready").status_code == 200
    for path in ("/datasets", "/datasets/1", "/metrics"):
        assert client.get(path).status_code == 401
    reading = {"X-API-Key": key}
    assert client.get("/datasets", headers=reading).status_code == 200
    assert client.post("/datasets", json=DATASET, headers=reading).status_code == 403
    assert client.put("/datasets/1", json=DATASET, headers=reading).status_code == 403
    assert client.delete("/datasets/1", headers=reading).status_code == 403


def test_metrics(client: TestClient):
    client.post("/datasets", json=DATASET)
    client.post("/datasets", json={})
    client.get("/datasets/1")
    client.get("/datasets/2")
    found = client.get("/metrics").text
    for line in (
        'datasets_changed_total{action="create"} 1.0',
        'http_errors_total{code="invalid",endpoint="/datasets"} 1.0',
        'http_errors_total{code="not_found",endpoint="/datasets/{dataset_id}"} 1.0',
        'http_request_duration_seconds_count{endpoint="/datasets",method="POST",status="201"} 1.0',
        'store_operation_duration_seconds_count{operation="insert",outcome="ok"} 1.0',
        'store_operation_duration_seconds_count{operation="get",outcome="ok"} 2.0',
        "store_breaker_open 0.0",
        'store_pool_connections{state="idle"} 1.0',
    ):
        assert line in found


def test_the_database_goes_and_comes_back(make: Make, postgres: Postgres):
    client = make(breaker_seconds=0.5, store_timeout=2)
    first = client.post("/datasets", json=DATASET).json()
    postgres.kill()
    try:
        for answer in (
            client.post("/datasets", json=DATASET),
            client.get("/datasets"),
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
    assert client.get("/datasets").json()["datasets"] == [first]
    assert client.post("/datasets", json=DATASET).status_code == 201


def test_connections_that_were_dropped_are_replaced(client: TestClient, table: psycopg.Connection):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: client.get("/datasets"), range(40)))
    table.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kaggle-data-api'"
    )
    threading.Event().wait(1.1)
    with ThreadPoolExecutor(8) as pool:
        assert {answer.status_code for answer in pool.map(lambda _: client.get("/ready"), range(40))} == {200}
    assert client.post("/datasets", json=DATASET).status_code == 201


def test_a_schema_of_yesterday_is_named(make: Make, table: psycopg.Connection):
    client = make()
    table.execute("ALTER TABLE datasets RENAME COLUMN licence TO license")
    try:
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert "python -m services.kaggle_data_api.migrate up" in answer.json()["detail"]
    finally:
        table.execute("ALTER TABLE datasets RENAME COLUMN license TO licence")


def test_a_commit_that_nobody_knows_of_is_said(
    client: TestClient, table: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
):
    """The connection breaks as COMMIT is sent: nothing is sent again, and the answer says why."""
    real, sent = psycopg.AsyncConnection.execute, []

    async def execute(self, query, *more, **named):
        sent.append(query)
        if query == "COMMIT":
            table.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'kaggle-data-api'"
            )
        return await real(self, query, *more, **named)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", execute)
    answer = client.post("/datasets", json=DATASET)
    assert answer.status_code == 503
    assert "may be done" in answer.json()["detail"]
    assert sent.count("COMMIT") == 1
