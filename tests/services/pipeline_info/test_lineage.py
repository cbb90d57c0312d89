"""OpenLineage events in, a graph out; on both of its stores."""

import threading
import uuid
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from services.pipeline_info.app import create_app
from services.pipeline_info.backends.postgres import PostgresPipelineRepository
from services.pipeline_info.lineage import Graph, layers
from services.pipeline_info.settings import Settings
from tests.services.pipeline_info.conftest import client_of

ORDERS, RAW, FACT, MART = "mysql_orders:orders", "lake:raw/orders", "dwh:fact_order_line", "ch:revenue"


def dataset(name: str, **facets: object) -> dict:
    namespace, name = name.split(":")
    return {"namespace": namespace, "name": name, "facets": facets}


def event(job: str, reads: list, writes: list, kind: str = "COMPLETE", at: str = "10:00:00", **more) -> dict:
    return {
        "eventType": kind,
        "eventTime": f"2026-01-02T{at}Z",
        "producer": "https://example.org/producer",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": str(uuid.uuid5(uuid.NAMESPACE_URL, job)), "facets": {"nominalTime": {}}},
        "job": {"namespace": "airflow", "name": job},
        "inputs": [dataset(name) if isinstance(name, str) else name for name in reads],
        "outputs": [dataset(name) if isinstance(name, str) else name for name in writes],
        **more,
    }


def columns(target: str, **sources: str) -> dict:
    fields = {}
    for name, source in sources.items():
        origin, column = source.rsplit(".", 1)
        namespace, table = origin.split(":")
        transformation = {"type": "DIRECT", "subtype": "IDENTITY"}
        fields[name] = {
            "inputFields": [
                {"namespace": namespace, "name": table, "field": column, "transformations": [transformation]}
            ]
        }
    return dataset(target, columnLineage={"fields": fields})


@pytest.fixture(params=["sqlite", "postgres"])
def client(request: pytest.FixtureRequest, tmp_path) -> Iterator[TestClient]:
    store = None
    if request.param == "postgres":
        store = PostgresPipelineRepository(request.getfixturevalue("postgres").new_database(), pool_size=4)
    yield client_of(create_app(Settings(file=tmp_path / "runs.jsonl"), store))
    if store:
        store.close()


def post(client: TestClient, *events: dict) -> list[int]:
    return [client.post("/api/v1/lineage", json=item).status_code for item in events]


def fill(client: TestClient) -> None:
    assert (
        post(
            client,
            event("extract", [ORDERS], [RAW]),
            event(
                "publish", [RAW], [columns(FACT, amount="lake:raw/orders.total", day="lake:raw/orders.at")]
            ),
            event("mart", [FACT], [columns(MART, revenue="dwh:fact_order_line.amount")]),
            event("other", ["a:b"], ["a:c"]),
        )
        == [201] * 4
    )


def graph(client: TestClient, **query: object) -> set[str]:
    answer = client.get("/api/v1/lineage", params=query)
    assert answer.status_code == 200, answer.text
    return {node["id"] for node in answer.json()["graph"]}


def test_the_graph_around_a_node(client: TestClient):
    assert graph(client) == set()
    fill(client)
    way = {
        *(f"dataset:{name}" for name in (ORDERS, RAW, FACT, MART)),
        *(f"job:airflow:{name}" for name in ("extract", "publish", "mart")),
    }
    assert graph(client) == way | {"dataset:a:b", "dataset:a:c", "job:airflow:other"}
    assert graph(client, nodeId=f"dataset:{RAW}") == way
    assert graph(client, nodeId=f"dataset:{RAW}", depth=1) == {
        f"dataset:{RAW}",
        "job:airflow:extract",
        "job:airflow:publish",
    }
    nodes = client.get("/api/v1/lineage", params={"nodeId": "job:airflow:mart", "depth": 1}).json()["graph"]
    mart = next(node for node in nodes if node["id"] == "job:airflow:mart")
    assert mart["type"] == "JOB"
    assert mart["inEdges"] == [{"origin": f"dataset:{FACT}", "destination": "job:airflow:mart"}]
    assert client.get("/api/v1/lineage", params={"nodeId": "job:airflow:none"}).status_code == 404


def test_columns(client: TestClient):
    fill(client)
    answer = client.get("/api/v1/column-lineage", params={"nodeId": f"dataset:{FACT}"}).json()["items"]
    seen = [(i["target"], i["target_field"], i["source"], i["source_field"], i["how"]) for i in answer]
    assert (f"dataset:{FACT}", "amount", f"dataset:{RAW}", "total", "identity") in seen
    assert (f"dataset:{MART}", "revenue", f"dataset:{FACT}", "amount", "identity") in seen
    assert len(seen) == 3


def test_an_event_that_comes_again_changes_nothing_and_a_start_takes_nothing_away(client: TestClient):
    complete = event("extract", [ORDERS], [RAW])
    assert post(client, complete, complete, dict(reversed(complete.items()))) == [201, 200, 200]
    assert post(client, event("extract", [], [], kind="START", at="11:00:00")) == [201]
    assert graph(client) == {f"dataset:{ORDERS}", "job:airflow:extract", f"dataset:{RAW}"}


def test_many_at_once(client: TestClient):
    statuses: list[int] = []

    def send(start: int) -> None:
        for number in range(start, start + 12):
            statuses.extend(post(client, event(f"j{number % 16}", [ORDERS, RAW], [FACT, MART])))

    threads = [threading.Thread(target=send, args=(start,)) for start in (0, 4, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(statuses) == {200, 201}
    assert len(graph(client)) == 4 + 16


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"eventTime": "2026-01-02T10:00:00"},
        {"eventTime": "yesterday"},
        {"run": {"runId": "no uuid"}},
        {"job": {"namespace": "", "name": "x"}},
        {"inputs": [{"namespace": "x"}]},
        {"inputs": [{"namespace": "x", "name": "a\x00"}]},
        {"eventType": "PERHAPS"},
    ],
)
def test_an_event_that_is_none_is_refused(client: TestClient, broken: dict):
    body = event("x", [], []) | broken if broken else {}
    assert post(client, body) == [422]


def test_odd_facets_are_kept_and_do_no_harm(client: TestClient):
    odd = dataset(FACT, columnLineage={"fields": {"a": {"inputFields": [{"x": 1}, 5]}, "b": 7, "c": {}}})
    assert post(client, event("x", [RAW], [odd, dataset(MART, columnLineage=[1])])) == [201]
    assert client.get("/api/v1/column-lineage", params={"nodeId": f"dataset:{FACT}"}).json()["items"] == []


def test_the_page(client: TestClient):
    fill(client)
    whole = client.get("/lineage")
    assert whole.status_code == 200
    assert "job:airflow:publish" in whole.text
    part = client.get("/lineage", params={"node": f"dataset:{FACT}"})
    assert "amount" in part.text
    assert "job:airflow:other" not in part.text.split("Edges")[1]
    assert client.get("/lineage", params={"node": "<script>"}).status_code == 200


def test_layers_of_a_graph_with_a_circle():
    found = Graph({"a", "b", "c", "d"}, {("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")})
    place = layers(found)
    assert place["a"] == 0
    assert place["a"] < place["b"] < place["c"] < place["d"]
