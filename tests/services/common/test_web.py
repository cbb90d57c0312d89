"""What stands around every service's routes: names, origins, bodies, errors, credentials."""

import gzip
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import httpx
import orjson
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict

from services.common import docs, security, web
from services.common.observe import Metrics
from services.common.security import AccessControl, Principal, new_key
from services.common.settings import ServiceSettings
from services.common.strict import StrictRoute
from tallyhouse.settings import ROOT
from tests.services.event_servers import eventually
from tests.services.pipeline_info.conftest import free_port

LIMIT = 4_000_000


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = ""
    number: float | int = 0


def client_of(**settings: object) -> TestClient:
    """A client of a small service."""
    chosen = ServiceSettings.model_validate({"max_body_bytes": LIMIT, "rate_per_second": 0} | settings)
    app = FastAPI(docs_url=None)
    web.install(app, chosen, Metrics(), None, shorter={"/short": 1000})
    docs.install(app)
    access, router = AccessControl(chosen), APIRouter(route_class=StrictRoute)
    Writer = Annotated[Principal, Depends(access.require(security.WRITE))]

    @router.post("/things")
    @router.post("/short")
    def add(thing: Annotated[Thing, Body()], _: Writer) -> Thing:
        return thing

    @router.get("/things")
    def things() -> list[Thing]:
        return []

    app.include_router(router)
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("auth", ["auto", "on", "off"])
@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "127.0.0.1.evil.example", "0.0.0.0", "10.0.0.1"),  # noqa: S104
        *("", "[::1", "a b", "localhost@x", "х"),
    ],
)
def test_an_unknown_host_is_refused_whatever_is_asked(auth: str, host: str):
    client = client_of(auth=auth)
    for path in ("/things", "/docs", "/openapi.json", "/nothing"):
        answer = client.get(path, headers={"Host": host.encode()})
        assert answer.status_code == 421, path
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.9:1", "localhost:8000", "LOCALHOST.", "[::1]:8000", "Ours.example:80"]
)
def test_its_own_names_are_taken(host: str):
    client = client_of(auth="off", allowed_hosts="ours.example, other.example")
    assert client.get("/things", headers={"Host": host}).status_code == 200


def test_the_names_are_a_setting_of_one_name_for_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALLOWED_HOSTS", "a.example, b.example")
    assert ServiceSettings().allowed_hosts == ("a.example", "b.example")


def test_a_page_of_another_origin_changes_nothing():
    client = client_of(auth="off", cors_origins="https://ok.example")
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:9999", 403),
        ("http://[", 403),
        ("http://127.0.0.1:8000", 200),
        ("https://ok.example", 200),
    ):
        assert client.post("/things", json={}, headers={"Origin": origin}).status_code == status, origin


def test_allow_names_every_method_of_the_path():
    for method in ("DELETE", "PUT", "PATCH"):
        answer = client_of(auth="off").request(method, "/things")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")


def test_a_compressed_body_is_read_within_the_limit():
    client = client_of(auth="off")
    packed = gzip.compress(b'{"name": "x"}')
    gzipped = JSON | {"Content-Encoding": "gzip"}
    assert client.post("/things", content=packed, headers=gzipped).json()["name"] == "x"
    assert client.post("/things", content=iter([packed[:7], packed[7:]]), headers=gzipped).status_code == 200
    bomb = gzip.compress(b'{"name": "' + b"x" * 200_000_000 + b'"}')
    assert len(bomb) < 400_000
    began = time.monotonic()
    assert client.post("/things", content=bomb, headers=gzipped).status_code == 413
    assert time.monotonic() - began < 2
    for broken in (packed[:-5], b"not gzip", packed + packed, packed + b"x"):
        assert client.post("/things", content=broken, headers=gzipped).status_code == 400
    for coding in ("br", "deflate", "gzip, gzip", "zstd"):
        answer = client.post("/things", content=packed, headers=JSON | {"Content-Encoding": coding})
        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip")


def test_a_byte_order_mark_is_passed_over():
    answer = client_of(auth="off").post("/things", content=b'\xef\xbb\xbf{"name": "x"}', headers=JSON)
    assert answer.json()["name"] == "x"


def test_a_path_may_have_a_shorter_limit():
    client = client_of(auth="off")
    assert client.post("/short", json={"name": "x" * 2000}).status_code == 413
    assert client.post("/things", json={"name": "x" * 2000}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"name": "a", "name": "b"}', 422),
        (b'{"number": 18446744073709551617}', 422),
        (b'{"number": 1e999}', 422),
        (b'{"name": ' + b"[" * 260 + b"]" * 260 + b"}", 422),
        (b'{"name": NaN}', 400),
        (b"{", 400),
    ],
)
def test_json_that_is_not_to_be_relied_on_is_refused(body: bytes, status: int):
    answer = client_of(auth="off").post("/things", content=body, headers=JSON)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 1500


