"""Logs, metrics and traces."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.common.observe import REQUEST_ID, JsonFormatter
from services.pipeline_info.app import create_app
from services.pipeline_info.settings import Settings
from tests.services.pipeline_info.conftest import client_of

RUN = {"start_utc": "2026-01-02T00:00:00Z"}


def test_every_request_is_a_line_of_json(client: TestClient, caplog):
    caplog.set_level(logging.INFO, "access")
    answer = client.get("/get_pipeline_info?limit=0", headers={"X-Request-ID": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    record = next(record for record in caplog.records if record.name == "access")
    line = json.loads(JsonFormatter().format(record))
    assert line["endpoint"] == "/get_pipeline_info"
    assert (line["status"], line["error_code"], line["method"]) == (422, "invalid", "GET")
    assert line["latency_ms"] > 0
    assert line["timestamp"].endswith("+00:00")
    assert line["principal"] == "anonymous"


def test_a_request_id_that_could_harm_the_log_is_replaced(client: TestClient):
    assert client.get("/health", headers={"X-Request-ID": 'a"b'}).headers["x-request-id"] != 'a"b'


def test_exceptions_go_to_the_log_and_not_to_the_client(repository, caplog, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret in a message")

    monkeypatch.setattr(repository, "get_pipeline_info", broken)
    client = client_of(create_app(Settings(), repository))
    answer = client.get("/get_pipeline_info")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "a secret in a message" in caplog.text


def test_the_formatter_keeps_what_it_is_given():
    token = REQUEST_ID.set("r")
    try:
        record = logging.getLogger("x").makeRecord("x", 20, "f", 1, "a %s", ("b",), None, extra={"k": {1: 2}})
        line = json.loads(JsonFormatter().format(record))
    finally:
        REQUEST_ID.reset(token)
    assert (line["message"], line["request_id"], line["k"]) == ("a b", "r", {"1": 2})


def test_metrics_name_routes_not_paths(client: TestClient):
    run = client.post("/pipelines", json=RUN).json()
    client.get(f"/get_pipeline_info/{run['id']}")
    client.get("/get_pipeline_info/unknown")
    client.get("/no/such/place")
    text = client.get("/metrics").text
    name = "http_request_duration_seconds_count"
    assert f'{name}{{endpoint="/get_pipeline_info/{{run_id}}",method="GET",status="200"}} 1.0' in text
    assert f'{name}{{endpoint="unmatched",method="GET",status="404"}} 1.0' in text
    assert 'http_errors_total{code="not_found",endpoint="/get_pipeline_info/{run_id}"} 1.0' in text
    assert 'runs_inserted_total{result="created"} 1.0' in text
    assert 'store_operation_duration_seconds_count{operation="insert",outcome="ok"} 1.0' in text
    assert run["id"] not in text


def test_traces_go_to_the_endpoint_that_is_set(repository, monkeypatch):
    by_name: dict[str, Span] = {}
    arrived = threading.Event()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest()
            request.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    by_name.update({span.name: span for span in scope.spans})
            self.send_response(200)
            self.end_headers()
            # A span is sent when it ends: the store's may come a batch before the request's.
            if {"GET /get_pipeline_info", "store read"} <= set(by_name):
                arrived.set()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    client = client_of(create_app(Settings(), repository))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.get("/get_pipeline_info?limit=1", headers={"traceparent": parent})
    assert arrived.wait(20), by_name
    server.shutdown()
    request = by_name["GET /get_pipeline_info"]
    assert request.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert by_name["store read"].parent_span_id == request.span_id


def test_there_is_no_tracing_unless_asked(client: TestClient, caplog):
    client.get("/pipelines")
    assert not trace.get_current_span().get_span_context().is_valid
