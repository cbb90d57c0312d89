"""What trials of the running service broke, each as a kind."""

import csv
import html
import io
import json
import re
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import psycopg
import pytest
from fastapi.testclient import TestClient

from services.common.security import ROLES, Principal
from services.pipeline_info import flow
from services.pipeline_info.api import MAX_EXTRA
from services.pipeline_info.app import create_app
from services.pipeline_info.backends.duckdb import DuckdbPipelineRepository
from services.pipeline_info.backends.jsonl import JsonlPipelineRepository
from services.pipeline_info.backends.oracle import told_apart as of_oracle
from services.pipeline_info.backends.postgres import PostgresPipelineRepository
from services.pipeline_info.backends.postgres import told_apart as of_postgres
from services.pipeline_info.models import PipelineInfo, RunFilter
from services.pipeline_info.repository import (
    NewRun,
    PipelineInfoRepository,
    Result,
    StoreRefusedError,
    StoreUnavailableError,
)
from services.pipeline_info.settings import Settings
from services.pipeline_info.sql import sqlite_told_apart
from tests.services.pipeline_info.conftest import client_of
from tests.services.pipeline_info.oracle_stand_in import DatabaseError
from tests.services.pipeline_info.test_security import Keys, keys

__all__ = ["keys"]

START = "2026-01-02T00:00:00Z"
RUN = {"start_utc": START, "environment": "dev", "pipeline_name": "orders"}
FAILURE = {
    "task": "check",
    "table": "auth.users",
    "rule": "email matches a pattern",
    "count": 12,
    "sample": ["id=7 email='a@b'", "id=9 email=''"],
    "message": "12 rows of auth.users break a rule that may not be broken",
    "remedy": "Correct the rows at the source, then clear the task check",
}


def line(left: object, right: object, hop: str = "source=raw", table: str = "t", **parts: object) -> dict:
    return {"table": table, "hop": hop, "measure": "rows", "left": left, "right": right, "parts": parts}


def post(client: TestClient, **extra: object) -> dict:
    answer = client.post("/pipelines", json=RUN | {"extra": extra})
    assert answer.status_code == 201, answer.text
    return answer.json()


def who(name: str) -> Principal:
    return Principal(name, ROLES["writer"])


# -- keys belong to a principal -------------------------------------------------------------------


def test_a_key_belongs_to_a_principal(store: PipelineInfoRepository):
    mine, other = PipelineInfo.model_validate(RUN), PipelineInfo.model_validate(RUN | {"rowcount": 1})
    first = store.insert_pipeline_info(mine, idempotency_key="run-1", principal=who("a"))
    again = store.insert_pipeline_info(mine, idempotency_key="run-1", principal=who("a"))
    theirs = store.insert_pipeline_info(other, idempotency_key="run-1", principal=who("b"))
    changed = store.insert_pipeline_info(other, idempotency_key="run-1", principal=who("a"))
    assert [first.result, again.result, theirs.result, changed.result] == [
        *(Result.CREATED, Result.REPLAYED, Result.CREATED, Result.CONFLICT),
    ]
    assert again.stored.id == first.stored.id != theirs.stored.id
    same = store.insert_many(
        [NewRun(mine, "k", who("a")), NewRun(mine, "k", who("b")), NewRun(mine, "k", who("a"))]
    )
    assert [one.result for one in same] == [Result.CREATED, Result.CREATED, Result.REPLAYED]


def test_a_key_of_another_key_file_entry_blocks_nobody(keys: Keys, repository):
    client = client_of(create_app(Settings(auth="on", api_keys_file=keys.path), repository))
    statuses = []
    for name, count in (("a", 1), ("b", 2), ("a", 1), ("a", 3)):
        key = {"X-API-Key": keys.add("writer", name=name), "Idempotency-Key": "predictable"}
        statuses.append(client.post("/pipelines", json=RUN | {"rowcount": count}, headers=key).status_code)
    assert statuses == [201, 201, 200, 409]


