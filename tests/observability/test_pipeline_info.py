"""The dashboard and the alert rules name metrics that the service has; promtool runs the rules' tests."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient

from scripts.stack.context import Stack
from scripts.stack.fetch import prometheus
from services.pipeline_info.app import create_app
from services.pipeline_info.settings import Settings

FOLDER = Path(__file__).parents[2] / "observability"


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the service's metrics, as Prometheus knows them."""
    file = tmp_path_factory.mktemp("metrics") / "runs.jsonl"
    client = TestClient(create_app(Settings(backend="jsonl", file=file)), base_url="http://127.0.0.1:8002")
    client.get("/get_pipeline_info")
    client.get("/nowhere")
    text = client.get("/metrics").text
    names = set(re.findall(r"^(\w+)(?:\{| )", text, re.MULTILINE)) - {"#"}
    return names | set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)) | {"up"}


def names_in(expression: str) -> set[str]:
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\"[^\"]*\"|(by|on) \([^)]*\)", " ", expression)
    words = set(re.findall(r"[a-z_]{2,}(?!\w*\()", bare))
    functions = {
        *("sum", "rate", "increase", "min", "max", "time", "vector", "histogram_quantile"),
        *("and", "or", "by", "on"),
    }
    return {word for word in words if word not in functions}


def test_the_dashboard_asks_for_metrics_that_there_are(metrics: set[str]):
    dashboard = json.loads((FOLDER / "grafana" / "pipeline_info.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 10
    for expression in expressions:
        assert names_in(expression) <= metrics, expression
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(places) == len(set(places))


def test_the_rules_ask_for_metrics_that_there_are_and_say_what_to_do(metrics: set[str]):
    groups = yaml.safe_load((FOLDER / "alerts" / "pipeline_info.yml").read_text())["groups"]
    for rule in groups[0]["rules"]:
        assert names_in(rule["expr"]) <= metrics, rule["alert"]
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["remedy"]


def test_the_rules_warn_when_they_should():
    promtool = prometheus(Stack(), "promtool")
    assert promtool.exists(), "no promtool: 'make setup' brings it, or install prometheus"
    for arguments in (
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "alerts/pipeline_info_test.yml"),
    ):
        done = subprocess.run([promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
