import csv
import io
from pathlib import Path

import orjson
import pytest
from fastapi.testclient import TestClient

from services.pipeline_info.app import create_app
from services.pipeline_info.models import PipelineInfo
from services.pipeline_info.settings import Settings
from tests.services.pipeline_info.conftest import client_of

RUN = {
    "start_local": "2026-01-02T02:00:00+02:00",
    "end_local": "2026-01-02T02:07:31+02:00",
    "start_utc": "2026-01-02T00:00:00Z",
    "end_utc": "2026-01-02T00:07:31Z",
    "elapsed_seconds": 451.0,
    "elapsed_human": "7m 31s",
    "rowcount": 104211,
    "pid": 4711,
    "date_code": "20260102",
    "pipeline_name": "techmarket_nightly",
    "script_name": "techmarket_nightly.py",
    "pipeline_type": "etl",
    "environment": "dev",
    "output_file": "lake/raw/run=1",
    "log_file": ".local/log/1.log",
    "extra": {"state": "success", "ledger": {"tables": [{"table": "orders.orders", "source": 9, "raw": 9}]}},
}


def test_a_run_comes_back_as_it_was_posted(client: TestClient):
    answer = client.post("/pipelines", json=RUN)
    assert answer.status_code == 201
    assert set(RUN) == set(PipelineInfo.model_fields)
    stored = answer.json()
    assert {name: stored[name] for name in RUN} == RUN
    assert client.get("/get_pipeline_info").json() == {
        "items": [stored],
        "total": 1,
        "total_is_exact": True,
        "limit": 100,
        "offset": 0,
        "next_cursor": None,
    }
    one = client.get(f"/get_pipeline_info/{stored['id']}")
    assert (one.status_code, one.json()) == (200, stored)
    assert client.get("/get_pipeline_info/none").status_code == 404


