"""Keys, tokens, roles, environments, limits and the audit log."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi.testclient import TestClient

from services.common.security import KeyEntry, main, new_key
from services.pipeline_info.app import create_app
from services.pipeline_info.settings import Settings
from tests.services.pipeline_info.conftest import client_of

RUN = {"start_utc": "2026-01-02T00:00:00Z", "environment": "dev"}


class Keys:
    """A file of API keys."""

    def __init__(self, path: Path) -> None:
        self.path, self.entries = path, list[KeyEntry]()

    def add(self, role: str, **fields) -> str:
        key, entry = new_key(role, role)
        self.entries.append(entry.model_copy(update=fields))
        self.write()
        return key

    def write(self) -> None:
        self.path.write_text(json.dumps([json.loads(entry.model_dump_json()) for entry in self.entries]))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    keys = Keys(tmp_path / "keys.json")
    keys.write()
    return keys


@pytest.fixture
def guarded(keys: Keys, repository, tmp_path: Path) -> TestClient:
    settings = Settings(
        auth="on", api_keys_file=keys.path, audit_file=tmp_path / "audit" / "log.jsonl", summary_seconds=0
    )
    return client_of(create_app(settings, repository))


def test_without_credentials_only_health_answers(guarded: TestClient):
    assert guarded.get("/health").status_code == guarded.get("/ready").status_code == 200
    for method, path in (
        ("GET", "/pipelines"),
        ("GET", "/get_pipeline_info"),
        ("GET", "/get_pipeline_info/x"),
        ("GET", "/download/pipeline_info?format=csv"),
        ("GET", "/metrics"),
        ("POST", "/pipelines"),
        ("POST", "/pipelines/bulk"),
    ):
        answer = guarded.request(method, path, json=RUN if method == "POST" else None)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"


def test_roles(guarded: TestClient, keys: Keys):
    reader, writer, monitor = (
        {"X-API-Key": keys.add("reader")},
        {"X-API-Key": keys.add("writer")},
        {"X-API-Key": keys.add("monitor")},
    )
    assert guarded.post("/pipelines", json=RUN, headers=reader).status_code == 403
    assert guarded.post("/pipelines", json=RUN, headers=writer).status_code == 201
    assert guarded.get("/get_pipeline_info", headers=reader).json()["total"] == 1
    assert guarded.get("/metrics", headers=reader).status_code == 403
    assert guarded.get("/metrics", headers=monitor).status_code == 200
    assert guarded.get("/pipelines", headers=monitor).status_code == 403


def test_a_browser_may_give_its_key_as_a_password(guarded: TestClient, keys: Keys):
    secret = base64.b64encode(f"me:{keys.add('reader')}".encode()).decode()
    assert guarded.get("/pipelines", headers={"Authorization": f"Basic {secret}"}).status_code == 200
    assert guarded.get("/pipelines", headers={"Authorization": "Basic !!"}).status_code == 401


def test_a_key_may_stand_in_the_place_of_a_token(guarded: TestClient, keys: Keys):
    """All that OpenLineage's clients can send."""
    key = keys.add("writer")
    event = {
        "eventTime": "2026-01-02T00:00:00Z",
        "run": {"runId": "0193c0de-0000-7000-8000-000000000000"},
        "job": {"namespace": "n", "name": "j"},
    }
    for credentials, status in ((f"Bearer {key}", 201), (f"Bearer {key}x", 401), ("Bearer th_x", 401)):
        answer = guarded.post("/api/v1/lineage", json=event, headers={"Authorization": credentials})
        assert answer.status_code == status


@pytest.mark.parametrize("key", ["", "x", "th_00000000_x", "th__", "ключ"])
def test_a_key_that_is_none_is_refused(guarded: TestClient, keys: Keys, key: str):
    keys.add("reader")
    answer = guarded.get("/pipelines", headers={"X-API-Key": key.encode()})
    assert answer.status_code == 401


def test_the_file_of_keys_holds_no_key(keys: Keys):
    key = keys.add("reader")
    assert key.split("_", 2)[2] not in keys.path.read_text()


