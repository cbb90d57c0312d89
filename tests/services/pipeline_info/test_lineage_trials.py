"""Lineage: who sees what, long names, the way by columns, search, and what nobody reports any more."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from fastapi.testclient import TestClient

from services.pipeline_info import retire
from services.pipeline_info.app import create_app
from services.pipeline_info.backends import lineage_store as backend
from services.pipeline_info.backends.postgres import PostgresPipelineRepository
from services.pipeline_info.lineage import MAX_COLUMNS
from services.pipeline_info.settings import Settings
from tallyhouse.models import column_origins
from tests.lineage.test_contracts import run_events
from tests.services.pipeline_info.conftest import client_of
from tests.services.pipeline_info.test_lineage import (
    FACT,
    MART,
    ORDERS,
    RAW,
    client,
    columns,
    dataset,
    event,
    fill,
    graph,
    post,
)
from tests.services.pipeline_info.test_security import Keys, keys

__all__ = ["client", "keys"]

JSON = {"Content-Type": "application/json"}


def tagged(environment: object, where: str = "run", **of: object) -> dict:
    found = event("j", ["a:x"], ["a:y"]) | of
    tags = {"tags": [{"key": "Environment", "value": environment, "source": "USER"}]}
    found[where] = found[where] | {"facets": {"tags": tags}}
    return found


@pytest.fixture(params=["sqlite", "postgres"])
def guarded(request: pytest.FixtureRequest, keys: Keys, tmp_path: Path):
    store = None
    if request.param == "postgres":
        store = PostgresPipelineRepository(request.getfixturevalue("postgres").new_database(), pool_size=4)
    settings = Settings(auth="on", api_keys_file=keys.path, file=tmp_path / "runs.jsonl")
    yield client_of(create_app(settings, store))
    if store:
        store.close()


def told(guarded: TestClient, key: dict[str, str], item: dict) -> int:
    return guarded.post("/api/v1/lineage", json=item, headers=key).status_code


def seen(guarded: TestClient, key: dict[str, str]) -> dict[str, bool]:
    """By way of reading, whether prod's data set `a:y` and its column are seen."""
    node = {"nodeId": "dataset:a:y"}
    return {
        "graph": "a:y" in guarded.get("/api/v1/lineage", headers=key).text,
        "node": guarded.get("/api/v1/lineage", params=node, headers=key).status_code == 200,
        "columns": "secret" in guarded.get("/api/v1/column-lineage", params=node, headers=key).text,
        "search": "a:y" in guarded.get("/api/v1/search", params={"q": "y"}, headers=key).text,
        "page": "a:y" in guarded.get("/lineage", headers=key).text,
        "page of node": "secret" in guarded.get("/lineage?node=dataset:a:y", headers=key).text,
        "page of search": "job:airflow:j" in guarded.get("/lineage?node=y", headers=key).text,
        "retired": "a:y" in guarded.get("/lineage?retired=1", headers=key).text,
    }


def test_a_key_sees_and_adds_lineage_of_its_environments_only(guarded: TestClient, keys: Keys):
    admin, prod, dev, both, none = (
        {"X-API-Key": keys.add("admin")},
        {"X-API-Key": keys.add("writer", name="prod", environments=["prod"])},
        {"X-API-Key": keys.add("writer", name="dev", environments=["dev"])},
        {"X-API-Key": keys.add("writer", name="both", environments=["dev", "prod"])},
        {"X-API-Key": keys.add("writer", name="none", environments=[])},
    )
    told_of = {"outputs": [columns("a:y", secret="a:x.column")]}
    assert told(guarded, prod, tagged("prod", **told_of)) == 201
    for key, may in ((admin, True), (prod, True), (both, True), (dev, False), (none, False)):
        assert set(seen(guarded, key).values()) == {may}, seen(guarded, key)
    # Writing: what is said has to be the key's; what is not said is the key's, where it has just one.
    assert told(guarded, dev, tagged("prod")) == told(guarded, dev, tagged("prod", "job")) == 403
    assert told(guarded, none, tagged("dev")) == told(guarded, none, event("k", [], ["a:z"])) == 403
    assert told(guarded, both, event("k", [], ["a:z"])) == 403
    assert told(guarded, both, tagged("dev", job={"namespace": "airflow", "name": "of-dev"})) == 201
    assert told(guarded, dev, event("own", ["a:x"], ["a:w"])) == 201
    assert "of-dev" in guarded.get("/api/v1/lineage", headers=dev).text
    assert "a:w" in guarded.get("/api/v1/lineage", headers=dev).text
    assert "a:w" not in guarded.get("/api/v1/lineage", headers=prod).text
    # Nobody said: only who may see all sees it.
    assert told(guarded, admin, event("unsaid", [], ["a:unsaid"])) == 201
    for key, may in ((admin, True), (prod, False), (both, False)):
        assert ("unsaid" in guarded.get("/api/v1/lineage", headers=key).text) is may


