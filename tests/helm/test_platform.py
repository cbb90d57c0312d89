"""The platform's charts, as they are rendered: what documents ask of them, and that they fit each other."""

import base64
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from scripts import charts, k8s_secrets
from scripts.stack.context import make_secrets
from tallyhouse.settings import Settings

Manifest = dict[str, Any]


@cache
def objects(environment: str) -> list[Manifest]:
    """Everything of an environment."""
    charts.build()
    text = "\n---\n".join(charts.template(release) for release in charts.releases(environment))
    return [doc for doc in yaml.load_all(text, Loader=yaml.CSafeLoader) if doc]


def of_kind(environment: str, *kinds: str) -> list[Manifest]:
    return [doc for doc in objects(environment) if doc["kind"] in kinds]


def named(environment: str, kind: str, name: str) -> Manifest:
    return next(doc for doc in of_kind(environment, kind) if doc["metadata"]["name"] == name)


def pods(environment: str) -> Iterator[tuple[Manifest, Manifest]]:
    """Every pod that something makes: who makes it, and the pod's metadata and spec."""
    for doc in of_kind(environment, "Deployment", "StatefulSet", "Job", "CronJob"):
        spec = doc["spec"]["jobTemplate"]["spec"] if doc["kind"] == "CronJob" else doc["spec"]
        yield doc, spec["template"]
    scheduler = named(environment, "ConfigMap", "airflow-scheduler-files")
    yield scheduler, yaml.safe_load(scheduler["data"]["etc_airflow_pod_template.yaml"])


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


@pytest.mark.parametrize("environment", charts.ENVIRONMENTS)
def test_every_pod_keeps_the_restricted_pod_security_standard_and_has_limits(environment: str) -> None:
    checked = 0
    for owner, pod in pods(environment):
        where = owner["metadata"]["name"]
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), where
        assert not [volume for volume in spec.get("volumes", []) if "hostPath" in volume], where
        assert spec["securityContext"]["runAsNonRoot"] is True, where
        assert spec["securityContext"]["runAsUser"] > 0, where
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["privileged"] is False, where
            assert context["readOnlyRootFilesystem"] is True, where
            assert context["capabilities"] == {"drop": ["ALL"]}, where
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where
            assert not [port for port in container.get("ports", []) if "hostPort" in port], where
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][kind]), where
            assert not container["image"].endswith((":latest", ":")), where
            checked += 1
    assert checked > 25


