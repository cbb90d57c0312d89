"""local-env: its files agree with the charts, and its scripts call what they should, in the right order.

kind's node image cannot be pulled everywhere, so programs stand in kind's, kubectl's and docker's place and
write down how they were called.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts import charts
from scripts.tools import versions

LOCAL_ENV = charts.ROOT / "infrastructure/local-env"


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A copy of local-env among programs that write down their arguments; and its environment."""
    root = tmp_path / "repository"
    shutil.copytree(LOCAL_ENV, root / "infrastructure/local-env", ignore=shutil.ignore_patterns(".bin"))
    shutil.copytree(charts.ROOT / "infrastructure/config", root / "infrastructure/config")
    for service in ("pancake", "kaggle_data_api"):
        (root / "services" / service).mkdir(parents=True)
        (root / "services" / service / "Dockerfile").touch()
    log, programs = tmp_path / "calls", tmp_path / "bin"
    programs.mkdir()
    (root / ".venv/bin").mkdir(parents=True)
    for place in (*(programs / name for name in ("kind", "kubectl", "docker")), root / ".venv/bin/python"):
        place.write_text(f'#!/bin/bash\necho "${{0##*/}} $*" >> {log}\n[ -t 0 ] || cat > /dev/null\n')
        place.chmod(0o755)
    log.touch()
    return root, {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(log)}


def calls(recorded: tuple[Path, dict[str, str]], script: str) -> list[str]:
    root, environment = recorded
    done = subprocess.run(
        ["bash", root / "infrastructure/local-env/scripts" / script],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(environment["CALLS"]).read_text().splitlines()


def test_the_cluster_has_the_pinned_node_image_and_the_right_configuration(
    recorded: tuple[Path, dict[str, str]],
) -> None:
    (_, created, context, wait) = calls(recorded, "init-kind.sh")
    assert f"--image {versions()['cluster']['node_image']}" in created
    assert "--config" in created and created.startswith("kind create cluster --name tallyhouse")
    assert context == "kubectl config use-context kind-tallyhouse"
    assert wait.startswith("kubectl wait --for=condition=Ready nodes")


def test_the_ingress_controller_is_pinned_and_waited_for(recorded: tuple[Path, dict[str, str]]) -> None:
    applied, waited = calls(recorded, "init-nginx.sh")
    assert f"controller-{versions()['cluster']['ingress_nginx']}/" in applied
    assert "rollout status" in waited


@pytest.mark.parametrize(
    ("script", "releases"),
    [
        ("init-postgres.sh", "techmarket pancake"),
        ("init-redis.sh", "redis"),
        ("init-monitoring.sh", "monitoring"),
    ],
)
def test_a_part_is_installed_after_its_namespaces_and_passwords(
    recorded: tuple[Path, dict[str, str]], script: str, releases: str
) -> None:
    found = calls(recorded, script)
    assert found[0] == "python -m scripts.charts install local platform"
    assert sorted(found[1:3]) == ["kubectl apply -f -", "python -m scripts.k8s_secrets"]
    assert found[3] == f"python -m scripts.charts install local {releases}"
    assert set(releases.split()) <= {release.name for release in charts.releases("local")}


def test_every_image_is_built_and_loaded_under_the_tag_that_the_charts_name(
    recorded: tuple[Path, dict[str, str]],
) -> None:
    found = calls(recorded, "load-images.sh")
    tag = yaml.safe_load((charts.HELM / "environments/local.yaml").read_text())["global"]["imageTag"]
    for name in ("airflow", "pancake", "kaggle-data-api"):
        assert f"kind load docker-image --name tallyhouse tallyhouse-{name}:{tag}" in found
        assert any(
            call.startswith("docker build") and call.endswith(f"tallyhouse-{name}:{tag} .") for call in found
        )


def test_every_image_of_a_chart_is_one_that_is_built() -> None:
    built = {"tallyhouse-airflow"}
    for dockerfile in [*charts.ROOT.glob("services/*/Dockerfile"), *charts.ROOT.glob("jobs/*/Dockerfile")]:
        built.add(f"tallyhouse-{dockerfile.parent.name.replace('_', '-')}")
    named = set()
    for release in charts.releases("local"):
        for line in charts.template(release).splitlines():
            if "image: tallyhouse-" in line:
                named.add(line.split("image: ")[1].split(":")[0])
    assert len(named) > 5
    # The job is built where its folder is.
    assert named - built <= {"tallyhouse-fetch-kaggle"}


def test_kind_hands_on_the_port_that_the_pancake_shop_is_on() -> None:
    config = yaml.safe_load((LOCAL_ENV / "kind-config.yaml").read_text())
    ports = [port for node in config["nodes"] for port in node.get("extraPortMappings", [])]
    assert {"containerPort": 30090, "hostPort": 30090, "listenAddress": "127.0.0.1"} in ports
    assert {port["listenAddress"] for port in ports} == {"127.0.0.1"}


def test_a_program_that_is_missing_is_named(recorded: tuple[Path, dict[str, str]]) -> None:
    root, environment = recorded
    folder = Path(environment["PATH"].split(":")[0])
    (folder / "kind").unlink()
    plain = root / "plain"
    plain.mkdir()
    for name in ("bash", "awk", "dirname", "cat"):
        (plain / name).symlink_to(shutil.which(name) or "")
    done = subprocess.run(
        ["bash", root / "infrastructure/local-env/scripts/init-kind.sh"],
        env={"PATH": f"{folder}:{plain}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "init-kind.sh: kind: not found; run 'make setup' in infrastructure/local-env\n"


def test_every_command_of_the_makefile_has_its_script() -> None:
    text = (LOCAL_ENV / "Makefile").read_text()
    named = [line.strip().removeprefix("@") for line in text.splitlines() if line.startswith("\t@scripts/")]
    assert len(named) > 8
    for script in named:
        assert os.access(LOCAL_ENV / script, os.X_OK), script
    for command in ("setup", "deploy", "clean", "init-postgres", "init-redis", "init-monitoring"):
        assert f"\n{command}: ##" in text