def test_the_same_key_and_run_are_stored_once(client: TestClient, file: Path):
    first = client.post("/pipelines", json=RUN, headers={"Idempotency-Key": "k1"})
    again = client.post("/pipelines", json=RUN, headers={"Idempotency-Key": "k1"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert len(file.read_bytes().splitlines()) == 1
    other = client.post("/pipelines", json=RUN | {"rowcount": 1}, headers={"Idempotency-Key": "k1"})
    assert other.status_code == 409
    assert "use a new key" in other.json()["detail"]
    assert client.post("/pipelines", json=RUN, headers={"Idempotency-Key": "k2"}).status_code == 201
    assert client.get("/get_pipeline_info").json()["total"] == 2


def test_filters_pages_and_all(client: TestClient):
    for day in range(1, 8):
        run = {
            "start_utc": f"2026-01-0{day}T00:00:00Z",
            "pipeline_name": "a" if day % 2 else "b",
            "rowcount": day,
        }
        assert client.post("/pipelines", json=run).status_code == 201

    def days(**query: object) -> list[int]:
        answer = client.get("/get_pipeline_info", params=query)
        assert answer.status_code == 200, answer.text
        return [item["rowcount"] for item in answer.json()["items"]]

    assert days() == [7, 6, 5, 4, 3, 2, 1]
    assert days(pipeline_name="a") == [7, 5, 3, 1]
    assert days(date_code="20260103") == [3]
    assert days(start_from="2026-01-03T00:00:00Z", start_before="2026-01-05T00:00:00Z") == [4, 3]
    assert days(start_from="2026-01-07T01:00:00+01:00") == [7]
    assert days(min_rowcount=6) == [7, 6]
    assert days(limit=2, offset=3) == [4, 3]
    assert days(limit=2, all_data="true") == [7, 6, 5, 4, 3, 2, 1]
    assert days(environment="prod") == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=10001", "offset=-1", "start_from=1", "pipeline=a", "pipeline_name="]
)
def test_a_query_that_cannot_be_meant_is_refused(client: TestClient, query: str):
    answer = client.get(f"/get_pipeline_info?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b'{"start_utc": NaN}', 400),
        (b'{"pipeline_name": "\\ud800", "start_utc": "2026-01-02T00:00:00Z"}', 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"start_utc": "2026-01-02T00:00:00Z", "environment": "moon"}', 422),
        (b'{"start_utc": "2026-01-02T00:00:00Z", "pipeline_type": "magic"}', 422),
        (b'{"start_utc": "2026-01-02T00:00:00Z", "extra": {"big": 1e999}}', 422),
    ],
)
def test_a_body_that_cannot_be_meant_is_refused(client: TestClient, body: bytes, status: int, file: Path):
    answer = client.post("/pipelines", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert not file.exists()


def test_summaries(client: TestClient):
    for hour, seconds, rows, state in (
        (1, 10, 100, "success"),
        (3, 20, None, "failed"),
        (2, 0, 0, "success"),
    ):
        run = {
            "start_utc": f"2026-01-02T0{hour}:00:00Z",
            "elapsed_seconds": seconds,
            "rowcount": rows,
            "pipeline_name": "a",
            "extra": {"state": state},
        }
        assert client.post("/pipelines", json=run).status_code == 201
    client.post("/pipelines", json={"start_utc": "2026-01-02T00:00:00Z"})
    unnamed, named = client.get("/pipelines").json()["items"]
    assert unnamed["pipeline_name"] is None
    assert (unnamed["average_elapsed_seconds"], unnamed["average_rowcount"]) == (None, None)
    assert (named["total_runs"], named["total_rowcount"]) == (3, 100)
    assert (named["average_elapsed_seconds"], named["average_rowcount"]) == (15, 100)
    assert (named["last_start_utc"], named["last_state"]) == ("2026-01-02T03:00:00Z", "failed")
    assert named["first_start_utc"] == "2026-01-02T01:00:00Z"


def test_a_line_that_is_no_run_is_skipped_and_counted(client: TestClient, file: Path, caplog):
    client.post("/pipelines", json=RUN)
    with file.open("ab") as stream:
        stream.write(b'not json\n{"start_utc": 5}\n[1]\n')
        stream.write(orjson.dumps(RUN)[:40])  # a writer died here
    assert client.post("/pipelines", json=RUN).status_code == 201
    assert client.get("/get_pipeline_info").json()["total"] == 2
    assert client.get("/ready").json() == {"status": "ready", "backend": "jsonl", "corrupt_records": 4}
    assert "no run, skipped" in caplog.text
    assert "store_corrupt_records 4.0" in client.get("/metrics").text


def test_a_folder_that_cannot_be_written_is_503(tmp_path: Path):
    (tmp_path / "file").write_text("")
    client = client_of(create_app(Settings(backend="jsonl", file=tmp_path / "file" / "runs.jsonl")))
    answer = client.post("/pipelines", json=RUN)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "cannot use" in answer.json()["detail"]


def test_unknown_places_and_methods_are_problems(client: TestClient):
    for answer, status in ((client.get("/nowhere"), 404), (client.delete("/pipelines"), 405)):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


def test_every_route_is_described(client: TestClient):
    document = client.get("/openapi.json").json()
    assert {"/health", "/ready", "/metrics", "/pipelines", "/pipelines/bulk"} <= set(document["paths"])
    assert {"/get_pipeline_info", "/download/pipeline_info"} <= set(document["paths"])
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["description"]
    assert document["components"]["schemas"]["PipelineInfo"]["examples"]
    environment = document["components"]["schemas"]["PipelineInfo"]["properties"]["environment"]
    assert environment["anyOf"][0]["enum"] == ["dev", "test", "staging", "prod"]


def insert_days(client: TestClient, count: int) -> list[dict]:
    items = [
        {"run": {"start_utc": f"2026-01-{day:02d}T00:00:00Z", "pipeline_name": "a", "rowcount": day}}
        for day in range(1, count + 1)
    ]
    answer = client.post("/pipelines/bulk", json={"items": items})
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def test_pages_by_cursor(client: TestClient):
    insert_days(client, 25)
    seen, cursor = [], None
    while True:
        page = client.get("/get_pipeline_info", params={"limit": 10} | ({"cursor": cursor} if cursor else {}))
        assert page.json()["total"] == (25 if cursor is None else None)
        seen += [item["rowcount"] for item in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert seen == list(range(25, 0, -1))


@pytest.mark.parametrize("query", ["cursor=abc", "cursor=WzFd", "cursor=bnVsbA", "cursor=WzEsMl0&limit=1"])
def test_a_cursor_of_somebody_elses_is_400(client: TestClient, query: str):
    answer = client.get(f"/get_pipeline_info?{query}")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:tallyhouse:problem:bad_cursor")


def test_a_total_is_bounded(repository):
    client = client_of(create_app(Settings(total_bound=5), repository))
    insert_days(client, 5)
    page = client.get("/get_pipeline_info", params={"limit": 2}).json()
    assert (page["total"], page["total_is_exact"]) == (5, True)
    insert_days(client, 1)
    page = client.get("/get_pipeline_info", params={"limit": 2}).json()
    assert (page["total"], page["total_is_exact"]) == (5, False)


def test_bulk_has_a_result_for_each(client: TestClient):
    start = {"start_utc": "2026-01-02T00:00:00Z"}
    items = [
        {"run": start, "idempotency_key": "k1"},
        {"run": start, "idempotency_key": "k1"},
        {"run": start | {"rowcount": 1}, "idempotency_key": "k1"},
        {"run": {"rowcount": 1}},
        {"run": start | {"environment": "moon"}},
        "nonsense",
        {"run": start},
        {"run": start, "idempotency_key": "a b"},
    ]
    answer = client.post("/pipelines/bulk", json={"items": items})
    assert answer.status_code == 207
    body = answer.json()
    assert [item["status"] for item in body["items"]] == [201, 200, 409, 422, 422, 422, 201, 422]
    assert [item["index"] for item in body["items"]] == list(range(8))
    assert body["items"][0]["id"] == body["items"][1]["id"]
    assert body["items"][3]["errors"][0]["where"] == "run"
    assert (body["created"], body["replayed"], body["conflict"], body["invalid"]) == (2, 1, 1, 4)
    assert client.get("/get_pipeline_info").json()["total"] == 2
    metrics = client.get("/metrics").text
    assert 'runs_inserted_total{result="created"} 2.0' in metrics
    assert 'runs_inserted_total{result="invalid"} 4.0' in metrics


@pytest.mark.parametrize("body", [{"items": []}, {"items": [{}] * 5001}, {}, {"items": {}}, []])
def test_a_bulk_that_is_none_is_422(client: TestClient, body):
    assert client.post("/pipelines/bulk", json=body).status_code == 422


def test_export_as_csv_and_jsonl(client: TestClient):
    awkward = RUN | {"pipeline_name": 'a "quoted", name\nwith a line', "extra": {"k": [1, None]}}
    stored = client.post("/pipelines", json=awkward).json()
    client.post("/pipelines", json={"start_utc": "2026-01-01T00:00:00Z"})
    answer = client.get("/download/pipeline_info?format=csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="pipeline_info.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert len(rows) == 2
    assert rows[0]["pipeline_name"] == awkward["pipeline_name"]
    assert orjson.loads(rows[0]["extra"]) == awkward["extra"]
    assert rows[1]["rowcount"] == ""
    answer = client.get("/download/pipeline_info?format=jsonl&pipeline_type=etl")
    assert [orjson.loads(line) for line in answer.text.splitlines()] == [stored]
    assert client.get("/download/pipeline_info?format=xml").status_code == 422
    assert client.get("/download/pipeline_info").status_code == 422
    assert client.get("/download/pipeline_info?format=jsonl&environment=prod").text == ""


def test_reads_have_an_etag_that_changes_with_what_is_stored(client: TestClient):
    run = client.post("/pipelines", json=RUN).json()
    for path in ("/pipelines", "/get_pipeline_info", f"/get_pipeline_info/{run['id']}"):
        first = client.get(path)
        tag = first.headers["etag"]
        again = client.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    client.post("/pipelines", json=RUN)
    assert client.get("/get_pipeline_info", headers={"If-None-Match": tag}).status_code == 200
