"""Prometheus, started as the stack starts it, answers nobody without its login, by whatever name he comes."""

import functools
import http.server
import os
import shlex
import stat
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import bcrypt
import pytest
import requests
import yaml
from playwright.sync_api import Error, sync_playwright

from scripts.prometheus_login import write_login
from scripts.stack import fetch
from scripts.stack.accounts import account, confined, give
from scripts.stack.context import Stack, StackError, open_log
from scripts.stack.watch import watchers
from tests.services.event_servers import eventually
from tests.services.pipeline_info.conftest import chromium, free_port

PATHS = (
    *("/", "/classic/alerts", "/graph", "/metrics", "/federate?match[]=up", "/-/ready", "/-/healthy"),
    *(
        "/api/v1/query?query=up",
        "/api/v1/status/config",
        "/api/v1/status/flags",
        "/api/v1/targets",
        "/nothing",
    ),
)


@dataclass(frozen=True)
class Server:
    stack: Stack
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return self.stack.settings.prometheus_url

    @property
    def login(self) -> tuple[str, str]:
        return self.stack.settings.prometheus_user, self.stack.settings.prometheus_password

    @property
    def folder(self) -> Path:
        return self.stack.run / "prometheus" / "login"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prometheus of its own, with the stack's configuration, command, account and environment."""
    folder = tmp_path_factory.mktemp("stack")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALLYHOUSE_LOCAL", str(folder / "local"))
        patch.setenv("PORT_OFFSET", "0")
        patch.setenv("PROMETHEUS_PORT", str(free_port()))
        patch.setenv("PROMETHEUS_USER", "watcher")
        patch.delenv("PROMETHEUS_PASSWORD", raising=False)
        stack = Stack()
        stack.make_folders()
        (service,) = [found for found in watchers(stack) if found.name == "prometheus"]
        service.prepare()
        give(stack, service.account, service.owns)
        with open_log(stack.logs / "prometheus.log") as log:
            process = subprocess.Popen(
                [*confined(stack, service.account, service.sees()), *shlex.split(service.command)],
                cwd=stack.root,
                env=os.environ | stack.environment | service.environment,
                stdout=log,
                stderr=log,
            )
    try:

        def ready() -> bool:
            assert process.poll() is None, (stack.logs / "prometheus.log").read_text()[-2000:]
            service.ready()
            return True

        eventually(ready)
        yield Server(stack, process)
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("host", [None, "localhost", "evil.example", "127.0.0.1.evil.example", ""])
def test_without_the_login_nothing_is_answered_whatever_the_host(server: Server, host: str | None) -> None:
    headers = {} if host is None else {"Host": host}
    port = f":{server.stack.settings.prometheus_port}" if host else ""
    headers = {name: value + port for name, value in headers.items()}
    for path in PATHS:
        for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS"):
            answer = requests.request(method, server.url + path, headers=headers, timeout=10)
            # "": a request without a Host is a broken one.
            assert answer.status_code in ((401,) if host != "" else (400, 401)), f"{method} {path}"
            assert answer.text in ("", "Unauthorized\n", "400 Bad Request: missing required Host header")


@pytest.mark.parametrize("wrong", ["password", "user", "empty", "hash"])
def test_a_wrong_login_is_none(server: Server, wrong: str) -> None:
    user, password = server.login
    (hashed,) = yaml.safe_load((server.folder / "web.yml").read_text())["basic_auth_users"].values()
    login = {
        "password": (user, password[:-1]),
        "user": ("prometheus", password),
        "empty": (user, ""),
        "hash": (user, hashed),
    }[wrong]
    assert requests.get(f"{server.url}/metrics", auth=login, timeout=10).status_code == 401


def test_with_the_login_it_answers_and_tells_no_page_that_it_may_read(server: Server) -> None:
    query = f"{server.url}/api/v1/query?query=up"
    for origin in ("http://evil.example", "null", "http://127.0.0.1"):
        for login, status in ((server.login, 200), (None, 401)):
            answer = requests.get(query, auth=login, headers={"Origin": origin}, timeout=10)
            assert answer.status_code == status
            assert "Access-Control-Allow-Origin" not in answer.headers
    assert requests.post(f"{server.url}/-/quit", auth=server.login, timeout=10).status_code == 403
    assert requests.get(f"{server.url}/classic/alerts", auth=server.login, timeout=10).status_code == 200