def test_the_same_event_of_two_environments_is_two(guarded: TestClient, keys: Keys):
    for name in ("dev", "prod"):
        key = {"X-API-Key": keys.add("writer", name=name, environments=[name])}
        assert [told(guarded, key, event("j", [], ["a:y"])) for _ in range(2)] == [201, 200]


@pytest.mark.parametrize("tags", [["dev", "prod"], ["nowhere"], [""], ["x" * 65]])
def test_an_environment_that_is_none_is_refused(client: TestClient, tags: list[str]):
    found = event("j", [], [])
    found["run"]["facets"] = {"tags": {"tags": [{"key": "environment", "value": tag} for tag in tags]}}
    assert post(client, found) == [422]


@pytest.mark.parametrize("facet", [7, [], {"tags": 5}, {"tags": [5, {}, {"key": 1}]}])
def test_tags_of_another_form_say_nothing(client: TestClient, facet: object):
    found = event("j", [], [])
    found["job"]["facets"] = {"tags": facet}
    assert post(client, found) == [201]


def test_names_and_columns_of_any_length(client: TestClient):
    def long(start: str, length: int) -> str:
        # Nothing that a database could compress.
        return start + "".join(chr(0x4E00 + (i * 7919 + ord(start)) % 20_000) for i in range(length - 1))

    source, target = f"s:{long('a', 1024)}", f"t:{long('b', 1024)}"
    written = columns(target, **{long("c", 4000): f"{source}.{long('d', 4000)}"})
    assert post(client, event(long("e", 1000), [source], [written])) == [201]
    node = f"dataset:{target}"
    assert graph(client, nodeId=node) == {node, f"dataset:{source}", f"job:airflow:{long('e', 1000)}"}
    (item,) = client.get("/api/v1/column-lineage", params={"nodeId": node}).json()["items"]
    assert (item["target_field"], item["source_field"]) == (long("c", 4000), long("d", 4000))
    assert client.get("/lineage", params={"node": node}).status_code == 200
    assert post(client, event("too long", [f"s:{'x' * 1025}"], [])) == [422]


def nested(depth: int) -> dict:
    found: dict = {}
    for _ in range(depth):
        found = {"x": found}
    return found


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"eventTime": "0001-01-01T00:00:00+14:00"}, 422),
        ({"eventTime": "9999-12-31T23:59:59-14:00"}, 422),
        ({"eventTime": 5}, 422),
        ({"eventTime": "2000-01-01T00:00:00+14:00"}, 201),
        ({"producer": nested(260)}, 422),
        ({"inputs": [dataset("a:b", deep=nested(260))]}, 422),
        ({"inputs": [dataset("a:b", deep=nested(90))]}, 201),
        ({"inputs": [dataset("a:b", nul="a\x00b")]}, 422),
        ({"outputs": [columns("a:b", **{"c\x00": "d:e.f"})]}, 422),
        ({"inputs": [dataset("a:b", n=2**64 - 1)]}, 201),
        ({"inputs": [dataset("a:b", n=2**64 + 1)]}, 422),
        ({"run": {"runId": "0193c0de-0000-7000-8000-000000000000", "facets": {"n": -(2**63) - 1}}}, 422),
    ],
)
def test_an_event_comes_back_as_it_was_or_is_refused(client: TestClient, change: dict, status: int):
    body = json.dumps(event("x", [], []) | change)
    answer = client.post("/api/v1/lineage", content=body, headers=JSON)
    assert answer.status_code == status, answer.text