def test_rotation_and_expiry(guarded: TestClient, keys: Keys):
    old = {"X-API-Key": keys.add("reader")}
    new = {"X-API-Key": keys.add("reader")}
    assert guarded.get("/pipelines", headers=old).status_code == 200
    assert guarded.get("/pipelines", headers=new).status_code == 200
    keys.entries.pop(0)
    time.sleep(0.01)
    keys.write()
    assert guarded.get("/pipelines", headers=old).status_code == 401
    assert guarded.get("/pipelines", headers=new).status_code == 200
    keys.path.write_text("a slip of the pen")
    assert guarded.get("/pipelines", headers=new).status_code == 200
    expired = {"X-API-Key": keys.add("reader", not_after=datetime.now(UTC) - timedelta(seconds=1))}
    assert guarded.get("/pipelines", headers=expired).status_code == 401


def test_environments(guarded: TestClient, keys: Keys):
    admin = {"X-API-Key": keys.add("admin")}
    dev = {"X-API-Key": keys.add("writer", environments=["dev"])}
    prod_run = guarded.post("/pipelines", json=RUN | {"environment": "prod"}, headers=admin).json()
    guarded.post("/pipelines", json={"start_utc": "2026-01-02T00:00:00Z"}, headers=admin)
    dev_run = guarded.post("/pipelines", json=RUN, headers=dev).json()
    assert guarded.post("/pipelines", json=RUN | {"environment": "prod"}, headers=dev).status_code == 403
    bulk = guarded.post(
        "/pipelines/bulk",
        json={"items": [{"run": RUN}, {"run": RUN | {"environment": "prod"}}]},
        headers=dev,
    )
    assert [item["status"] for item in bulk.json()["items"]] == [201, 403]
    seen = guarded.get("/get_pipeline_info", headers=dev).json()
    assert seen["total"] == 2
    assert {item["environment"] for item in seen["items"]} == {"dev"}
    assert guarded.get("/get_pipeline_info?environment=prod", headers=dev).json()["total"] == 0
    assert guarded.get(f"/get_pipeline_info/{prod_run['id']}", headers=dev).status_code == 404
    assert guarded.get(f"/get_pipeline_info/{dev_run['id']}", headers=dev).status_code == 200
    assert [item["environment"] for item in guarded.get("/pipelines", headers=dev).json()["items"]] == ["dev"]
    lines = guarded.get("/download/pipeline_info?format=jsonl", headers=dev).text.splitlines()
    assert {orjson.loads(line)["environment"] for line in lines} == {"dev"}
    assert guarded.get("/get_pipeline_info", headers=admin).json()["total"] == 4


def test_what_was_changed_by_whom_is_written_down(guarded: TestClient, keys: Keys, tmp_path: Path, caplog):
    writer = {"X-API-Key": keys.add("writer"), "X-Request-ID": "r-1", "Idempotency-Key": "k"}
    run = guarded.post("/pipelines", json=RUN, headers=writer).json()
    guarded.post("/pipelines", json=RUN, headers=writer)
    guarded.post("/pipelines", json={}, headers=writer)
    first, second = [
        orjson.loads(line) for line in (tmp_path / "audit" / "log.jsonl").read_text().splitlines()
    ]
    assert first["items"] == [{"id": run["id"], "result": "created"}]
    assert second["items"] == [{"id": run["id"], "result": "replayed"}]
    assert (first["principal"], first["action"], first["request_id"]) == ("writer", "insert", "r-1")


@pytest.mark.parametrize(
    ("base_url", "status"),
    [
        ("http://127.0.0.1:8002", 200),
        ("http://localhost:8002", 200),
        ("http://[::1]:8002", 200),
        ("http://10.0.0.1:8002", 401),
        ("http://pipeline-info:8002", 401),
    ],
)
def test_credentials_are_asked_everywhere_but_on_this_machine(repository, base_url: str, status: int):
    client = client_of(create_app(Settings(), repository), base_url=base_url)
    assert client.get("/pipelines").status_code == status


def test_a_foreign_name_for_this_machine_is_not_enough(client: TestClient):
    """A page of the internet whose name was made to point here (DNS rebinding)."""
    assert client.get("/pipelines", headers={"Host": "localhost:8002"}).status_code == 200
    assert client.get("/pipelines", headers={"Host": "evil.example"}).status_code == 421
    form = client.post("/pipelines", content=json.dumps(RUN), headers={"Content-Type": "text/plain"})
    assert form.status_code == 422


