"""A real Prometheus scrapes the running services, and every query of panel and rule finds data in it."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
import yaml

from scripts.stack.context import Stack
from scripts.stack.fetch import prometheus
from scripts.stack.watch import targets, write_config
from tallyhouse.settings import Settings

FOLDER = Path(__file__).parents[2] / "observability"
DASHBOARDS = sorted((FOLDER / "grafana").glob("*.json"))
RULES = [
    rule
    for file in ("alerts.yml", "alerts/pipeline_info.yml")
    for group in yaml.safe_load((FOLDER / file).read_text())["groups"]
    for rule in group["rules"]
]
NAMES = {
    "fastapi_request_duration_seconds",
    "fastapi_error_total",
    "wotr_ingest_total",
    *("postgres_status", "clickhouse_status", "kafka_status", "minio_status"),
}
"""The metrics that the platform's document names."""


def panels(file: Path) -> list[tuple[str, str]]:
    """Title and query of every target of a dashboard, its job filled in."""
    found = json.loads(file.read_text())
    return [
        (panel["title"], target["expr"].replace("$job", "pipeline-info").replace("$__rate_interval", "5m"))
        for panel in found["panels"]
        for target in panel["targets"]
    ]


def promtool(*arguments: str) -> None:
    program = prometheus(Stack(), "promtool")
    assert program.exists(), "no promtool: 'make setup' brings it, or install prometheus"
    done = subprocess.run([program, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_rules_and_warn_when_they_should() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "alerts.yml")
    promtool("test", "rules", "alerts_test.yml")


def test_every_warning_is_tested_both_ways() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", ())]
    alerts = {
        rule["alert"]
        for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts


def test_every_warning_says_what_to_do() -> None:
    for rule in RULES:
        if "alert" in rule:
            assert rule["annotations"]["summary"] and rule["annotations"]["remedy"], rule["alert"]


def test_the_documents_dashboards_are_there_and_draw_its_metrics() -> None:
    names = {file.stem for file in DASHBOARDS}
    assert names >= {"wotr_fastapi_dashboard", "fastapi_system_health", "service_health_dashboard"}
    drawn = " ".join(query for file in DASHBOARDS for _, query in panels(file))
    assert {name for name in NAMES if name not in drawn} == set()


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_has_a_place_for_each_panel(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    taken = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken)), "two panels overlap"
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_natively_the_same_jobs_are_scraped_at_their_own_addresses(
    tmp_path: Path, settings: Settings
) -> None:
    stack = Stack(settings)
    write_config(stack, tmp_path / "prometheus.yml")
    committed = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    native = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    jobs = [job["job_name"] for job in committed["scrape_configs"]]
    assert jobs == [job["job_name"] for job in native["scrape_configs"]]
    assert set(jobs) == set(targets(settings))
    for job in native["scrape_configs"]:
        assert all(target.startswith("127.0.0.1:") for target in job["static_configs"][0]["targets"])


# -- on the running stack -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def a_run() -> Iterator[None]:
    """A published run, so that the metrics of runs have one to show; gone afterwards."""
    with psycopg.connect(
        host=os.environ["POSTGRES_HOST"],
        port=os.environ["POSTGRES_PORT"],
        dbname=os.environ["DWH_DB"],
        user=os.environ["DWH_USER"],
        password=os.environ["DWH_PASSWORD"],
        autocommit=True,
    ) as connection:
        connection.execute(
            "INSERT INTO etl.run (run_id, pipeline, tables, dag_id, dag_run_id, status, published_at) "
            "VALUES ('watched-1', 'watched', '{}', 'watched', 'x', 'published', now())"
        )
        connection.execute(
            "INSERT INTO etl.ledger (run_id, pipeline, table_name, hop, measure, left_value, right_value) "
            "VALUES ('watched-1', 'watched', 't', 'source=raw', 'rows', 5, 5)"
        )
        try:
            yield
        finally:
            connection.execute("DELETE FROM etl.ledger WHERE run_id = 'watched-1'")
            connection.execute("DELETE FROM etl.run WHERE run_id = 'watched-1'")


@pytest.fixture(scope="module")
def traffic(settings: Settings, a_run: None) -> None:
    """What a busy minute looks like: events, refusals, pancakes, runs."""
    ingest, pipeline = settings.ingest_url, settings.pipeline_info_url
    run = {
        "pipeline_name": "watched",
        "pipeline_type": "etl",
        "environment": "test",
        "date_code": "20260102",
        "start_utc": "2026-01-02T00:00:00+00:00",
        "end_utc": "2026-01-02T00:01:00+00:00",
        "start_local": "2026-01-02T02:00:00+02:00",
        "end_local": "2026-01-02T02:01:00+02:00",
        "elapsed_seconds": 60.0,
    }
    deadline = time.monotonic() + 40  # longer than two scrapes
    while time.monotonic() < deadline:
        for number in range(5):
            answer = requests.post(f"{ingest}/ingest", json={"payload": {"number": number}}, timeout=10)
            assert answer.status_code in (200, 201, 202), answer.text
        assert requests.post(f"{ingest}/ingest", json={"payload": 1}, timeout=10).status_code == 422
        assert requests.get(f"{settings.pancake_url}/api/pancakes", timeout=10).ok
        requests.post(f"{pipeline}/pipelines", json=run, timeout=10)
        requests.get(f"{pipeline}/get_pipeline_info", timeout=10)
        requests.get(f"{pipeline}/get_pipeline_info", params={"limit": "x"}, timeout=10)
        time.sleep(1)


def get(settings: Settings, path: str, **params: str) -> requests.Response:
    login = (settings.prometheus_user, settings.prometheus_password)
    return requests.get(f"{settings.prometheus_url}{path}", params=params, auth=login, timeout=30)


def ask(settings: Settings, query: str) -> list[dict[str, Any]]:
    answer = get(settings, "/api/v1/query", query=query)
    assert answer.ok, f"{query}: {answer.text}"
    return list(answer.json()["data"]["result"])


def finds(settings: Settings, query: str, seconds: float = 45) -> list[dict[str, Any]]:
    """Asks until there is data: a scrape and a recording rule come every 15 s."""
    deadline = time.monotonic() + seconds
    while not (found := ask(settings, query)) and time.monotonic() < deadline:
        time.sleep(2)
    return [one for one in found if one["value"][1] != "NaN"] or found


@pytest.mark.integration
def test_every_job_is_up(settings: Settings, traffic: None) -> None:
    up = {one["metric"]["job"]: one["value"][1] for one in finds(settings, "up")}
    assert up == dict.fromkeys(targets(settings), "1")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("title", "query"),
    [pytest.param(*panel, id=f"{file.stem}: {panel[0]}") for file in DASHBOARDS for panel in panels(file)],
)
def test_a_panel_finds_data(settings: Settings, traffic: None, title: str, query: str) -> None:
    assert finds(settings, query), f"{title}: nothing for {query}"


