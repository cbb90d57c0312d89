"""docker-compose.yaml agrees with the native stack: ports, names, credentials, and who may reach them.

No Docker engine is needed, and none was there: this reads the file, it does not run it. That Docker Compose
itself can read it, `make check` says.
"""

import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.compose_env import complete, demanded
from scripts.stack.context import Stack, make_secrets
from scripts.stack.service import GROUPS
from scripts.stack.services import services
from tallyhouse.settings import ROOT, STACK_ENV, Settings

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
STACK = dict(
    line.split("=", 1) for line in STACK_ENV.read_text().splitlines() if line and not line.startswith("#")
)
PLACEHOLDER = re.compile(r"\$\{(\w+):-([^}]*)\}")
DEMANDED = re.compile(r"\$\{(\w+):\?[^}]*\}")


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
    # Redpanda's controller is its own affair.
    wanted = {key for key in STACK if key.endswith("_PORT")} - {"KAFKA_CONTROLLER_PORT"}
    assert sorted(keys) == sorted(wanted)


def test_nothing_is_published_beyond_this_machine() -> None:
    for name, port in published():
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port), f"{name}: {port}"
    assert not any("network_mode" in service for service in SERVICES.values())


@pytest.mark.parametrize("store", ["auth", "catalog", "orders", "payments"])
def test_a_store_has_the_accounts_and_the_schema_of_the_stack(store: str) -> None:
    key, service = f"MYSQL_{store.upper()}", SERVICES[f"techmarket-{store}-db"]
    environment = service["environment"]
    assert service["image"].startswith("mysql:8.4.")
    assert environment["MYSQL_DATABASE"] == STACK[f"{key}_DB"]
    assert environment["MYSQL_USER"] == STACK[f"{key}_USER"]
    assert comes_from(environment["MYSQL_PASSWORD"]) == STACK.get(f"{key}_PASSWORD", f"{key}_PASSWORD")
    assert comes_from(environment["MYSQL_ROOT_PASSWORD"]) == "MYSQL_ROOT_PASSWORD"
    assert environment["ETL_READER_USER"] == STACK["ETL_READER_USER"]
    assert comes_from(environment["ETL_READER_PASSWORD"]) == "ETL_READER_PASSWORD"
    assert {"--local-infile=OFF", "--secure-file-priv=NULL"} <= set(service["command"])
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
        ("minio", "MINIO_ROOT_USER", "MINIO_ROOT_USER"),
        ("clickhouse", "CLICKHOUSE_DB", "CLICKHOUSE_DB"),
        ("clickhouse", "CLICKHOUSE_USER", "CLICKHOUSE_USER"),
    ],
)
def test_a_server_has_the_names_of_the_stack(service: str, variable: str, key: str) -> None:
    assert SERVICES[service]["environment"][variable] == STACK[key]


def comes_from(value: str) -> str:
    """Which variable a value of the file is, or the value itself if it is fixed."""
    found = DEMANDED.fullmatch(value)
    return found[1] if found else value


def test_every_password_that_no_document_fixes_is_demanded() -> None:
    """Compose refuses the file without them; `scripts/compose_env.py` makes them."""
    names = demanded((ROOT / "docker-compose.yaml").read_text())
    others = {"GRAFANA_ADMIN_PASSWORD", "SUPERSET_ADMIN_PASSWORD", "SUPERSET_SECRET_KEY"}
    assert set(names) == {*Settings.generated(), *others}
    assert set(names) <= make_names()
    for service, described in SERVICES.items():
        for key, value in described.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|DSN|URI", key) and (service, value) != (
                "techmarket-auth-db",
                STACK["MYSQL_AUTH_PASSWORD"],
            ):
                assert DEMANDED.search(value), f"{service}: {key}"


def make_names() -> set[str]:
    with tempfile.TemporaryDirectory() as folder:
        return set(make_secrets(Path(folder) / "secrets.json"))


