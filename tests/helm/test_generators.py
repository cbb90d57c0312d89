"""The generators of charts: what they make is linted, rendered and judged; what they refuse is said."""

import subprocess
from pathlib import Path

import pytest
import yaml

from scripts import charts

SERVICE = ("new-service-chart.sh", "greeter")
JOB = ("new-job-chart.sh", "sweep", "--type", "job")
CRONJOB = ("new-job-chart.sh", "tidy", "--type", "cronjob", "--schedule", "15 3 * * 0")


def generate(root: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "scripts" / script, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        (SERVICE, {"Deployment", "Service", "ServiceAccount", "ConfigMap", "NetworkPolicy"}),
        (JOB, {"Job", "ServiceAccount", "NetworkPolicy"}),
        (CRONJOB, {"CronJob", "ServiceAccount", "NetworkPolicy"}),
    ],
    ids=["service", "job", "cronjob"],
)
def test_a_generated_chart_is_right_in_every_environment(
    scratch: Path, command: tuple[str, ...], kinds: set[str]
) -> None:
    made = generate(scratch, *command)
    assert made.returncode == 0, made.stderr
    name = command[1]
    chart = scratch / "infrastructure/helm/charts" / name
    charts.run(charts.helm(), "dependency", "update", "--skip-refresh", str(chart))
    for environment in charts.ENVIRONMENTS:
        values = (charts.HELM / f"environments/{environment}.yaml", chart / f"values-{environment}.yaml")
        assert values[1].exists()
        release = charts.Release(name, "tallyhouse", chart, values, ())
        charts.lint(release)
        manifests = charts.template(release)
        found = {doc["kind"] for doc in yaml.safe_load_all(manifests) if doc}
        assert kinds <= found
        charts.conforms(manifests)
        charts.policy(manifests)
    if "cronjob" in command:
        assert '"15 3 * * 0"' in manifests


def test_a_generated_chart_is_one_of_the_releases(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [release.name for release in charts.releases("local")]
    generate(scratch, *SERVICE)
    monkeypatch.setattr(charts, "HELMFILE", scratch / "infrastructure/helm/helmfile.yaml.gotmpl")
    after = {release.name: release for release in charts.releases("local")}
    assert set(after) == {*before, "greeter"}
    assert after["greeter"].needs == ("platform",)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("new-service-chart.sh", "Greeter"), "Greeter: not a name"),
        (("new-service-chart.sh", "../greeter"), "not a name"),
        (("new-service-chart.sh", "greeter", "--port", "80"), "--port 80: not a port from 1024"),
        (("new-service-chart.sh", "greeter", "--size", "3"), "--size: no such option"),
        (("new-service-chart.sh", "one", "two"), "two: one name only"),
        (("new-service-chart.sh", "pancake"), "is there already"),
        (("new-job-chart.sh", "tidy"), "--type is missing: it is job"),
        (("new-job-chart.sh", "tidy", "--type", "service"), "--type service: it is job"),
        (("new-job-chart.sh", "tidy", "--type", "cronjob", "--schedule", "at two"), "not five fields"),
    ],
)
def test_a_wrong_call_says_what_is_wrong_and_makes_nothing(
    scratch: Path, command: tuple[str, ...], said: str
) -> None:
    folder = scratch / "infrastructure/helm/charts"
    before = sorted(folder.iterdir())
    refused = generate(scratch, *command)
    assert refused.returncode != 0
    assert said in refused.stderr
    assert "unbound" not in refused.stderr
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("script", ["new-service-chart.sh", "new-job-chart.sh"])
def test_without_a_name_it_shows_how_it_is_called(scratch: Path, script: str) -> None:
    shown = generate(scratch, script)
    assert shown.returncode == 2
    assert f"scripts/{script} NAME" in shown.stdout
