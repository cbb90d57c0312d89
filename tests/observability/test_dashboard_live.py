"""Every query of the dashboard, asked of a real Prometheus that scrapes the real service."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from scripts.stack.context import Stack
from scripts.stack.fetch import prometheus as fetched_prometheus
from tests.services.pipeline_info.conftest import Postgres, free_port

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "observability"


def answering(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, f"{process.args} ended"
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus with our configuration, only quicker, over a service that was used a little."""
    program = fetched_prometheus(Stack())
    assert program.exists(), "no prometheus: 'make setup' brings it, or install it"
    folder = tmp_path_factory.mktemp("prometheus")
    ports = free_port(), free_port()
    service_url, url = (f"http://127.0.0.1:{port}" for port in ports)
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FOLDER / "alerts" / "pipeline_info.yml")]
    (job,) = [found for found in config["scrape_configs"] if found["job_name"] == "pipeline-info"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[0]}"]}]
    config["scrape_configs"] = [job]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with tempfile.TemporaryDirectory(prefix="dashboard-pg-") as data:
        Path(data).chmod(0o755)
        server = Postgres(Path(data))
        server.start()
        environment = {"PIPELINE_INFO_BACKEND": "postgres", "PIPELINE_INFO_DSN": server.new_database()}
        processes = [
            subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stderr=subprocess.DEVNULL)
            for command in (
                [
                    *(sys.executable, "-m", "uvicorn", "services.pipeline_info.app:app"),
                    *("--host", "127.0.0.1", "--port", str(ports[0])),
                ],
                [
                    *(program, f"--config.file={folder / 'prometheus.yml'}"),
                    *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{ports[1]}"),
                ],
            )
        ]
        try:
            answering(f"{service_url}/ready", processes[0])
            answering(f"{url}/-/ready", processes[1])
            deadline = time.monotonic() + 8
            while time.monotonic() < deadline:
                httpx.post(f"{service_url}/pipelines", json={"start_utc": "2026-01-02T00:00:00Z"})
                httpx.get(f"{service_url}/get_pipeline_info")
                httpx.get(f"{service_url}/get_pipeline_info/none")
                time.sleep(0.3)
            yield url
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(20)
            server.stop()


def ask(url: str, query: str) -> list[Any]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", answer
    found: list[Any] = answer["data"]["result"]
    return found


def panels() -> list[Any]:
    dashboard = json.loads((FOLDER / "grafana" / "pipeline_info.json").read_text())
    return [
        pytest.param(target["expr"], id=f"{panel['title']} {number}")
        for panel in dashboard["panels"]
        for number, target in enumerate(panel["targets"], 1)
    ]


@pytest.mark.parametrize("expression", panels())
def test_a_panel_shows_something_while_all_is_well(prometheus: str, expression: str) -> None:
    found = ask(prometheus, expression.replace("$job", "pipeline-info"))
    assert found
    assert any(sample["value"][1] != "NaN" for sample in found)


def test_the_jobs_to_choose_from_are_those_that_there_are(prometheus: str) -> None:
    assert {sample["metric"]["job"] for sample in ask(prometheus, "runs_inserted_total")} == {"pipeline-info"}


def test_no_rule_fails_to_evaluate_and_none_warns_of_a_service_that_is_well(prometheus: str) -> None:
    groups = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(
        yaml.safe_load((FOLDER / "alerts/pipeline_info.yml").read_text())["groups"][0]["rules"]
    )
    assert {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in rules} == {
        rule["name"]: ("ok", "") for rule in rules
    }
    assert {rule["name"] for rule in rules if rule["state"] != "inactive"} == set()