def test_origins_of_columns_are_bounded(client: TestClient):
    many = {f"c{number}": "a:b.c" for number in range(MAX_COLUMNS + 1)}
    answer = client.post("/api/v1/lineage", json=event("x", ["a:b"], [columns("a:y", **many)]))
    assert answer.status_code == 422
    assert "send at most" in answer.json()["detail"]


# -- the way by columns ---------------------------------------------------------------------------


def test_a_mart_comes_from_what_its_columns_come_from(client: TestClient):
    for told_of in run_events("techmarket"):
        assert client.post("/api/v1/lineage", content=told_of, headers=JSON).status_code == 201
    node = "dataset:clickhouse://c:8123:dwh.mart_payment_conversion"
    upstream = up(client, node)
    tables = {name.rpartition(".")[2] for name in upstream if "://s:1:" in name}
    declared = tables_by_contract("mart_payment_conversion")
    assert tables == declared
    assert 0 < len(tables) < 8
    assert "job:tallyhouse:techmarket_nightly.transform" in upstream
    # And down again: a table that only orders are made of does not reach the payments' mart.
    reached = graph(client, nodeId="dataset:mysql://s:1:catalog_db.categories")
    assert node not in reached
    assert "dataset:clickhouse://c:8123:dwh.mart_revenue_daily" in reached


def up(client: TestClient, node: str) -> set[str]:
    """What stands upstream of a node, followed along the edges that are answered."""
    answer = client.get("/api/v1/lineage", params={"nodeId": node}).json()["graph"]
    before = {one["id"]: {edge["origin"] for edge in one["inEdges"]} for one in answer}
    found, waiting = set[str](), [node]
    while waiting:
        for one in before[waiting.pop()] - found:
            found.add(one)
            waiting.append(one)
    return found


def tables_by_contract(mart: str) -> set[str]:
    """The source tables of a mart, as their definitions say."""
    models = {name.split(".")[0] for names in column_origins(mart).values() for name in names}
    columns = itertools.chain.from_iterable(column_origins(model).values() for model in models)
    return {name.split(".")[1] for names in columns for name in names}


def test_what_a_job_made_of_its_own_output_is_an_edge(client: TestClient):
    show = event("show", ["l:i"], [columns("c:fact", a="l:i.a"), columns("c:mart", b="c:fact.a")])
    assert post(client, show) == [201]
    assert up(client, "dataset:c:mart") == {"dataset:c:fact", "job:airflow:show", "dataset:l:i"}
    assert "dataset:c:mart" in graph(client, nodeId="dataset:l:i")


def test_without_columns_all_that_the_job_read_counts(client: TestClient):
    assert post(client, event("j", ["a:1", "a:2"], ["a:3"])) == [201]
    assert graph(client, nodeId="dataset:a:3", depth=2) == {
        *("dataset:a:1", "dataset:a:2", "dataset:a:3", "job:airflow:j"),
    }


# -- search ---------------------------------------------------------------------------------------


def found(client: TestClient, text: str, **query: object) -> list[str]:
    answer = client.get("/api/v1/search", params={"q": text, **query})
    assert answer.status_code == 200, answer.text
    assert answer.json()["totalCount"] == len(answer.json()["results"])
    return [item["nodeId"] for item in answer.json()["results"]]