def test_what_is_missing_in_dot_env_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("POSTGRES_PORT=15432\nPOSTGRES_PASSWORD=mine")
    names = ["CLICKHOUSE_PASSWORD", "MINIO_ROOT_PASSWORD", "POSTGRES_PASSWORD"]
    assert complete(file, names, {"MINIO_ROOT_PASSWORD": "of the native stack"}) == names[:2]
    text = file.read_text()
    assert text.startswith("POSTGRES_PORT=15432\nPOSTGRES_PASSWORD=mine\n")
    assert "MINIO_ROOT_PASSWORD=of the native stack\n" in text
    assert re.search(r"^CLICKHOUSE_PASSWORD=[0-9a-f]{32}$", text, re.MULTILINE)
    assert file.stat().st_mode & 0o777 == 0o600
    assert complete(file, names, {}) == []
    assert file.read_text() == text


def test_airflow_is_told_where_every_server_is() -> None:
    environment = SERVICES["airflow-scheduler"]["environment"]
    assert SERVICES["airflow-scheduler"]["env_file"] == ["config/stack.env"]
    hosts = {key: value for key, value in environment.items() if key.endswith("_HOST")}
    assert set(hosts) == {key for key in STACK if key.endswith("_HOST")} - {
        # They run from the same image and nobody there asks them.
        "DATA_DOCS_HOST",
        "RUN_METRICS_HOST",
    }
    for key, host in hosts.items():
        assert host in SERVICES, f"{key}: there is no service {host}"
        if host == "redpanda":  # it tells clients of the network another address than those outside
            assert f"internal://{host}:{environment['KAFKA_PORT']}" in " ".join(SERVICES[host]["command"])
            continue
        inside = environment[key.replace("_HOST", "_HTTP_PORT" if key == "CLICKHOUSE_HOST" else "_PORT")]
        assert any(port.endswith(f":{inside}") for port in SERVICES[host]["ports"]), (
            f"{host} listens elsewhere"
        )
    assert set(environment) - {"AIRFLOW_PUBLIC_URL"} <= {name.upper() for name in Settings.model_fields}


def test_what_is_named_is_there() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    named = {mount.split(":")[0] for mount in mounts if ":" in mount}
    for source in named:
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
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
    assert silent == {"airflow-init", "prometheus-login", "spark-worker", "adminer"}


DOCKERFILES = sorted([*ROOT.glob("services/*/Dockerfile"), *ROOT.glob("infrastructure/docker/*.Dockerfile")])


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_an_image_holds_what_is_run_in_it_and_runs_as_nobody(file: Path) -> None:
    dockerfile = file.read_text()
    ignored = (ROOT / ".dockerignore").read_text()
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for path in source.split():
            assert (ROOT / path).exists(), path
            assert any(
                path == kept or path.startswith(f"{kept}/") for kept in re.findall(r"^!(\S+)", ignored, re.M)
            ), path
    assert re.search(r"^USER 10001$", dockerfile, re.MULTILINE)
    stages = re.findall(r"^FROM (\S+?):(\S+)", dockerfile, re.MULTILINE)
    assert len(stages) >= 2, "build in one stage, run in another"
    assert all(re.search(r"\d.*@sha256:[0-9a-f]{64}$", tag) for _, tag in stages), (
        "pin the base image by digest"
    )
    for install in re.findall(r"(?:pip install|uv sync).*", dockerfile):
        assert "--require-hashes" in install or "--frozen" in install, f"install by hash: {install}"
    # Packages before code, so that a changed line does not bring them anew.
    last = dockerfile[dockerfile.rindex("\nFROM ") :]
    assert last.index("COPY --from=") < min(found.start() for found in re.finditer(r"^COPY [^-]", last, re.M))


NO_DIGEST_KNOWN = {"redpandadata/redpanda", "adminer"}


def test_every_image_is_pinned_and_every_built_one_is_used() -> None:
    for name, service in SERVICES.items():
        if "build" not in service:
            digest = "" if service["image"].split(":")[0] in NO_DIGEST_KNOWN else r".*@sha256:[0-9a-f]{64}$"
            assert re.search(rf":[\w.-]*\d{digest}", service["image"]), f"{name}: pin {service['image']}"
    built = {service["build"]["dockerfile"] for service in SERVICES.values() if "build" in service}
    assert built == {str(file.relative_to(ROOT)) for file in DOCKERFILES}