@pytest.mark.parametrize("environment", charts.ENVIRONMENTS)
def test_every_namespace_enforces_it_and_denies_what_no_policy_allows(environment: str) -> None:
    namespaces = of_kind(environment, "Namespace")
    assert {doc["metadata"]["name"] for doc in namespaces} == {
        "techmarket",
        "pancake",
        "tallyhouse",
        "monitoring",
    }
    for doc in namespaces:
        assert doc["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    used = {doc["metadata"].get("namespace") for doc in objects(environment)} - {None}
    assert used == {doc["metadata"]["name"] for doc in namespaces}
    for namespace in used:
        deny = [
            doc
            for doc in of_kind(environment, "NetworkPolicy")
            if doc["metadata"]["namespace"] == namespace and doc["spec"]["podSelector"] == {}
        ]
        assert [doc["spec"]["policyTypes"] for doc in deny] == [["Ingress", "Egress"]]
        assert not [doc for doc in deny if {"ingress", "egress"} & set(doc["spec"])]


def secret_keys(environment: str) -> dict[tuple[str, str], set[str]]:
    """Which keys each Secret has, whoever makes it."""
    found: dict[tuple[str, str], set[str]] = {}
    for doc in of_kind(environment, "Secret"):
        found[doc["metadata"]["namespace"], doc["metadata"]["name"]] = set(doc.get("data", {}))
    for doc in k8s_secrets.manifests(dict.fromkeys(every_secret(), "x")):
        found[doc["metadata"]["namespace"], doc["metadata"]["name"]] = set(doc["stringData"])
    for doc in of_kind(environment, "Cluster"):  # the operator makes it
        found[doc["metadata"]["namespace"], f"{doc['metadata']['name']}-app"] = {"username", "password"}
    return found


def every_secret() -> list[str]:
    return [*Settings.generated(), "FERNET_KEY", "JWT_SECRET", "API_SECRET_KEY", "AIRFLOW_ADMIN_PASSWORD"]


BY_HAND = {"pipeline-info-keys", "ingest-keys", "kaggle-data-api-keys", "backup-bucket"}
"""Secrets that people make, as the runbook of deployment says."""


@pytest.mark.parametrize("environment", charts.ENVIRONMENTS)
def test_every_secret_and_config_map_that_a_pod_reads_is_there(environment: str) -> None:
    secrets = secret_keys(environment)
    maps = {
        (doc["metadata"]["namespace"], doc["metadata"]["name"]): doc.get("data", {})
        for doc in of_kind(environment, "ConfigMap")
    }
    read = 0
    for owner, pod in pods(environment):
        namespace = owner["metadata"]["namespace"]
        for container in containers(pod):
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {}).get("secretKeyRef")
                if source and not source.get("optional"):
                    assert source["key"] in secrets[namespace, source["name"]], (container["name"], variable)
                    read += 1
            for source in container.get("envFrom", []):
                if "configMapRef" in source:
                    assert (namespace, source["configMapRef"]["name"]) in maps
                else:
                    assert (namespace, source["secretRef"]["name"]) in secrets
            volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
            for mount in container.get("volumeMounts", []):
                volume = volumes.get(mount["name"], {})
                if "configMap" in volume:
                    assert mount["subPath"] in maps[namespace, volume["configMap"]["name"]]
                if "secret" in volume:
                    assert volume["secret"]["secretName"] in BY_HAND
    assert read > 20


def test_a_local_cluster_gets_every_password_that_the_settings_ask_for(tmp_path: Any) -> None:
    """Airflow's pods read all settings: a password that the namespace lacks would stop each of them."""
    made = make_secrets(tmp_path / "secrets.json")
    found = {
        (doc["metadata"]["namespace"], doc["metadata"]["name"]): doc for doc in k8s_secrets.manifests(made)
    }
    given = found["tallyhouse", "tallyhouse-passwords"]["stringData"]
    assert set(Settings.generated()) <= set(given)
    assert given == {name: made[name] for name in given}
    login = found["pancake", "etl-reader"]
    assert login["type"] == "kubernetes.io/basic-auth"
    assert login["stringData"] == {"username": "etl_reader", "password": made["ETL_READER_PASSWORD"]}


# -- who calls whom -------------------------------------------------------------------------------


def addresses(environment: str) -> Iterator[tuple[Manifest, str, str, int]]:
    """Whom each pod is told to call: its owner, namespace, host and port."""
    maps = {
        (doc["metadata"]["namespace"], doc["metadata"]["name"]): doc.get("data", {})
        for doc in of_kind(environment, "ConfigMap")
    }
    for owner, pod in pods(environment):
        namespace = owner["metadata"]["namespace"]
        for container in pod["spec"]["containers"]:
            told: dict[str, str] = {}
            for source in container.get("envFrom", []):
                if "configMapRef" in source:
                    told |= maps[namespace, source["configMapRef"]["name"]]
            told |= {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}
            for name, value in told.items():
                if name.endswith("_HOST") and f"{name[:-5]}_PORT" in told and re.match(r"[a-z]", value):
                    yield owner, namespace, value, int(told[f"{name[:-5]}_PORT"])
                elif found := re.search(r"(?:@|//|^|host=)([a-z][a-z0-9.-]+)(?::| port=)(\d{4,5})\b", value):
                    yield owner, namespace, found[1], int(found[2])