def as_stored_before(store: PipelineInfoRepository, run: PipelineInfo, key: str) -> str:
    """Store a run with its key as it was sent, as the version before this one did."""
    kept = NewRun(run, key)
    run_id = store.insert_many([kept])[0].stored.id
    if isinstance(store, JsonlPipelineRepository):
        store.close()
        lines = [orjson.loads(one) for one in store.file.read_bytes().splitlines()]
        store.file.write_bytes(b"".join(orjson.dumps(one | {"_key": key}) + b"\n" for one in lines))
        return run_id
    change = "UPDATE {} SET {} = {}"
    if isinstance(store, PostgresPipelineRepository):
        with store.connection() as connection:
            connection.execute(change.format("idempotency_key", "key", "%s"), (key,))
    elif isinstance(store, DuckdbPipelineRepository):
        with store._cursor() as cursor:
            cursor.execute(change.format("idempotency_key", "key", "?"), [key])
    else:
        with sqlite3.connect(store._driver.file) as db:  # type: ignore[attr-defined]
            db.execute(change.format("PIPELINE_RUN_KEY", "IDEMPOTENCY_KEY", "?"), (key,))
    return run_id


def test_a_key_stored_before_it_belonged_to_anybody_is_known_and_blocks_nobody(open_store):
    store = open_store()
    run, other = PipelineInfo.model_validate(RUN), PipelineInfo.model_validate(RUN | {"rowcount": 1})
    run_id = as_stored_before(store, run, "airflow/x/1")
    again = store.insert_pipeline_info(run, idempotency_key="airflow/x/1", principal=who("monitor"))
    assert (again.result, again.stored.id) == (Result.REPLAYED, run_id)
    assert (
        store.insert_pipeline_info(other, idempotency_key="airflow/x/1", principal=who("b")).result
        == "created"
    )
    assert store.count_pipeline_info(RunFilter()) == 2


def test_stores_of_the_version_before_are_carried_over(postgres, tmp_path: Path):
    """Tables as the first migrations and the first schema made them, with a run in each."""
    run = PipelineInfo.model_validate(RUN)
    dsn = postgres.new_database()
    migrations = Path(__file__).with_name("before_alembic")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA pipeline_info")
        connection.execute("SET search_path = pipeline_info")
        connection.execute("CREATE TABLE migration (number INT PRIMARY KEY, at TIMESTAMPTZ DEFAULT now())")
        for number, name in enumerate(("001_runs.sql", "002_lineage.sql"), 1):
            connection.execute((migrations / name).read_text().encode())
            connection.execute("INSERT INTO migration (number) VALUES (%s)", (number,))
        connection.execute(
            "CREATE TABLE run_2026_01 PARTITION OF run FOR VALUES FROM ('2026-01-01 00:00+00')"
            " TO ('2026-02-01 00:00+00')"
        )
        document = {**run.model_dump(mode="json"), "id": "20260102T000000000000-0123456789ab"}
        connection.execute(
            "INSERT INTO run (id, start_utc, environment, doc) VALUES (%s, %s, 'dev', %s)",
            (document["id"], START, json.dumps(document)),
        )
        for source, target in (("dataset:a:x", "job:n:j"), ("job:n:j", "dataset:a:y")):
            connection.execute("INSERT INTO lineage_edge VALUES (%s, %s, now())", (source, target))
        connection.execute(
            "INSERT INTO lineage_column VALUES ('dataset:a:y', 'c', 'dataset:a:x', 'd', 'identity', now())"
        )
        connection.execute("INSERT INTO lineage_event VALUES ('f', now(), 'COMPLETE', 'r', 'job:n:j', '{}')")
    store = PostgresPipelineRepository(dsn, pool_size=2)
    client = client_of(create_app(Settings(file=tmp_path / "x"), store))
    assert [one.id for one in store.list_runs(RunFilter(), limit=5)] == [document["id"]]
    nodes = client.get("/api/v1/lineage", params={"nodeId": "dataset:a:y"}).json()["graph"]
    assert [node["id"] for node in nodes] == ["dataset:a:x", "dataset:a:y", "job:n:j"]
    assert client.get("/api/v1/search", params={"q": "Y"}).json()["results"][0]["nodeId"] == "dataset:a:y"
    store.close()

    file = tmp_path / "runs.jsonl.lineage"
    with sqlite3.connect(file) as db:
        db.executescript((migrations / "002_lineage.sql").read_text().replace(' COLLATE "C"', ""))
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        db.execute("INSERT INTO lineage_edge VALUES ('dataset:a:x', 'job:n:j', ?)", (now,))
        db.execute(
            "INSERT INTO lineage_column VALUES ('dataset:a:y', 'c', 'dataset:a:x', 'd', 'identity', ?)",
            (now,),
        )
    client = client_of(create_app(Settings(file=tmp_path / "runs.jsonl")))
    assert client.get("/api/v1/lineage", params={"nodeId": "job:n:j"}).status_code == 200
    columns = client.get("/api/v1/column-lineage", params={"nodeId": "dataset:a:y"}).json()["items"]
    assert [item["source_field"] for item in columns] == ["d"]


