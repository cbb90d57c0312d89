"""The pages: what they say, and, in a real browser, what they do."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.pipeline_info.seed import TABLES, runs
from services.pipeline_info.app import create_app
from services.pipeline_info.backends.jsonl import JsonlPipelineRepository
from services.pipeline_info.flow import flow, lines_of
from services.pipeline_info.models import PipelineInfo
from services.pipeline_info.repository import NewRun
from services.pipeline_info.settings import Settings
from tests.lineage.test_contracts import run_events
from tests.services.pipeline_info.conftest import chromium, client_of, free_port

UNTIL = datetime(2026, 11, 21, 9, tzinfo=UTC)


def line(hop: str, left: object, right: object, table: str = "t", **parts: object) -> dict:
    return {"table": table, "hop": hop, "measure": "rows", "left": left, "right": right, "parts": parts}


def links(ledger: object, table: str | None = None) -> dict[tuple[str, str], tuple[int, list[str]]]:
    found = flow(lines_of({"ledger": ledger}), table).links
    return {(link["source"], link["target"]): (link["value"], link["broken"]) for link in found}


def test_a_ledger_that_closes_as_a_flow():
    ledger = [
        line("source=raw", 100, "100"),
        line("raw=accepted", 100, 100, accepted=90, quarantined=7, superseded="3"),
        line("accepted=ods", 90, 90, inserted=90),
        line("source=raw", 5, 5, table="u"),
        {"table": "t", "hop": "source=raw", "measure": "line_total UAH", "left": "9.5", "right": "9.5"},
    ]
    assert links(ledger) == {
        ("source", "raw"): (105, []),
        ("raw", "accepted"): (90, []),
        ("raw", "quarantined"): (7, []),
        ("raw", "superseded"): (3, []),
        ("accepted", "ods"): (90, []),
        ("raw", "went no further"): (5, []),
    }
    assert links(ledger, "u") == {("source", "raw"): (5, [])}


def test_a_hop_that_does_not_close_is_told():
    assert links([line("source=raw", 10, 8)]) == {
        ("source", "raw"): (8, ["t"]),
        ("source", "lost"): (2, ["t"]),
    }
    assert links([line("raw=accepted", 10, 11, accepted=9, quarantined=2)]) == {
        ("raw", "accepted"): (8, ["t"]),
        ("raw", "quarantined"): (2, []),
        ("from nowhere", "accepted"): (1, ["t"]),
    }


@pytest.mark.parametrize(
    "ledger",
    [
        None,
        5,
        {"closed": True},
        ["x"],
        [{}],
        [line("source=raw", None, 1)],
        [line("source=raw", "NaN", 1)],
        [line("?", 1, 1)],
        [line("source=raw", 1, 1) | {"parts": 7}],
        [line("source=raw", True, 1)],
        [line("source=raw", [1], 1)],
    ],
)
def test_a_ledger_of_another_form_is_left_out(ledger, client: TestClient):
    assert links(ledger) == {}
    body = {"start_utc": "2026-01-02T00:00:00Z", "extra": {"ledger": ledger}}
    run = client.post("/pipelines", json=body).json()
    assert client.get(f"/run/{run['id']}").status_code == 200


def test_what_is_posted_does_not_run_in_the_page(client: TestClient):
    bad = "</script><script>alert(1)</script>"
    body = {
        "start_utc": "2026-01-02T00:00:00Z",
        "pipeline_name": bad,
        "log_file": "javascript:alert(1)",
        "extra": {
            "state": bad,
            "links": {bad: "https://example.org/?a=1&b=2", "x": "javascript:alert(1)", "y": 5},
            "ledger": [line("source=raw", 1, 1, table=bad)],
        },
    }
    run = client.post("/pipelines", json=body).json()
    for path in ("/", f"/run/{run['id']}", f"/?q={bad}", f"/?pipeline_name={bad}", f"/lineage?node={bad}"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text
        assert 'href="javascript' not in answer.text
        assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "https://example.org/?a=1&amp;b=2" in client.get(f"/run/{run['id']}").text


def test_filters_of_the_page(client: TestClient):
    for day, name in ((1, "alpha"), (2, "beta"), (3, "alpha")):
        body = {"start_utc": f"2026-01-0{day}T00:00:00Z", "pipeline_name": name}
        client.post("/pipelines", json=body)

    def shown(query: str) -> int:
        return client.get(f"/{query}").text.count('class="run"')

    assert [shown(q) for q in ("", "?q=ALP", "?q=nothing", "?pipeline_name=beta")] == [3, 2, 0, 1]
    assert [shown(q) for q in ("?from=2026-01-02", "?to=2026-01-02", "?from=2026-01-02&to=2026-01-02")] == [
        *(2, 2, 1),
    ]
    odd = client.get("/?from=tomorrow")
    assert odd.status_code == 200
    assert "cannot be used" in odd.text
    assert client.get("/run/none").status_code == 404
    assert client.get("/rows?cursor=none").status_code == 400


def test_pages_ask_a_browser_for_a_password(repository):
    client = client_of(create_app(Settings(auth="on"), repository))
    answer = client.get("/")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service in a process of its own, with 900 runs."""
    file = tmp_path_factory.mktemp("site") / "runs.jsonl"
    store = JsonlPipelineRepository(file)
    store.insert_many([NewRun(run) for run in runs(900, until=UNTIL, days=12)])
    store.close()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "services.pipeline_info.app:app"),
            *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
        ],
        cwd=Path(__file__).parents[3],
        env={"PATH": "/usr/bin:/bin", "PIPELINE_INFO_FILE": str(file), "PIPELINE_INFO_LOG_LEVEL": "ERROR"},
    )
    for _ in range(200):
        assert process.poll() is None
        try:
            httpx.get(f"{url}/health", timeout=2)
            break
        except httpx.HTTPError:
            time.sleep(0.1)
    for event in run_events("pancake"):
        headers = {"Content-Type": "application/json"}
        answer = httpx.post(f"{url}/api/v1/lineage", content=event, headers=headers)
        assert answer.status_code == 201
    yield url
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, site: str) -> Iterator[Page]:
    """A page that fails the test when it meets an error or asks for anything from elsewhere."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme="light")
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((site, "data:")) else wrong.append(r.url))
    yield page
    page.close()
    assert wrong == []


def shot(page: Page, name: str) -> None:
    """Keep a picture, where PIPELINE_INFO_SCREENSHOTS says."""
    if folder := os.environ.get("PIPELINE_INFO_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_the_first_page_in_a_browser(page: Page, site: str):
    page.goto(site)
    expect(page.locator("#timeline canvas").first).to_be_visible()
    expect(page.locator("a.run")).to_have_count(50)
    assert page.locator("svg.spark").count() > 10
    # Every run has its bar, the first and the last one too.
    assert page.evaluate(
        """() => echarts.getInstanceByDom(document.getElementById("timeline")).getZr().storage
            .getDisplayList(true).filter((one) => one.type === "rect" && one.shape.r === 2).length"""
    ) == len(page.evaluate("JSON.parse(document.getElementById('timeline-data').textContent)"))
    shot(page, "runs")
    # The filter works without loading the page, and is in the address bar.
    page.evaluate("window.stayed = true")
    page.select_option("select[name=pipeline_name]", "pancake_nightly")
    expect(page).to_have_url(re.compile("pipeline_name=pancake_nightly"))
    expect(page.locator("#runs tbody tr td:nth-child(2)").first).to_have_text("pancake_nightly")
    assert set(page.locator("#runs tbody tr:not(.more) td:nth-child(2)").all_inner_texts()) == {
        "pancake_nightly"
    }
    assert page.evaluate("window.stayed") is True
    expect(page.locator("#timeline canvas").first).to_be_visible()
    page.go_back()
    expect(page.locator("#runs tbody tr td:nth-child(2)").first).not_to_have_text("pancake_nightly")


def test_older_runs_follow_in_place(page: Page, site: str):
    page.goto(site)
    page.get_by_role("button", name="Older runs").click()
    expect(page.locator("a.run")).to_have_count(100)
    shown = page.locator("a.run").evaluate_all("all => all.map(one => one.href)")
    assert len(set(shown)) == 100


def test_the_keyboard(page: Page, site: str):
    page.goto(site)
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("events")
    expect(page).to_have_url(f"{site}/?q=events")
    expect(page.locator("#runs tbody tr td:nth-child(2)").first).to_have_text("events_hourly")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(page.locator("a.run").first).to_be_focused()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/run/"))
    page.keyboard.press("h")
    page.wait_for_url(f"{site}/")


def test_dark_and_light(page: Page, site: str):
    page.goto(site)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.keyboard.press("t")
    dark = page.evaluate(ground)
    assert light != dark
    page.reload()
    assert page.evaluate(ground) == dark
    page.emulate_media(color_scheme="dark")
    page.evaluate("localStorage.removeItem('theme')")
    page.reload()
    assert page.evaluate(ground) == dark
    shot(page, "runs-dark")


def test_a_run_whose_ledger_does_not_close(page: Page, site: str):
    query = {"pipeline_name": "techmarket_nightly", "state": "failed", "limit": 1}
    run = httpx.get(f"{site}/get_pipeline_info", params=query).json()["items"][0]
    page.goto(f"{site}/run/{run['id']}")
    expect(page.locator("#flow canvas").first).to_be_visible()
    expect(page.get_by_text("1 equation does not close")).to_be_visible()
    broken = page.locator("tr.broken")
    expect(broken).to_have_count(1)
    expect(broken.locator("td").first).to_have_text("orders.order_items")
    expect(broken.locator("td").last).to_have_text("-7")
    shot(page, "run")
    page.select_option("select[name=table]", TABLES[0])
    page.wait_for_url(re.compile("table=auth.users"))
    expect(page.locator("tr.broken")).to_have_count(0)


def test_lineage_in_a_browser(page: Page, site: str):
    page.goto(f"{site}/lineage")
    expect(page.locator("#graph canvas").first).to_be_visible()
    page.get_by_role("link", name="dataset:clickhouse://c:8123:dwh.mart_pancake_quality").click()
    page.wait_for_url(re.compile("node="))
    expect(page.locator("#graph canvas").first).to_be_visible()
    columns = page.get_by_role("region", name="Columns").locator("tbody tr")
    expect(columns.filter(has_text="total_magical_factor")).to_contain_text("magical_factor")
    shot(page, "lineage")
    columns.get_by_role("link", name="dwh.fact_pancake_rating").first.click()
    page.wait_for_url(re.compile("fact_pancake_rating"))
    expect(page.get_by_text("mart_pancake_quality").first).to_be_visible()


def test_the_interface_loads_nothing_from_elsewhere(page: Page, site: str):
    page.goto(f"{site}/docs")
    expect(page.get_by_text("/get_pipeline_info").first).to_be_visible()


CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_text_can_be_read_and_no_page_is_wider_than_the_screen(
    browser, site: str, scheme: str, width: int
):
    failure = {"task": "check", "message": "m" * 300, "sample": ["s"], "remedy": "r", "table": "t" * 200}
    for state in ("success", "failed", "running", "queued"):
        run = {"start_utc": "2026-11-21T08:00:00Z", "pipeline_name": "p", "pipeline_type": "etl"}
        extra = {"state": state, "ledger": [line("accepted=ods", 5, 5), line("ods=model", 9, 8)]}
        posted = httpx.post(f"{site}/pipelines", json=run | {"extra": extra | {"failure": failure}}).json()
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    paths = (
        "/",
        "/?from=x",
        f"/run/{posted['id']}",
        "/lineage",
        "/lineage?node=pancake",
        "/lineage?node=mart",
    )
    for path in (*paths, "/run/none"):
        page.goto(f"{site}{path}")
        assert page.evaluate(CONTRAST) == [], path
        page.locator("tbody tr").first.hover() if page.locator("tbody tr").count() else None
        assert page.evaluate(CONTRAST) == [], path
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), path
    states = page.goto(site) and set(page.locator(".state").all_inner_texts())
    assert {"success", "failed", "running", "queued"} <= (states or set())
    shot(page, f"all-{scheme}-{width}")
    page.close()


def test_without_scripts_the_page_still_works(browser, site: str):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/?pipeline_name=pancake_nightly")
    assert set(page.locator("#runs tbody tr:not(.more) td:nth-child(2)").all_inner_texts()) == {
        "pancake_nightly"
    }
    context.close()


def test_seeded_runs_are_the_same_each_time():
    first, again = (list(runs(50, until=UNTIL, days=2)) for _ in range(2))
    assert first == again
    assert all(isinstance(run, PipelineInfo) for run in first)