@pytest.mark.parametrize("environment", ["local", "production"])
def test_whoever_is_told_of_a_server_finds_it_and_may_call_it(environment: str) -> None:
    services = {
        (doc["metadata"]["namespace"], doc["metadata"]["name"]): doc
        for doc in of_kind(environment, "Service")
    }
    policies = of_kind(environment, "NetworkPolicy")
    clusters = {
        (doc["metadata"]["namespace"], f"{doc['metadata']['name']}-rw"): doc
        for doc in of_kind(environment, "Cluster")
    }
    called = set()
    for owner, namespace, host, port in addresses(environment):
        name, _, rest = host.partition(".")
        where = rest.split(".")[0] or namespace
        client = labels_of(owner, environment)
        if (where, name) in clusters:
            assert port == 5432
            server = {"cnpg.io/cluster": clusters[where, name]["metadata"]["name"]}
        else:
            service = services[where, name]
            assert port in [one["port"] for one in service["spec"]["ports"]], host
            server = service["spec"]["selector"]
        said = f"{owner['metadata']['name']} -> {host}:{port}"
        if "cnpg.io/cluster" not in server:
            assert allows(policies, "egress", (namespace, client), (where, server), port), said
        assert allows(policies, "ingress", (where, server), (namespace, client), port), said
        called.add((namespace, where, name))
    assert {("tallyhouse", "techmarket", "dwh-db"), ("pancake", "pancake", "local-postgres-rw")} <= called
    assert len(called) > 12


def labels_of(owner: Manifest, environment: str) -> dict[str, str]:
    pod = next(pod for one, pod in pods(environment) if one is owner)
    return dict(pod["metadata"]["labels"])


def allows(
    policies: list[Manifest],
    direction: str,
    this: tuple[str, dict[str, str]],
    other: tuple[str, dict[str, str]],
    port: int,
) -> bool:
    """Whether the policies of a pod let another one in, or let it call that one, as Kubernetes reads them."""
    for policy in policies:
        selector = policy["spec"]["podSelector"].get("matchLabels")
        if (
            policy["metadata"]["namespace"] != this[0]
            or selector is None
            or not selector.items() <= this[1].items()
        ):
            continue
        for rule in policy["spec"].get(direction, []):
            ports = [one["port"] for one in rule.get("ports", [])]
            peers = rule["from" if direction == "ingress" else "to"]
            if (not ports or port in ports) and any(matches(peer, policy, other) for peer in peers):
                return True
    return False


def matches(peer: Manifest, policy: Manifest, other: tuple[str, dict[str, str]]) -> bool:
    if "ipBlock" in peer:
        return bool(peer["ipBlock"]["cidr"] == "0.0.0.0/0")
    namespace = peer.get("namespaceSelector")
    if namespace is None:
        if other[0] != policy["metadata"]["namespace"]:
            return False
    elif namespace and namespace["matchLabels"]["kubernetes.io/metadata.name"] != other[0]:
        return False
    pod = peer.get("podSelector", {}).get("matchLabels", {})
    return bool(pod.items() <= other[1].items())


@pytest.mark.parametrize("environment", charts.ENVIRONMENTS)
def test_prometheus_scrapes_every_job_of_the_platform_where_it_is(environment: str) -> None:
    config = yaml.safe_load(
        named(environment, "ConfigMap", "prometheus-files")["data"]["etc_prometheus_prometheus.yml"]
    )
    ours = yaml.safe_load((charts.ROOT / "observability/prometheus.yml").read_text())
    assert [job["job_name"] for job in config["scrape_configs"]] == [
        job["job_name"] for job in ours["scrape_configs"]
    ]
    services = {
        (doc["metadata"]["namespace"], doc["metadata"]["name"]): doc
        for doc in of_kind(environment, "Service")
    }
    policies = of_kind(environment, "NetworkPolicy")
    prometheus = (
        "monitoring",
        named(environment, "StatefulSet", "prometheus")["spec"]["selector"]["matchLabels"],
    )
    for job in config["scrape_configs"]:
        host, port = job["static_configs"][0]["targets"][0].split(":")
        if host == "127.0.0.1":
            continue
        name, namespace, _ = host.split(".")
        service = services[namespace, name]
        assert int(port) in [one["port"] for one in service["spec"]["ports"]]
        server = (namespace, service["spec"]["selector"])
        assert allows(policies, "ingress", server, prometheus, int(port)), host
        assert allows(policies, "egress", prometheus, server, int(port)), host


