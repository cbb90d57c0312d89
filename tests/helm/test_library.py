"""The library charts, template by template: golden files, schemas, and a change of every condition.

UPDATE_GOLDEN=1 writes the golden files anew; read the difference before it is committed.
"""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from scripts import charts
from scripts.tools import helm

HERE = Path(__file__).parent
# The ones that say most come first: most changes show there.
CASES = ("everything", "jobs", "defaults", "statefulset", "plain", "scaled-set")


def rendered(sample: Path, case: str) -> str:
    """What Helm prints for a case; as text, so that golden files hold what people read."""
    command = [helm(), "template", "demo", str(sample), "--namespace", "shop", "--kube-version", "1.34.0"]
    done = subprocess.run(
        [*command, "--values", str(HERE / f"cases/{case}.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return re.sub(r"checksum/config: [0-9a-f]{64}", "checksum/config: (a digest)", done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_a_case_is_rendered_as_its_golden_file_has_it(sample: Path, case: str) -> None:
    golden = HERE / f"golden/{case}.yaml"
    found = rendered(sample, case)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(found)
    assert found == golden.read_text()


@pytest.mark.parametrize("case", CASES)
def test_a_case_conforms_to_the_schemas_of_kubernetes_and_of_the_operators(sample: Path, case: str) -> None:
    charts.conforms(rendered(sample, case))


def test_cases_use_every_template_of_the_libraries() -> None:
    named = {
        name
        for file in charts.LIBRARIES.glob("*/templates/*")
        for name in re.findall(r'\{\{- define "([\w.]+)"', file.read_text())
    }
    used = {
        name
        for file in charts.LIBRARIES.glob("*/templates/*")
        for name in re.findall(r'"((?:common|service|job)\.[\w.]+)"', file.read_text().replace("define ", ""))
    }
    manifests = {"service.manifest", "job.manifest"}
    assert named - manifests <= used


CONDITION = re.compile(r"\{\{-? (?:else )?if (?P<condition>.+?) -?\}\}")


def conditions() -> list[tuple[Path, int, int, str]]:
    """Every condition of the libraries: its file, where it stands there, and its text."""
    return [
        (file, *match.span("condition"), match["condition"])
        for file in sorted(charts.LIBRARIES.glob("*/templates/*"))
        for match in CONDITION.finditer(file.read_text())
    ]


def test_every_condition_matters_to_a_golden_file(sample: Path, tmp_path: Path) -> None:
    """Each `if` is turned round in turn: a golden file, or an error, has to tell."""
    plain = tmp_path / "plain"
    shutil.copytree(sample, plain, ignore=shutil.ignore_patterns("*.tgz", ".digest"))
    for name in ("service", "job"):
        library = plain / "charts" / name
        shutil.copytree(charts.LIBRARIES / name, library, ignore=shutil.ignore_patterns("charts"))
        shutil.copytree(charts.LIBRARIES / "common", library / "charts/common")
    expected = {case: rendered(plain, case) for case in CASES}
    assert expected == {case: rendered(sample, case) for case in CASES}

    def unnoticed(number: int, file: Path, start: int, end: int, condition: str) -> str | None:
        chart = tmp_path / str(number)
        shutil.copytree(plain, chart)
        text = file.read_text()
        changed = f"{text[:start]}not ({condition}){text[end:]}"
        relative = file.relative_to(charts.LIBRARIES)
        places = [chart / "charts" / relative] if relative.parts[0] != "common" else []
        places = places or [
            chart / "charts" / library / "charts" / relative for library in ("service", "job")
        ]
        for place in places:
            place.write_text(changed)
        try:
            for case, before in expected.items():
                if rendered(chart, case) != before:
                    return None
        except AssertionError:
            return None
        finally:
            shutil.rmtree(chart)
        return f"{relative}: {condition}"

    with ThreadPoolExecutor(2) as pool:
        left = [
            said for said in pool.map(lambda job: unnoticed(job[0], *job[1]), enumerate(conditions())) if said
        ]
    assert len(conditions()) > 60
    assert left == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("service: {enabled: true, replica: 2}", "replica"),
        ("service: {enabled: true, kind: DaemonSet}", "kind"),
        ("service: {enabled: true, ports: {http: 70000}}", "ports"),
        ("service: {enabled: true, service: {ports: {http: {nodePort: 80}}}}", "nodePort"),
        ("service: {enabled: true, env: {A: {secrte: x}}}", "env"),
        ("service: {enabled: true, persistence: {data: {size: 1Gi}}}", "mountPath"),
        ("service: {enabled: true, writable: {tmp: 1Mi}}", "tmp"),
        ("service: {enabled: true, image: {digest: sha256:short}}", "digest"),
        ("service: {enabled: true, resources: {limits: {memory: much}}}", "memory"),
        ("job: {enabled: true, type: once}", "type"),
        ("nightly: {enabled: true, schedule: at two}", "schedule"),
        ("nightly: {enabled: true, concurrencyPolicy: Maybe}", "concurrencyPolicy"),
        ("nightly: {enabled: true, replicas: 2}", "replicas"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(sample: Path, tmp_path: Path, values: str, said: str) -> None:
    refused(sample, tmp_path, values, said)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("service: {enabled: true, image: {repository: ''}}", "service.image.repository: not set"),
        ("service: {enabled: true, env: {A: {key: x}}}", "env.A: neither a text nor"),
        ("service: {enabled: true, files: {/a: {file: files/none.sql}}}", "no file files/none.sql"),
        ("service: {enabled: true, ingress: {enabled: true}}", "service.ingress.hosts: empty"),
        ("service: {enabled: true, prometheusRule: {enabled: true}}", "prometheusRule.groups: empty"),
        ("service: {enabled: true, externalSecret: {enabled: true}}", "externalSecret.store.name: not set"),
    ],
)
def test_what_is_missing_is_said_in_words(sample: Path, tmp_path: Path, values: str, said: str) -> None:
    refused(sample, tmp_path, values, said)


def refused(sample: Path, tmp_path: Path, values: str, said: str) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(values)
    done = subprocess.run(
        [helm(), "template", "demo", str(sample), "--values", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert said in done.stderr


def test_the_libraries_share_what_a_pod_may_be_told() -> None:
    assert {file: file.read_text() for file in charts.libraries()} == charts.libraries()


def test_a_generated_password_is_not_in_the_chart_and_differs_each_time(sample: Path, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("service: {enabled: true, secret: {generate: [PASSWORD], data: {USER: me}}}")

    def secret() -> dict[str, str]:
        text = subprocess.run(
            [helm(), "template", "demo", str(sample), "--values", str(file)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = next(doc for doc in yaml.safe_load_all(text) if doc and doc["kind"] == "Secret")
        assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        return dict(found["data"])

    one, other = secret(), secret()
    assert one["USER"] == other["USER"] == "bWU="
    assert one["PASSWORD"] != other["PASSWORD"]
    assert len(one["PASSWORD"]) == 44  # 32 characters