def test_a_duckdb_file_of_the_version_before_is_carried_over(tmp_path: Path):
    store = DuckdbPipelineRepository(tmp_path / "runs.duckdb")
    store.insert_pipeline_info(PipelineInfo.model_validate(RUN))
    with store._cursor() as cursor:
        cursor.execute("ALTER TABLE run DROP COLUMN failure")
    store.close()
    again = DuckdbPipelineRepository(tmp_path / "runs.duckdb")
    again.insert_pipeline_info(PipelineInfo.model_validate(RUN | {"extra": {"failure": FAILURE}}))
    found = [one.failure for one in again.list_runs(RunFilter(), limit=5)]
    assert sorted(found, key=str) == [FAILURE["message"], None]
    again.close()


# -- what comes in is bounded, and so is what a page costs ----------------------------------------

LARGE = ["1e999998", "1e39", "9" * 39, "9" * 100_000, "1_0", "-1e99", "0." + "1" * 60, 10**38, 1e300, " 1 "]


@pytest.mark.parametrize("number", LARGE)
@pytest.mark.parametrize("side", ["left", "right", "part"])
def test_a_number_of_a_ledger_is_bounded_when_it_comes_in(client: TestClient, number: object, side: str):
    entry = line(1, 1, accepted=1)
    entry |= {"parts": {"accepted": number}} if side == "part" else {side: number}
    body = RUN | {"extra": {"ledger": [line(1, 1), entry]}}
    answer = client.post("/pipelines", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["where"].startswith("extra.ledger.1.") or number == 10**38
    bulk = client.post("/pipelines/bulk", json={"items": [{"run": body}, {"run": RUN}]})
    assert bulk.status_code in {207, 422}


@pytest.mark.parametrize("number", ["0E-8", "12.50", "-3", "1" * 38, 2**63, 0.25, "1E+3"])
def test_an_ordinary_number_of_a_ledger_is_shown_to_its_last_digit(client: TestClient, number: object):
    run = post(client, ledger=[line(number, number)])
    page = client.get(f"/run/{run['id']}")
    assert page.status_code == 200
    assert f'<td class="n">{flow._number(number):f}</td>' in page.text


def test_differences_and_sums_are_exact(client: TestClient):
    left, right = "1" * 38 + ".05", "1" * 38 + ".04"
    run = post(client, ledger=[line(left, right), line("9" * 38, "9" * 38, table="u")])
    assert '<td class="n">-0.01</td>' in client.get(f"/run/{run['id']}").text


def test_a_run_stored_before_numbers_were_bounded_costs_its_page_next_to_nothing(repository, client):
    """A run that an older version took, straight in the store."""
    ledger = [line("1e999998", "1e999998"), line(1e300, "9" * 1_000_000)]
    ledger += [line(5, 5, table="good")] * 5000
    extra = {"ledger": ledger, "state": ["x"] * 1000, "more": "y" * 15_000_000}
    stored = repository.insert_pipeline_info(PipelineInfo.model_validate(RUN | {"extra": extra})).stored
    for path in (
        f"/run/{stored.id}",
        "/",
        "/rows?cursor=" + stored.cursor().encode(),
        f"/run/{stored.id}?table=good",
    ):
        started = time.monotonic()
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert time.monotonic() - started < 5, path
        assert len(answer.content) < 2_000_000, path
    page = client.get(f"/run/{stored.id}").text
    assert "entries</code>" not in page
    assert "are not shown" in page
    assert "Only the beginning" in page


def test_extra_is_bounded(client: TestClient):
    fits = {"x": "y" * (MAX_EXTRA - len('{"x":""}'))}
    assert client.post("/pipelines", json=RUN | {"extra": fits}).status_code == 201
    answer = client.post("/pipelines", json=RUN | {"extra": {"x": fits["x"] + "y"}})
    assert answer.status_code == 422
    assert (
        answer.json()["detail"]
        == f"extra: it has {MAX_EXTRA + 1} bytes as JSON: send at most {MAX_EXTRA}, and link to the rest"
    )


def test_a_list_reads_no_documents(repository, monkeypatch):
    client = client_of(create_app(Settings(summary_seconds=0), repository))
    post(client, state="failed", failure=FAILURE)
    monkeypatch.setattr(repository, "get_pipeline_info", None)
    page = client.get("/")
    assert page.status_code == 200
    assert FAILURE["message"] in page.text


def test_a_page_of_runs_ends_after_so_many_bytes(repository, client: TestClient, monkeypatch):
    monkeypatch.setattr("services.pipeline_info.api.PAGE_BYTES", 50_000)
    for number in range(12):
        post(client, number=number, x="y" * 10_000)
    seen, cursor, pages = [], "", 0
    while cursor is not None:
        answer = client.get(
            "/get_pipeline_info", params={"limit": 1000} | ({"cursor": cursor} if cursor else {})
        )
        assert len(answer.content) < 60_000
        seen += [item["extra"]["number"] for item in answer.json()["items"]]
        cursor, pages = answer.json()["next_cursor"], pages + 1
    assert sorted(seen) == list(range(12))
    assert pages == 3


def test_large_pages_are_read_in_parts(client: TestClient):
    body = {"items": [{"run": RUN | {"rowcount": number}} for number in range(1234)]}
    assert client.post("/pipelines/bulk", json=body).status_code == 200
    whole = client.get("/get_pipeline_info", params={"limit": 10_000}).json()
    assert (len(whole["items"]), whole["total"], whole["next_cursor"]) == (1234, 1000, None)
    part = client.get("/get_pipeline_info", params={"limit": 700, "offset": 500}).json()
    assert part["items"] == whole["items"][500:1200]
    rest = client.get("/get_pipeline_info", params={"limit": 700, "cursor": part["next_cursor"]}).json()
    assert rest["items"] == whole["items"][1200:]


def test_integers_are_exact_or_refused(client: TestClient):
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    for number, status in ((2**64 + 1, 422), (-(2**63) - 1, 422), (2**64 - 1, 201), (2**64 - 2, 409)):
        body = json.dumps(RUN | {"extra": {"n": number}})
        assert client.post("/pipelines", content=body, headers=headers).status_code == status
    (run,) = client.get("/get_pipeline_info").json()["items"]
    assert run["extra"]["n"] == 2**64 - 1


# -- why a run failed -----------------------------------------------------------------------------


def test_why_a_run_failed_stands_on_top_of_its_page_and_in_lists(client: TestClient):
    run = post(client, state="failed", failure=FAILURE, ledger=[line(2609, 2609, table="auth.users")])
    page = client.get(f"/run/{run['id']}").text
    top = page.index("Why it failed")
    assert top < page.index('<dl class="facts">\n  \n') < page.index('id="ledger-title"')
    for text in ("check", "auth.users", "email matches a pattern", "12", "id=9 email=", FAILURE["message"]):
        assert text in page[top:].split("</section>")[0]
    assert FAILURE["remedy"] in page
    assert "closed as far as the run came" in page
    assert FAILURE["message"] in client.get("/").text
    assert client.get(f"/get_pipeline_info/{run['id']}").json()["extra"]["failure"] == FAILURE


def test_a_run_that_failed_before_anything_was_counted_says_so(client: TestClient):
    run = post(client, state="failed", failure=FAILURE, ledger=[])
    page = client.get(f"/run/{run['id']}").text
    assert "failed before any row was counted" in page
    assert "brought no ledger" not in page


@pytest.mark.parametrize(
    "failure",
    [
        None,
        7,
        "x",
        [],
        {},
        {"message": 5, "task": ["x"], "count": "many", "sample": {"a": 1}, "remedy": None},
        {"message": "m" * 100_000, "sample": ["s" * 1_000] * 100, "count": True},
        {"message": "</script><script>alert(1)</script>", "sample": [None, 5, {"a": "b"}]},
    ],
)
def test_a_failure_of_another_form_does_no_harm(client: TestClient, failure: object):
    run = post(client, state="failed", failure=failure)
    page = client.get(f"/run/{run['id']}")
    assert page.status_code == client.get("/").status_code == 200
    assert "<script>alert" not in page.text
    assert len(page.content) < 120_000


def test_every_backend_lists_why(store: PipelineInfoRepository):
    extra = {"state": "failed", "failure": FAILURE | {"message": "a  b\n" * 200}}
    store.insert_pipeline_info(PipelineInfo.model_validate(RUN | {"rowcount": 0, "extra": extra}))
    store.insert_pipeline_info(PipelineInfo.model_validate(RUN | {"start_utc": "2026-01-01T00:00:00Z"}))
    bad, good = store.list_runs(RunFilter(), limit=5)
    assert (bad.state, bad.rowcount, bad.failure) == ("failed", 0, ("a b " * 50)[:199] + "…")
    assert good.failure is None
    assert store.list_runs(RunFilter(), limit=5, after=bad.cursor()) == [good]
    assert store.list_runs(RunFilter(state="failed"), limit=5) == [bad]
    assert bad.start_utc == datetime(2026, 1, 2, tzinfo=UTC)


# -- errors of a store are told apart by their codes ----------------------------------------------


def test_errors_of_postgresql_by_sqlstate():
    errors = psycopg.errors
    for kind in (
        *(errors.ConnectionFailure, errors.TooManyConnections, errors.DiskFull, errors.AdminShutdown),
        *(errors.CannotConnectNow, errors.ReadOnlySqlTransaction, errors.DeadlockDetected, errors.IoError),
        *(errors.QueryCanceled, psycopg.OperationalError, psycopg.InterfaceError),
    ):
        assert isinstance(of_postgres(kind("x")), StoreUnavailableError), kind
    for kind in (
        errors.ProgramLimitExceeded,
        errors.StringDataRightTruncation,
        errors.NumericValueOutOfRange,
    ):
        assert isinstance(of_postgres(kind("x")), StoreRefusedError), kind
    for kind in (
        errors.UndefinedTable,
        errors.InsufficientPrivilege,
        errors.SyntaxError,
        psycopg.ProgrammingError,
    ):
        assert not isinstance(of_postgres(kind("x")), StoreUnavailableError | StoreRefusedError), kind


def test_errors_of_oracle_by_code():
    for text in (
        *("ORA-12541: no listener", "DPY-6005: cannot connect", "DPY-4011: the database closed it"),
        *("ORA-01034: not available", "ORA-00060: deadlock", "ORA-01654: unable to extend index"),
        "DPY-4024: call timeout",
    ):
        assert isinstance(of_oracle(DatabaseError(text)), StoreUnavailableError), text
    for text in ("ORA-12899: value too large for column", "ORA-01450: maximum key length exceeded"):
        assert isinstance(of_oracle(DatabaseError(text)), StoreRefusedError), text
    for text in (
        "ORA-00942: table or view does not exist",
        "ORA-01031: insufficient privileges",
        "DPY-2003: x",
    ):
        assert not isinstance(of_oracle(DatabaseError(text)), StoreUnavailableError | StoreRefusedError), text


def test_errors_of_sqlite_by_code(tmp_path: Path):
    db = sqlite3.connect(tmp_path / "x")
    with pytest.raises(sqlite3.OperationalError) as found:
        db.execute("SELECT * FROM nothing")
    assert sqlite_told_apart(found.value, tmp_path) is found.value
    (tmp_path / "broken").write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError) as found:
        sqlite3.connect(tmp_path / "broken").execute("SELECT * FROM x")
    assert isinstance(sqlite_told_apart(found.value, tmp_path), StoreUnavailableError)
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100)
    with pytest.raises(sqlite3.DataError) as found:
        db.execute("SELECT ?", ("x" * 1000,))
    assert isinstance(sqlite_told_apart(found.value, tmp_path), StoreRefusedError)