def test_every_service_has_limits_one_network_and_no_way_to_more_rights() -> None:
    for name, service in SERVICES.items():
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) == {"cpus", "memory"}, name
        assert service["networks"] == ["tallyhouse"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert (service["cap_drop"], service["read_only"], service["init"]) == (["ALL"], True, True), name
        # It gives files away, and ends.
        assert name == "prometheus-login" or "cap_add" not in service, name
        assert service["logging"]["options"]["max-size"], name
        assert set(service.get("profiles", ())) <= {*GROUPS, "tools", "superset"}, name


# -- as natively ----------------------------------------------------------------------------------


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, dict[str, str]]:
    """What each service of the native stack is told beside the stack's environment, on the default ports."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("TALLYHOUSE_LOCAL", str(tmp_path))
    return {service.name: service.environment for service in services(Stack())}


def in_the_network(value: str) -> str:
    """A native value as it is between containers, without saying which."""
    return re.sub(r"127\.0\.0\.1|localhost", "HOST", value)


def defaulted(value: str, passwords: dict[str, str]) -> str:
    """A value of the file with defaults and passwords in; container names as in `in_the_network`."""
    value = DEMANDED.sub(lambda found: passwords[found[1]], PLACEHOLDER.sub(lambda found: found[2], value))
    return re.sub(rf"(?<![\w-])({'|'.join(map(re.escape, SERVICES))})(?=:\d|$)", "HOST", value)


@pytest.mark.parametrize("name", ["ingest", "ingest-relay", "consumer", "pancake"])
def test_a_service_is_told_what_it_is_told_natively(native: dict[str, dict[str, str]], name: str) -> None:
    passwords = Stack().settings.environment()  # made for the fixture's folder
    found = {key: defaulted(value, passwords) for key, value in SERVICES[name]["environment"].items()}
    expected = {key: in_the_network(value) for key, value in native[name].items()}
    # Whom they answer, by which name, and where they listen inside their containers, is Compose's to say.
    own = {"ALLOWED_HOSTS", "INGEST_AUTH", "INGEST_RELAY_HOST", "CONSUMER_HOST"}
    assert {k: v for k, v in found.items() if k not in own} == {
        k: v for k, v in expected.items() if k not in own
    }
    assert own & expected.keys() <= found.keys()


def test_a_listener_that_others_call_by_name_knows_its_name() -> None:
    """Prometheus and Airflow call by the names of the containers; any name that is not listed is refused."""
    scraped = yaml.safe_load((ROOT / "observability/prometheus.yml").read_text())["scrape_configs"]
    called = {job["static_configs"][0]["targets"][0].split(":")[0] for job in scraped}
    for name in called - {"minio", "prometheus"}:
        assert name in SERVICES[name]["environment"]["ALLOWED_HOSTS"].split(","), name


def test_a_group_of_the_native_stack_is_a_profile(native: dict[str, dict[str, str]]) -> None:
    names = {"kafka": "redpanda"} | {
        f"mysql-{store}": f"techmarket-{store}-db" for store in ("auth", "catalog", "orders", "payments")
    }
    for service in services(Stack()):
        found = SERVICES[names.get(service.name, service.name)].get("profiles", ["nightly"])
        assert found == [service.group], service.name


def test_prometheus_finds_each_service_where_it_listens() -> None:
    config = yaml.safe_load((ROOT / "observability/prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        (target,) = job["static_configs"][0]["targets"]
        host, _, port = target.partition(":")
        assert any(found.endswith(f":{port}") for found in SERVICES[host]["ports"]), target
    mounted = dict(mount.split(":")[:2] for mount in SERVICES["prometheus"]["volumes"])
    for rules in config["rule_files"]:
        folder, _, _ = rules.rpartition("/")
        source = f"./observability/{folder or rules}"
        assert mounted[source] == f"/etc/prometheus/{folder or rules}", rules


def test_prometheus_its_own_scrape_and_grafana_have_one_login() -> None:
    writer, server = SERVICES["prometheus-login"], SERVICES["prometheus"]
    # Written where it is read, by an image with this code, before Prometheus starts.
    (volume,) = writer["volumes"]
    assert f"{volume}:ro" in server["volumes"]
    _, _, folder = volume.partition(":")
    assert writer["command"] == ["python", "-m", "scripts.prometheus_login", folder]
    assert (writer["image"], writer["profiles"]) == ("tallyhouse-airflow", server["profiles"])
    assert server["depends_on"]["prometheus-login"] == {"condition": "service_completed_successfully"}
    assert f"--web.config.file={folder}/web.yml" in server["command"]
    assert f"--http.config.file={folder}/promtool.yml" in server["healthcheck"]["test"]
    user = STACK["PROMETHEUS_USER"]
    assert writer["environment"]["PROMETHEUS_USER"] == user
    assert comes_from(writer["environment"]["PROMETHEUS_PASSWORD"]) == "PROMETHEUS_PASSWORD"
    config = yaml.safe_load((ROOT / "observability/prometheus.yml").read_text())
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "prometheus"]
    # Beside the configuration, as natively.
    assert job["basic_auth"] == {"username": user, "password_file": "login/password"}
    assert folder == "/etc/prometheus/login"
    provisioned = ROOT / "observability/grafana/provisioning/datasources/prometheus.yaml"
    (source,) = yaml.safe_load(provisioned.read_text())["datasources"]
    assert (source["basicAuth"], source["basicAuthUser"]) == (True, user)
    assert source["secureJsonData"] == {"basicAuthPassword": "$PROMETHEUS_PASSWORD"}
    assert comes_from(SERVICES["grafana"]["environment"]["PROMETHEUS_PASSWORD"]) == "PROMETHEUS_PASSWORD"


def test_prometheus_reads_no_other_option_natively(native: dict[str, dict[str, str]]) -> None:
    """Whom it lets in and which pages may read it is said in both ways of running."""
    (service,) = [found for found in services(Stack()) if found.name == "prometheus"]
    here = {word.split("=")[0] for word in shlex.split(service.command) if word.startswith("--")}
    there = {word.split("=")[0] for word in SERVICES["prometheus"]["command"]}
    assert there == here - {"--chdir", "--web.listen-address", "--log.level"}


def test_a_containers_own_settings_win_over_those_that_it_shares(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "env.sh").write_text("export DATA_DOCS_HOST=127.0.0.1\nexport SHARED='a b'\n")
    done = subprocess.run(
        [ROOT / "infrastructure/docker/entrypoint.sh", "bash", "-c", 'echo "$DATA_DOCS_HOST $SHARED"'],
        env={
            "PATH": os.environ["PATH"],
            "TALLYHOUSE_LOCAL": str(tmp_path),
            "DATA_DOCS_HOST": "0.0.0.0",  # noqa: S104
            "AIRFLOW_PUBLIC_URL": "x",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0.0.0.0 a b\n"


@pytest.mark.parametrize("script", ["etl_reader.sh", "databases.sh"])
def test_what_an_image_sources_is_not_executable(script: str) -> None:
    file = ROOT / "infrastructure/docker" / script
    assert file.stat().st_mode & 0o111 == 0
    subprocess.run(["bash", "-n", file], check=True)


def test_the_databases_of_a_first_start_are_those_of_the_stack() -> None:
    environment = SERVICES["postgres"]["environment"]
    script = (ROOT / "infrastructure/docker/databases.sh").read_text()
    for key in re.search(r"for key in ([A-Z_ ]+);", script)[1].split():  # type: ignore[index]
        user = "SUPERSET_DB" if key == "SUPERSET" else key
        for name in (f"{key}_DB", f"{user}_USER", f"{user}_PASSWORD"):
            assert comes_from(environment[name]) == STACK.get(name, name), name


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