def test_other_pages_may_call_only_when_listed(repository):
    client = client_of(create_app(Settings(cors_origins=("https://ok.example",)), repository))
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    ok = client.options("/pipelines", headers={"Origin": "https://ok.example", **asks})
    other = client.options("/pipelines", headers={"Origin": "https://other.example", **asks})
    assert ok.headers["access-control-allow-origin"] == "https://ok.example"
    assert "access-control-allow-origin" not in other.headers


def test_the_rate_is_limited(repository):
    client = client_of(create_app(Settings(rate_per_second=0.5, rate_burst=3), repository))
    answers = [client.get("/pipelines") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[4].headers["retry-after"] == "2"
    assert client.get("/health").status_code == 200


def test_a_body_is_limited_whether_it_says_its_length_or_not(repository):
    client = client_of(create_app(Settings(max_body_bytes=2000), repository))
    body = json.dumps(RUN | {"extra": {"x": "y" * 3000}}).encode()
    json_type = {"Content-Type": "application/json"}
    assert client.post("/pipelines", content=body, headers=json_type).status_code == 413
    chunked = client.post(
        "/pipelines", content=(body[i : i + 500] for i in range(0, 3000, 500)), headers=json_type
    )
    assert chunked.status_code == 413
    assert chunked.headers["content-type"] == "application/problem+json"
    assert client.post("/pipelines", json=RUN).status_code == 201


def test_the_command_makes_a_key_that_works(guarded: TestClient, keys: Keys, capsys):
    assert main(["new-key", "--name", "me", "--role", "writer"]) == 0
    first, _, entry = capsys.readouterr().out.split("\n", 2)
    keys.entries.append(KeyEntry.model_validate_json(entry))
    keys.write()
    key = first.split(": ")[1]
    assert guarded.post("/pipelines", json=RUN, headers={"X-API-Key": key}).status_code == 201


class Issuer:
    """An OIDC issuer with discovery and a set of keys, on this machine."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/.well-known/openid-configuration":
                    body: dict = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
                else:
                    public = jwt.algorithms.RSAAlgorithm.to_jwk(issuer.key.public_key(), as_dict=True)
                    body = {"keys": [public | {"kid": "1", "use": "sig", "alg": "RS256"}]}
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, key: object = None, algorithm: str = "RS256", **claims: object) -> dict[str, str]:
        now = datetime.now(UTC)
        standard = {"iss": self.url, "sub": "ann", "aud": "pipeline-info", "exp": now + timedelta(minutes=5)}
        kept = {name: value for name, value in (standard | claims).items() if value is not None}
        token = jwt.encode(kept, key or self.key, algorithm=algorithm, headers={"kid": "1"})
        return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.server.shutdown()


def test_tokens_of_the_issuer_are_taken(issuer: Issuer, repository):
    settings = Settings(
        auth="on", jwt_issuer=issuer.url, jwt_audience="pipeline-info", jwt_roles_claim="realm_access.roles"
    )
    client = client_of(create_app(settings, repository))

    def status(method: str = "GET", **claims: object) -> int:
        body = RUN if method == "POST" else None
        return client.request(method, "/pipelines", headers=issuer.token(**claims), json=body).status_code

    assert status(scope="runs:read other") == 200
    assert status(realm_access={"roles": ["reader", "unknown"]}) == 200
    assert status("POST", realm_access={"roles": ["reader"]}) == 403
    assert status("POST", realm_access={"roles": ["writer"]}) == 201
    assert status("POST", realm_access={"roles": ["writer"]}, environments=["prod"]) == 403
    assert status(roles=["reader"]) == 403
    assert status(scope="runs:read", aud="another") == 401
    assert status(scope="runs:read", iss="https://other.example") == 401
    assert status(scope="runs:read", exp=datetime.now(UTC) - timedelta(minutes=2)) == 401
    assert status(scope="runs:read", exp=None) == 401
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert status(scope="runs:read", key=other) == 401
    assert status(scope="runs:read", key="s" * 64, algorithm="HS256") == 401
    assert client.get("/pipelines", headers={"Authorization": "Bearer nonsense"}).status_code == 401


def test_an_issuer_that_does_not_answer_is_503(issuer: Issuer, repository):
    client = client_of(
        create_app(
            Settings(auth="on", jwt_issuer="http://127.0.0.1:1", jwt_audience="pipeline-info"), repository
        )
    )
    answer = client.get("/pipelines", headers=issuer.token(scope="runs:read"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