def test_it_scrapes_itself_with_the_login(server: Server) -> None:
    def up() -> list[str]:
        answer = requests.get(
            f"{server.url}/api/v1/query",
            params={"query": 'up{job="prometheus"}'},
            auth=server.login,
            timeout=10,
        )
        return [one["value"][1] for one in answer.json()["data"]["result"]]

    assert eventually(up) == ["1"]


def test_its_files_are_what_prometheus_and_promtool_take(server: Server) -> None:
    program = fetch.prometheus(server.stack, "promtool")
    for command in (
        ("web-config", server.folder / "web.yml"),
        ("config", server.folder.parent / "prometheus.yml"),
    ):
        done = subprocess.run([program, "check", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    # For the health check of docker-compose.yaml; Debian's promtool is too old to read it.
    client = yaml.safe_load((server.folder / "promtool.yml").read_text())["basic_auth"]
    assert (client["username"], Path(client["password_file"]).read_text()) == server.login


def test_the_password_is_in_files_of_its_account_alone(server: Server) -> None:
    user, password = server.login
    owner = account(server.stack, "prometheus")
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    assert {path.name for path in server.folder.iterdir()} == {"web.yml", "password", "promtool.yml"}
    for path in (server.folder, *server.folder.iterdir()):
        assert path.stat().st_uid == owner
        assert path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o600
    users = yaml.safe_load((server.folder / "web.yml").read_text())["basic_auth_users"]
    assert list(users) == [user]
    assert users[user].startswith("$2b$10$")
    assert bcrypt.checkpw(password.encode(), users[user].encode())
    # Nowhere else that others may look: its configuration and pages, its command line, environment and log.
    told = [
        (server.folder.parent / "prometheus.yml").read_bytes(),
        Path(f"/proc/{server.process.pid}/cmdline").read_bytes(),
        Path(f"/proc/{server.process.pid}/environ").read_bytes(),
        (server.stack.logs / "prometheus.log").read_bytes(),
        *(
            requests.get(f"{server.url}/api/v1/status/{page}", auth=server.login, timeout=10).content
            for page in ("config", "flags")
        ),
    ]
    assert [text for text in told if password.encode() in text or users[user].encode() in text] == []


@pytest.mark.parametrize("password", ["", "x" * 73, "nul\0"])
def test_a_password_that_cannot_be_hashed_is_named(tmp_path: Path, password: str) -> None:
    with pytest.raises(StackError, match="PROMETHEUS_PASSWORD"):
        write_login(tmp_path / "login", "prometheus", password, os.geteuid())


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def test_a_page_of_another_origin_reads_nothing(server: Server, tmp_path: Path) -> None:
    """In a real browser that has logged in to Prometheus; and by a name that leads to Prometheus itself."""
    query = f"{server.url}/api/v1/query?query=up"
    (tmp_path / "index.html").write_text("<html><body>evil</body></html>")
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as evil, sync_playwright() as playwright:
        threading.Thread(target=evil.serve_forever, daemon=True).start()
        port = urlsplit(server.url).port
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=[
                *("--no-sandbox", "--disable-background-networking"),
                f"--host-resolver-rules=MAP evil.example:80 127.0.0.1:{evil.server_port}, "
                f"MAP rebound.example 127.0.0.1:{port}",
            ],
        )
        user, password = server.login
        context = browser.new_context(
            http_credentials={"username": user, "password": password, "origin": server.url}
        )
        page = context.new_page()
        read = """async ([url, credentials]) => {
            try { return [(await fetch(url, {credentials})).status, ""] }
            catch (error) { return [0, String(error)] }
        }"""
        opened = page.goto(f"{server.url}/classic/alerts")
        assert opened is not None and opened.status == 200
        assert page.evaluate(read, [query, "include"])[0] == 200  # it is logged in
        page.goto("http://evil.example/")
        for credentials in ("include", "omit"):
            assert page.evaluate(read, [query, credentials]) == [0, "TypeError: Failed to fetch"]
        with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):  # it asked for a login
            page.goto("http://rebound.example/api/v1/query?query=up")
        browser.close()
        evil.shutdown()