def test_what_the_store_cannot_hold_is_422_and_leaves_the_breaker_closed(postgres, tmp_path: Path):
    store = PostgresPipelineRepository(postgres.new_database(), pool_size=2)
    client = client_of(create_app(Settings(file=tmp_path / "x", breaker_failures=1), store))
    with store.connection() as connection:
        connection.execute("ALTER TABLE run ADD CONSTRAINT none CHECK (1 / (rowcount - 13) IS NOT NULL)")
    answer = client.post("/pipelines", json=RUN | {"rowcount": 13})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:tallyhouse:problem:not_storable")
    assert client.post("/pipelines", json=RUN | {"rowcount": 12}).status_code == 201
    store.close()


# -- exports --------------------------------------------------------------------------------------

FORMULAS = ['=HYPERLINK("http://evil.example","x")', "+1", "-1+1", "@SUM(A1)", "\t=1", " =1", "\r=1", "＝1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_is_no_formula_unless_asked(client: TestClient, text: str):
    client.post("/pipelines", json=RUN | {"pipeline_name": text, "log_file": text, "script_name": "a=b"})

    def cells(query: str) -> dict[str, str]:
        answer = client.get(f"/download/pipeline_info?format=csv{query}").text
        (row,) = csv.DictReader(io.StringIO(answer, newline=""))
        return row

    assert cells("")["pipeline_name"] == cells("")["log_file"] == f"'{text}"
    assert cells("")["script_name"] == "a=b"
    assert cells("&raw=true")["pipeline_name"] == cells("&raw=true")["log_file"] == text
    assert orjson.loads(client.get("/download/pipeline_info?format=jsonl").content)["pipeline_name"] == text


def test_all_as_csv_keeps_the_pages_filters(client: TestClient):
    for day in range(1, 7):
        for name in ("alpha_one", "alpha_two", "beta"):
            state = "failed" if day % 2 else "success"
            body = RUN | {
                "start_utc": f"2026-01-0{day}T12:00:00Z",
                "pipeline_name": name,
                "extra": {"state": state},
            }
            client.post("/pipelines", json=body)
    for query, count in (
        *(("", 18), ("?q=ALPHA", 12), ("?q=alpha&state=failed&from=2026-01-02&to=2026-01-05", 4)),
        *(("?pipeline_name=beta&to=2026-01-02", 2), ("?q=nothing", 0), ("?environment=dev&q=two", 6)),
    ):
        page = client.get(f"/{query}").text
        assert page.count('class="run"') == count
        (link,) = re.findall(r'href="(/download[^"]*)"', page)
        assert len(client.get(html.unescape(link)).text.splitlines()) == count + 1, query


def test_the_state_filter_reaches_the_table_of_pipelines(repository):
    client = client_of(create_app(Settings(summary_seconds=0), repository))
    for name, state in (("good", "success"), ("bad", "failed")):
        client.post("/pipelines", json=RUN | {"pipeline_name": name, "extra": {"state": state}})

    def table(query: str) -> str:
        return client.get(f"/{query}").text.split('id="pipelines-title"')[1].split("</section>")[0]

    assert "good" in table("") and "bad" in table("")
    assert "good" not in table("?state=failed") and "bad" in table("?state=failed")
    assert "No pipeline matches" in table("?state=running")


# -- the flow -------------------------------------------------------------------------------------


def drawn(*lines: dict) -> tuple[dict[tuple[str, str], int], list[str]]:
    picture = flow.flow(flow.lines_of({"ledger": list(lines)}))
    return {(link["source"], link["target"]): link["value"] for link in picture.links}, picture.notes


def test_the_flow_goes_on_to_the_marts_and_says_why_it_widens():
    links, notes = drawn(
        line(44_429, 44_429),
        line(44_429, 44_429, "raw=accepted", accepted=44_000, quarantined=29, superseded=400),
        line(44_000, 44_000, "accepted=ods"),
        line(54_344, 54_344, "ods=model", "fact_order_line"),
        line(54_344, 54_344, "postgres=clickhouse", "fact_order_line"),
        line(600, 600, "postgres=clickhouse", "dim_customer"),
        line(30_000, 30_000, "clickhouse=mart", "mart_revenue_daily"),
        # Another target: the picture follows the first one.
        line(54_344, 54_344, "postgres=duckdb", "fact_order_line"),
    )
    assert links == {
        ("source", "raw"): 44_429,
        ("raw", "accepted"): 44_000,
        ("raw", "quarantined"): 29,
        ("raw", "superseded"): 400,
        ("accepted", "ods"): 44_000,
        ("ods", "whole ods"): 44_000,
        ("earlier runs or several models", "whole ods"): 10_344,
        ("whole ods", "star schema"): 54_344,
        ("rows checked by version", "star schema"): 600,
        ("star schema", "target"): 54_944,
        ("target", "marts"): 30_000,
        ("target", "in no mart"): 24_944,
    }
    assert len(notes) == 3
    assert "earlier runs brought" in notes[0]
    assert notes[0].startswith("10\u202f344 rows more at whole ods")


def test_the_picture_is_never_a_circle():
    """A Sankey diagram cannot draw one."""
    for numbers in ([1, 5, 2, 9, 3, 7, 1], [9, 1, 8, 2, 7, 3, 6], [0, 4, 0, 4, 0, 4, 0], [5] * 7):
        hops = [*flow.HOPS, "postgres=clickhouse", "clickhouse=mart"]
        links, _ = drawn(*(line(n, n, hop, f"t{hop}") for n, hop in zip(numbers, hops, strict=True)))
        nodes, edges = {end for link in links for end in link}, set(links)
        while nodes:
            free = {node for node in nodes if not any(target == node for _, target in edges)}
            assert free, (numbers, edges)
            nodes -= free
            edges = {edge for edge in edges if edge[0] not in free}


def test_notes_are_on_the_page(client: TestClient):
    run = post(client, ledger=[line(5, 5, "accepted=ods"), line(9, 9, "ods=model", "m")])
    page = client.get(f"/run/{run['id']}").text
    assert "Why the flow gets wider or narrower" in page
    assert "4 rows more at whole ods" in page


def test_a_run_old_enough_is_still_found(repository):
    """Lists go by the run's own time, also across months."""
    for days in (0, 40, 400):
        start = datetime(2026, 3, 1, tzinfo=UTC) - timedelta(days=days)
        repository.insert_pipeline_info(PipelineInfo(start_utc=start, rowcount=days))
    assert [one.rowcount for one in repository.list_runs(RunFilter(), limit=5)] == [0, 40, 400]