# -- what the documents ask for -------------------------------------------------------------------


def test_techmarket_has_five_pods_with_their_schemas_volumes_and_limits() -> None:
    sets = [doc for doc in of_kind("local", "StatefulSet") if doc["metadata"]["namespace"] == "techmarket"]
    assert {doc["metadata"]["name"]: doc["spec"]["replicas"] for doc in sets} == {
        **dict.fromkeys(("auth-db", "catalog-db", "orders-db", "payments-db", "dwh-db"), 1)
    }
    for number, store in enumerate(("auth", "catalog", "orders", "payments"), start=1):
        files = named("local", "ConfigMap", f"{store}-db-files")["data"]
        schema = (charts.ROOT / f"sql/oltp/0{number}_{store}_schema.sql").read_text()
        assert files["docker-entrypoint-initdb.d_10_schema.sql"] == schema
        spec = named("local", "StatefulSet", f"{store}-db")["spec"]
        assert spec["template"]["spec"]["containers"][0]["resources"] == {
            "requests": {"cpu": "100m", "memory": "512Mi", "ephemeral-storage": "64Mi"},
            "limits": {"cpu": "1", "memory": "2Gi", "ephemeral-storage": "1Gi"},
        }
        assert [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]] == ["data"]
    dwh = named("local", "StatefulSet", "dwh-db")["spec"]["template"]["spec"]["containers"][0]
    assert (dwh["resources"]["requests"]["memory"], dwh["resources"]["limits"]["memory"]) == ("256Mi", "1Gi")


@pytest.mark.parametrize("environment", charts.ENVIRONMENTS)
def test_the_pancake_shop_is_as_its_document_has_it(environment: str) -> None:
    service = named(environment, "Service", "pancake")["spec"]
    assert (service["type"], service["ports"][0]["nodePort"]) == ("NodePort", 30090)
    container = named(environment, "Deployment", "pancake")["spec"]["template"]["spec"]["containers"][0]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] == "/health"
        assert container[probe]["periodSeconds"] == 10
    variables = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container["env"]}
    assert variables == {
        "DB_USER": {"name": "local-postgres-app", "key": "username"},
        "DB_PASSWORD": {"name": "local-postgres-app", "key": "password"},
    }
    assert named(environment, "ConfigMap", "pancake")["data"]["DB_HOST"] == "local-postgres-rw"