def test_search_by_a_part_of_a_name_the_best_first(client: TestClient):
    names = ("p:db.dwh.orders", "p:db.ods.orders_old", "p:db.ods.all_orders", "p:db.x.reorders", "p:orders.y")
    assert post(client, event("load_orders", list(names), ["p:100%_sure!"])) == [201]
    assert found(client, "ORDERS") == [
        "dataset:p:db.dwh.orders",
        "dataset:p:db.ods.orders_old",
        "dataset:p:orders.y",
        "dataset:p:db.x.reorders",
        "dataset:p:db.ods.all_orders",
        "job:airflow:load_orders",
    ]
    assert found(client, "ods orders") == ["dataset:p:db.ods.all_orders", "dataset:p:db.ods.orders_old"]
    assert found(client, "100%_s") == ["dataset:p:100%_sure!"]
    assert found(client, "%") == ["dataset:p:100%_sure!"]
    assert found(client, "nothing like it") == []
    page = client.get("/lineage", params={"node": "orders"}).text
    assert page.index("db.dwh.orders</a>") < page.index("db.x.reorders</a>")
    # A single one is shown at once.
    assert "What it comes from" in client.get("/lineage", params={"node": "reord"}).text
    assert "“nothing”" in client.get("/lineage", params={"node": "nothing"}).text


# -- what nobody reports any more -----------------------------------------------------------------


class Clock:
    """The time at which events come in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ago = timedelta()
        monkeypatch.setattr(backend, "datetime", self)

    def now(self, zone: object) -> datetime:
        return datetime.now(UTC) - self.ago

    def fromisoformat(self, text: str) -> datetime:
        return datetime.fromisoformat(text)


def test_what_nobody_reports_is_hidden_and_then_removed(
    guarded: TestClient, keys: Keys, monkeypatch, capsys, tmp_path: Path
):
    admin = {"X-API-Key": keys.add("admin")}
    guarded.headers.update(admin)
    clock = Clock(monkeypatch)
    clock.ago = timedelta(days=31)
    assert post(guarded, event("old", [ORDERS], [RAW]), event("both", ["a:b"], [FACT])) == [201, 201]
    clock.ago = timedelta(days=29)
    assert (
        post(guarded, event("new", [FACT], [MART]), event("both", ["a:b"], [FACT], at="12:00:00"))
        == [201] * 2
    )
    shown = {f"dataset:{name}" for name in (FACT, MART, "a:b")} | {"job:airflow:new", "job:airflow:both"}
    hidden = {f"dataset:{name}" for name in (ORDERS, RAW)} | {"job:airflow:old"}
    assert graph(guarded) == shown
    assert graph(guarded, retired=True) == shown | hidden
    assert guarded.get("/api/v1/lineage", params={"nodeId": f"dataset:{RAW}"}).status_code == 404
    assert found(guarded, "orders") == []
    assert len(found(guarded, "orders", retired=True)) == 2
    assert "3 were not reported for 30 days" in guarded.get("/lineage").text
    assert "2 were not reported for 30 days" in guarded.get("/lineage?node=orders").text
    assert "raw/orders" in guarded.get("/lineage?node=raw/orders&retired=1").text

    store = guarded.app.state.lineage  # type: ignore[attr-defined]
    before = datetime.now(UTC) - timedelta(days=30)
    counts = {"nodes": 3, "edges": 2, "columns": 0, "events": 2}
    assert store.retire(before, dry=True) == store.retire(before) == counts
    assert store.retire(before) == dict.fromkeys(counts, 0)
    assert graph(guarded, retired=True) == shown


def test_the_command_that_removes(postgres, tmp_path: Path, monkeypatch, capsys):
    dsn = postgres.new_database()
    monkeypatch.setenv("PIPELINE_INFO_BACKEND", "postgres")
    monkeypatch.setenv("PIPELINE_INFO_DSN", dsn)
    client = client_of(create_app())
    fill(client)
    with pytest.raises(SystemExit):
        retire.main(["--days", "0"])
    assert retire.main(["--days", "30", "--dry-run"]) == retire.main(["--days", "30"]) == 0
    assert "0 nodes, 0 edges" in capsys.readouterr().out
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE pipeline_info.lineage_node SET reported_at = now() - interval '40 days'")
    assert retire.main(["--days", "30"]) == 0
    assert "10 nodes, 0 edges, 0 columns, 0 events removed" in capsys.readouterr().out
