"""A run started by hand, as a person does it: the web form in headless Chromium, on the running stack."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect, sync_playwright

pytestmark = pytest.mark.integration

AIRFLOW = f"http://{os.environ.get('AIRFLOW_HOST', '127.0.0.1')}:{os.environ.get('AIRFLOW_PORT', '8080')}"
RUN_SECONDS = 600
# Set by `make test`; empty where no browser could be had.
CHROMIUM = os.environ.get("TALLYHOUSE_CHROMIUM", shutil.which("chromium") or "")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def account() -> dict[str, str]:
    return {"username": os.environ["AIRFLOW_ADMIN_USER"], "password": os.environ["AIRFLOW_ADMIN_PASSWORD"]}


@pytest.fixture(scope="module")
def page(account: dict[str, str]) -> Iterator[Page]:
    """A page that is logged in."""
    assert CHROMIUM, "no Chromium here: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(AIRFLOW)
        page.fill("input[name=username]", account["username"])
        page.fill("input[name=password]", account["password"])
        page.keyboard.press("Enter")
        expect(page.get_by_text("Dags", exact=True).first).to_be_visible(timeout=60_000)
        yield page
        browser.close()


@pytest.fixture
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go; TALLYHOUSE_SHOTS keeps them for looking at."""
    folder = Path(os.environ.get("TALLYHOUSE_SHOTS") or tmp_path_factory.mktemp("shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Api:
    """Airflow's REST API, with a token."""

    def __init__(self, account: dict[str, str]) -> None:
        token = requests.post(f"{AIRFLOW}/auth/token", json=account, timeout=30).json()["access_token"]
        self.headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> Any:
        answer = requests.get(f"{AIRFLOW}/api/v2/{path}", headers=self.headers, timeout=30)
        answer.raise_for_status()
        return answer.json()


def newest_run(api: Api) -> dict[str, Any]:
    runs = api.get("dags/pancake_nightly/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
    return runs[0] if runs else {"dag_run_id": None}


def test_a_run_is_triggered_with_params_from_the_form(
    page: Page, account: dict[str, str], shots: Path
) -> None:
    api = Api(account)
    before = newest_run(api)["dag_run_id"]
    page.goto(f"{AIRFLOW}/dags/pancake_nightly")
    page.get_by_role("button", name="Trigger").first.click()
    expect(page.get_by_text("Tables to take; none chosen takes them all.")).to_be_visible(timeout=60_000)
    form = page.get_by_role("dialog")
    for title in ("Tables", "Full refresh", "Allow deletes"):  # a required field would have an asterisk
        expect(form.get_by_text(title, exact=True)).to_be_visible()
        expect(form.get_by_text(re.compile(rf"{title}\s*\*"))).to_have_count(0)
    form.locator("label[data-scope=switch]").nth(-2).click()  # the one before "Allow deletes"
    page.screenshot(path=shots / "trigger.png")
    page.get_by_role("dialog").get_by_role("button", name="Trigger", exact=True).click()

    deadline = time.monotonic() + RUN_SECONDS
    run = newest_run(api)
    while time.monotonic() < deadline and (
        run["dag_run_id"] == before or run["state"] in ("queued", "running")
    ):
        time.sleep(2)
        run = newest_run(api)
    assert run["dag_run_id"] != before, "the form started no run"
    assert run["state"] == "success", run
    assert run["conf"]["full_refresh"] is True
    path = f"dags/pancake_nightly/dagRuns/{requests.utils.quote(run['dag_run_id'], safe='')}"

    page.goto(f"{AIRFLOW}/{path.replace('dagRuns', 'runs')}")
    expect(page.get_by_text("Success").first).to_be_visible(timeout=60_000)
    page.screenshot(path=shots / "run.png")
    page.goto(f"{AIRFLOW}/{path.replace('dagRuns', 'runs')}/tasks/check/details")
    expect(page.get_by_text("Data Docs", exact=True)).to_be_visible(timeout=60_000)
    page.screenshot(path=shots / "task.png")

    address = api.get(f"{path}/taskInstances/check/links")["extra_links"]["Data Docs"]
    page.goto(address)
    expect(page.locator("body")).to_contain_text(re.compile("pancake", re.IGNORECASE))
    page.screenshot(path=shots / "data_docs.png")

    rendered = str(api.get(f"{path}/taskInstances/check"))
    for secret in (os.environ["MINIO_ROOT_PASSWORD"], os.environ["DWH_PASSWORD"]):
        assert secret not in rendered


def test_the_graph_and_the_docs_of_the_dag_are_readable(page: Page, shots: Path) -> None:
    page.goto(f"{AIRFLOW}/dags/techmarket_nightly")
    expect(page.get_by_text("close_run").first).to_be_visible(timeout=60_000)
    page.screenshot(path=shots / "dag.png")


def test_nothing_is_loaded_from_elsewhere_by_the_data_docs(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"http://{os.environ['DATA_DOCS_HOST']}:{os.environ['DATA_DOCS_PORT']}/")
    page.wait_for_load_state("networkidle")
    assert asked
    assert all(url.startswith(("http://127.0.0.1:", "data:")) for url in asked), asked


def test_what_the_pipelines_publish_are_assets(page: Page, account: dict[str, str], shots: Path) -> None:
    there = {asset["name"] for asset in Api(account).get("assets?limit=100")["assets"]}
    for pipeline in ("techmarket", "pancake"):
        places = ("warehouse/ods", "warehouse/star-schema", "clickhouse/star-schema", "clickhouse/marts")
        assert {f"{pipeline} {place}" for place in places} <= there
    assert "events lake/curated" in there
    page.goto(f"{AIRFLOW}/assets")
    expect(page.get_by_text("techmarket clickhouse/marts").first).to_be_visible(timeout=60_000)
    page.screenshot(path=shots / "assets.png")