def test_the_pancake_database_is_a_cluster_of_two_with_its_table_or_one_plain_server() -> None:
    cluster = named("dev", "Cluster", "local-postgres")["spec"]
    assert (cluster["instances"], cluster["storage"]["size"]) == (2, "1Gi")
    initdb = cluster["bootstrap"]["initdb"]
    assert (initdb["database"], initdb["owner"]) == ("happy_pancakes", "jordans_db")
    schema = named("dev", "ConfigMap", "local-postgres-schema")["data"]["schema.sql"]
    assert schema.startswith('SET ROLE "jordans_db";\n')
    ours = (charts.ROOT / "sql/oltp/05_pancake_schema.sql").read_text()
    assert schema.split("\n", 1)[1].split() == ours.split()

    assert not of_kind("local", "Cluster")
    server = named("local", "StatefulSet", "local-postgres")
    assert server["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "1Gi"
    made = named("local", "Secret", "local-postgres-app")
    assert base64.b64decode(made["data"]["username"]) == b"jordans_db"
    assert (
        named("local", "Service", "local-postgres-rw")["spec"]["selector"]
        == server["spec"]["selector"]["matchLabels"]
    )


def test_kaggle_is_fetched_at_two_into_the_volume_that_several_pods_share() -> None:
    job = named("production", "CronJob", "fetch-kaggle")["spec"]
    assert (job["schedule"], job["timeZone"], job["concurrencyPolicy"]) == ("0 2 * * *", "Etc/UTC", "Forbid")
    spec = job["jobTemplate"]["spec"]["template"]["spec"]
    volume = next(one for one in spec["volumes"] if one["name"] == "kaggle-data")
    assert volume["persistentVolumeClaim"] == {"claimName": "kaggle-data"}
    assert named("production", "ConfigMap", "fetch-kaggle")["data"]["KAGGLE_DATA_ROOT"] == "/kaggle-data"
    claim = named("production", "PersistentVolumeClaim", "kaggle-data")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert not of_kind("production", "PersistentVolume")
    (volume,) = of_kind("local", "PersistentVolume")
    assert volume["spec"]["claimRef"] == {"namespace": "tallyhouse", "name": "kaggle-data"}
    assert (
        named("local", "PersistentVolumeClaim", "kaggle-data")["spec"]["volumeName"]
        == volume["metadata"]["name"]
    )


@pytest.mark.parametrize("environment", charts.ENVIRONMENTS)
def test_airflow_starts_a_pod_of_its_own_image_for_each_task(environment: str) -> None:
    settings = named(environment, "ConfigMap", "airflow-settings")["data"]
    assert settings["AIRFLOW__CORE__EXECUTOR"] == "KubernetesExecutor"
    scheduler = named(environment, "Deployment", "airflow-scheduler")["spec"]["template"]["spec"]
    mounted = [mount["mountPath"] for mount in scheduler["containers"][0]["volumeMounts"]]
    assert settings["AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE"] in mounted
    text = named(environment, "ConfigMap", "airflow-scheduler-files")["data"]["etc_airflow_pod_template.yaml"]
    charts.conforms(text.replace("kind: Pod\nmetadata:\n", "kind: Pod\nmetadata:\n  name: a-task\n"))
    pod = yaml.safe_load(text)
    assert pod["spec"]["restartPolicy"] == "Never"
    assert [one["name"] for one in pod["spec"]["containers"]] == ["base"]
    assert pod["spec"]["containers"][0]["image"] == scheduler["containers"][0]["image"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    # Of all pods the scheduler's alone may ask the Kubernetes API.
    asking = [
        owner["metadata"]["name"]
        for owner, one in pods(environment)
        if one["spec"]["automountServiceAccountToken"]
    ]
    assert asking == ["airflow-scheduler"]
    rules = json.dumps(named(environment, "Role", "airflow-scheduler")["rules"])
    assert "secrets" not in rules and "*" not in rules


def test_a_shared_cluster_takes_its_passwords_out_of_a_vault() -> None:
    local = {
        (doc["metadata"]["namespace"], doc["metadata"]["name"]): doc
        for doc in k8s_secrets.manifests(dict.fromkeys(every_secret(), "x"))
    }
    for environment in ("dev", "staging", "production"):
        brought = {
            (doc["metadata"]["namespace"], doc["metadata"]["name"]): doc
            for doc in of_kind(environment, "ExternalSecret")
        }
        assert set(brought) == set(local)
        for key, doc in brought.items():
            if "template" not in doc["spec"]["target"]:
                assert {one["secretKey"] for one in doc["spec"]["data"]} == set(local[key]["stringData"])
    assert not of_kind("local", "ExternalSecret")


def test_production_runs_more_than_one_of_what_may_run_twice() -> None:
    evictable = {doc["metadata"]["name"] for doc in of_kind("production", "PodDisruptionBudget")}
    assert {
        "airflow-scheduler",
        "airflow-api-server",
        "ingest",
        "consumer",
        "pipeline-info",
        "kaggle-data-api",
    } <= evictable
    scaled = {doc["metadata"]["name"] for doc in of_kind("production", "HorizontalPodAutoscaler")}
    assert scaled == {"ingest", "pipeline-info", "kaggle-data-api"}
    for doc in of_kind("production", "Deployment"):
        assert ("replicas" in doc["spec"]) is (doc["metadata"]["name"] not in scaled)
