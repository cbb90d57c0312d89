"""docker-compose.yaml agrees with the native stack: ports, names, credentials, and who may reach them.

No Docker engine is needed, and none was there: this reads the file, it does not run it.
"""

import re
from typing import Any

import pytest
import yaml

from scripts.stack.context import Stack
from tallyhouse.settings import ROOT, STACK_ENV, Settings

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
STACK = dict(
    line.split("=", 1) for line in STACK_ENV.read_text().splitlines() if line and not line.startswith("#")
)
PLACEHOLDER = re.compile(r"\$\{(\w+):-([^}]*)\}")


def placeholders(node: Any) -> list[tuple[str, str]]:
    if isinstance(node, dict):
        return [found for value in node.values() for found in placeholders(value)]
    if isinstance(node, list):
        return [found for value in node for found in placeholders(value)]
    return PLACEHOLDER.findall(node) if isinstance(node, str) else []


def published() -> list[tuple[str, str]]:
    return [(name, port) for name, service in SERVICES.items() for port in service.get("ports", [])]


def test_every_default_is_that_of_the_stack() -> None:
    found = placeholders(COMPOSE)
    assert found
    for key, default in found:
        assert STACK.get(key) == default, f"{key}: config/stack.env has {STACK.get(key)}, Compose {default}"


def test_every_port_of_the_stack_is_published_once() -> None:
    keys = [key for _, port in published() for key, _ in PLACEHOLDER.findall(port)]
    assert sorted(keys) == sorted(key for key in STACK if key.endswith("_PORT"))


def test_nothing_is_published_beyond_this_machine() -> None:
    for name, port in published():
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port), f"{name}: {port}"
    assert not any("network_mode" in service for service in SERVICES.values())


@pytest.mark.parametrize("store", ["auth", "catalog", "orders", "payments"])
def test_a_store_has_the_accounts_and_the_schema_of_the_stack(store: str) -> None:
    key, service = f"MYSQL_{store.upper()}", SERVICES[f"techmarket-{store}-db"]
    environment = service["environment"]
    assert service["image"] == "mysql:8.4"
    assert environment["MYSQL_DATABASE"] == STACK[f"{key}_DB"]
    assert environment["MYSQL_USER"] == STACK[f"{key}_USER"]
    assert environment["MYSQL_PASSWORD"] == STACK[f"{key}_PASSWORD"]
    assert environment["MYSQL_ROOT_PASSWORD"] == STACK["MYSQL_ROOT_PASSWORD"]
    assert environment["ETL_READER_USER"] == STACK["ETL_READER_USER"]
    assert environment["ETL_READER_PASSWORD"] == STACK["ETL_READER_PASSWORD"]
    assert "--default-time-zone=+00:00" in service["command"]
    assert f"{key}_PORT" in service["ports"][0]
    mounts = dict(mount.split(":")[:2] for mount in service["volumes"])
    assert mounts[f"techmarket-{store}-db-data"] == "/var/lib/mysql"
    schemas = [source for source in mounts if source.startswith("./sql/oltp/")]
    assert [re.search(r"\d\d_(\w+)_schema", name)[1] for name in schemas] == [store]  # type: ignore[index]
    script = ROOT / "infrastructure/docker/etl_reader.sh"
    # The image sources scripts that are not executable; only those see its functions.
    assert script.stat().st_mode & 0o111 == 0


@pytest.mark.parametrize(
    ("service", "variable", "key"),
    [
        ("postgres", "POSTGRES_USER", "POSTGRES_USER"),
        ("postgres", "POSTGRES_PASSWORD", "POSTGRES_PASSWORD"),
        ("minio", "MINIO_ROOT_USER", "MINIO_ROOT_USER"),
        ("minio", "MINIO_ROOT_PASSWORD", "MINIO_ROOT_PASSWORD"),
        ("clickhouse", "CLICKHOUSE_DB", "CLICKHOUSE_DB"),
        ("clickhouse", "CLICKHOUSE_USER", "CLICKHOUSE_USER"),
    ],
)
def test_a_server_has_the_names_of_the_stack(service: str, variable: str, key: str) -> None:
    assert SERVICES[service]["environment"][variable] == STACK[key]


def test_airflow_is_told_where_every_server_is() -> None:
    environment = SERVICES["airflow-scheduler"]["environment"]
    assert SERVICES["airflow-scheduler"]["env_file"] == ["config/stack.env"]
    hosts = {key: value for key, value in environment.items() if key.endswith("_HOST")}
    assert set(hosts) == {key for key in STACK if key.endswith("_HOST")} - {"DATA_DOCS_HOST"}
    for key, host in hosts.items():
        assert host in SERVICES, f"{key}: there is no service {host}"
        inside = environment[key.replace("_HOST", "_HTTP_PORT" if key == "CLICKHOUSE_HOST" else "_PORT")]
        assert any(port.endswith(f":{inside}") for port in SERVICES[host]["ports"]), (
            f"{host} listens elsewhere"
        )
    assert set(environment) - {"AIRFLOW_PUBLIC_URL"} <= {name.upper() for name in Settings.model_fields}


def test_what_is_named_is_there() -> None:
    named = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    for source in named:
        if source.startswith("./"):
            assert (ROOT / source).is_file(), source
        else:
            assert source in COMPOSE["volumes"], source
    assert {name for name in named if not name.startswith("./")} == set(COMPOSE["volumes"])
    for name, service in SERVICES.items():
        for other in service.get("depends_on", {}):
            assert other in SERVICES, f"{name} waits for {other}"
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name


def test_every_server_says_whether_it_is_well() -> None:
    silent = {name for name, service in SERVICES.items() if "healthcheck" not in service}
    assert silent == {"airflow-init", "spark-worker", "adminer"}


def test_the_image_holds_what_is_run_in_it() -> None:
    dockerfile = (ROOT / "infrastructure/docker/airflow.Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text()
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for path in source.split():
            assert (ROOT / path).exists(), path
            assert any(
                path == kept or path.startswith(f"{kept}/") for kept in re.findall(r"^!(\S+)", ignored, re.M)
            ), path
    assert re.search(r"^USER tallyhouse$", dockerfile, re.MULTILINE)


def test_a_cluster_is_not_told_that_the_driver_is_on_loopback(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYHOUSE_LOCAL", str(tmp_path))
    monkeypatch.setenv("SPARK_MASTER", "spark://spark-master:7077")
    stack = Stack()
    stack.render()
    assert "127.0.0.1" not in (stack.run / "spark" / "spark-defaults.conf").read_text()
    assert "SPARK_LOCAL_IP" not in stack.environment
    assert "spark://spark-master:7077" in stack.connections_file.read_text()