@pytest.mark.integration
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_finds_what_it_compares(settings: Settings, traffic: None, rule: dict[str, Any]) -> None:
    # What is compared, without the comparison: it has data whether there is cause to warn or not.
    compared = re.split(r"\s(?:==|!=|>=|<=|>|<)\s[\d.*\s]+(?:$|\n|\s+and )", rule["expr"])[0]
    assert finds(settings, compared), f"nothing for {compared}"


@pytest.mark.integration
def test_what_ingest_counts_is_what_prometheus_has(settings: Settings, traffic: None) -> None:
    assert all(ask(settings, name) or ask(settings, f"{name}_count") for name in NAMES)
    assert ask(settings, 'pipeline_rows_taken{pipeline="watched"}')[0]["value"][1] == "5"
    assert ask(settings, 'pipeline_ledger_open_lines{pipeline="watched"}')[0]["value"][1] == "0"


@pytest.mark.integration
def test_prometheus_lets_nobody_in_without_its_login(settings: Settings) -> None:
    for host in ("evil.example", "127.0.0.1"):
        answer = requests.get(f"{settings.prometheus_url}/metrics", headers={"Host": host}, timeout=30)
        assert answer.status_code == 401, host


@pytest.mark.integration
def test_the_pages_of_prometheus_show_the_alerts(settings: Settings) -> None:
    """Its scripts and styles too: Debian's program looks for them in the system's folders."""
    page = get(settings, "/classic/alerts")
    assert page.status_code == 200
    assert {rule["alert"] for rule in RULES if "alert" in rule} <= set(re.findall(r"\w+", page.text))
    parts = re.findall(r'(?:src|href)="(/classic/static/[^"]+)"', page.text)
    assert len(parts) > 5
    for part in parts:
        assert get(settings, part).status_code == 200, part
    assert get(settings, "/graph").status_code == 200