def test_of_many_errors_a_few_are_shown_and_all_are_counted():
    client = client_of(auth="off")
    few = client.post("/things", json={f"k{number}": 1 for number in range(900)})
    assert few.status_code == 422
    assert len(few.json()["errors"]) == 20
    assert few.json()["error_count"] == 900
    body = orjson.dumps({f"unknown {number}": 1 for number in range(180_000)})
    began = time.monotonic()
    many = client.post("/things", content=body, headers=JSON)
    assert many.status_code == 422
    assert "180000 fields" in many.json()["detail"]
    assert len(many.content) < 1500
    assert time.monotonic() - began < 3
    long = client.post("/things", json={"x" * 3_000_000: 1})
    assert long.status_code == 422
    assert len(long.content) < 2000


def test_nobody_unknown_has_a_body_read(tmp_path: Path):
    key, entry = new_key("w", "writer")
    (tmp_path / "keys.json").write_text(f"[{entry.model_dump_json()}]")
    client, read = client_of(auth="on", api_keys_file=tmp_path / "keys.json"), 0

    def parts():
        nonlocal read
        for _ in range(15):
            read += 1
            yield b" " * 1000

    answer = client.post("/things", content=b"not JSON", headers=JSON)
    assert answer.status_code == 401, "a body that is not JSON would be 400, had it been read"
    too_long = client.post("/things", content=b" " * (LIMIT - 1), headers=JSON | {"X-API-Key": "th_x_y"})
    assert too_long.status_code == 401
    assert client.post("/things", content=parts(), headers=JSON | {"X-API-Key": key}).status_code == 400


def test_the_document_names_credentials_only_where_they_are_asked_for(tmp_path: Path):
    off = client_of(auth="off", api_keys_file=tmp_path / "keys.json").get("/openapi.json").json()
    assert "security" not in orjson.dumps(off).decode()
    on = client_of(auth="on", api_keys_file=tmp_path / "keys.json").get("/openapi.json").json()
    assert on["paths"]["/things"]["post"]["security"] == [{"APIKeyHeader": []}]
    assert list(on["components"]["securitySchemes"]) == ["APIKeyHeader"]


def test_the_page_of_the_interface_loads_nothing_from_elsewhere():
    client = client_of(auth="off")
    page = client.get("/docs")
    assert "http" not in page.text.replace("http-equiv", "")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    for file in ("docs/files/swagger-ui.css", "docs/files/swagger-ui-bundle.js", "docs/start.js"):
        assert file in page.text
        assert client.get(f"/{file}").status_code == 200


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., httpx.Client]]:
    """Starts pipeline-info as a process; both ways in which it can be started."""
    started: list[subprocess.Popen[bytes]] = []
    folder = tmp_path_factory.mktemp("served")

    def start(*command: str, **environment: str) -> httpx.Client:
        port = free_port()
        environment |= {"PIPELINE_INFO_BACKEND": "jsonl", "PIPELINE_INFO_FILE": str(folder / f"{port}.jsonl")}
        environment |= {"PIPELINE_INFO_RATE_PER_SECOND": "0.01", "PIPELINE_INFO_RATE_BURST": "3"}
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port)],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        eventually(lambda: client.get("/health").status_code == 200)
        return client

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "command",
    [("services.pipeline_info",), ("uvicorn", "services.pipeline_info.app:app")],
    ids=["ours", "uvicorn"],
)
def test_a_rate_is_not_passed_by_with_x_forwarded_for(served, command: tuple[str, ...]):
    client = served(*command)
    asked = [
        client.get("/pipelines", headers={"X-Forwarded-For": f"10.0.0.{number}"}).status_code
        for number in range(6)
    ]
    assert asked == [200, 200, 200, 429, 429, 429]


def test_a_configured_proxy_is_believed(served):
    client = served("services.pipeline_info", PIPELINE_INFO_TRUSTED_PROXIES="127.0.0.0/8, 10.1.0.0/16")

    def ask(forwarded: str) -> int:
        return client.get("/pipelines", headers={"X-Forwarded-For": forwarded}).status_code

    assert [ask("192.0.2.1, 10.1.0.1") for _ in range(4)] == [200, 200, 200, 429]
    assert ask("192.0.2.2, 10.1.0.1") == 200
    assert ask("192.0.2.3, 192.0.2.1") == 429, (
        "what the client wrote before the proxy's own word counts for nothing"
    )
