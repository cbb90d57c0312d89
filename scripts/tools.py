"""Programs that Go builds, at the versions of infrastructure/config/versions.yaml, once, into the cache."""

import hashlib
import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from scripts.cache import made_whole
from tallyhouse.settings import ROOT, load_settings

VERSIONS = ROOT / "infrastructure/config/versions.yaml"


class _Loader(yaml.CSafeLoader):
    """Takes a bare `=` for a text, as Kubernetes does."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda _, node: str(node.value))

OPERATORS = {
    "cloudnative_pg": ("github.com/cloudnative-pg/cloudnative-pg", "config/crd/bases"),
    "prometheus_operator": (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd",
    ),
    "external_secrets": ("github.com/external-secrets/external-secrets", "config/crds/bases"),
}
"""Operators whose objects the charts have, by their name in versions.yaml: the Go module that brings the
definitions of those objects, and the folder in it."""


@cache
def versions() -> dict[str, dict[str, str]]:
    """What is pinned there, by group and name."""
    found: dict[str, dict[str, str]] = yaml.safe_load(VERSIONS.read_text())
    return found


def go_tool(name: str, *build: str, cwd: Path = ROOT) -> str:
    """A program that Go builds, once, into the cache.

    Args:
        name: The program, with what tells its versions apart.
        build: Arguments of `go`.
        cwd: Where it is built.

    Returns:
        Where it is.

    Raises:
        OSError: There is no Go, or it does not build.
    """
    folder = load_settings().cache / "tools" / name
    if not folder.exists():
        with made_whole(folder) as making:
            done = subprocess.run(
                ["go", *build],
                cwd=cwd,
                env=os.environ | {"GOBIN": str(making)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise OSError(f"{name}: {done.stderr.strip()[-300:]}")
    return str(next(folder.iterdir()))


def helm() -> str:
    """Helm."""
    version = versions()["tools"]["helm"]
    return go_tool(f"helm-{version}", "install", f"helm.sh/helm/v3/cmd/helm@{version}")


def kubeconform() -> str:
    """What compares manifests with the schemas of a version of Kubernetes."""
    version = versions()["tools"]["kubeconform"]
    return go_tool(
        f"kubeconform-{version}", "install", f"github.com/yannh/kubeconform/cmd/kubeconform@{version}"
    )


def kube_score() -> str:
    """What judges manifests."""
    version = versions()["tools"]["kube_score"]
    return go_tool(f"kube-score-{version}", "install", f"github.com/zegl/kube-score/cmd/kube-score@{version}")


def yq() -> str:
    """What reads YAML in shell scripts."""
    version = versions()["tools"]["yq"]
    return go_tool(f"yq-{version}", "install", f"github.com/mikefarah/yq/v4@{version}")


def definitions() -> list[Path]:
    """The files of the operators' custom resource definitions, from their Go modules.

    Raises:
        OSError: There is no Go, or a module cannot be had.
    """
    found: list[Path] = []
    for name, (module, folder) in OPERATORS.items():
        wanted = f"{module}@{versions()['cluster'][name]}"
        done = subprocess.run(
            ["go", "mod", "download", "-json", wanted], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OSError(f"{wanted}: {done.stdout.strip()[-300:]}{done.stderr.strip()[-300:]}")
        files = sorted((Path(json.loads(done.stdout)["Dir"]) / folder).glob("*.yaml"))
        found += [file for file in files if "\nkind: CustomResourceDefinition\n" in file.read_text()]
    return found


def kubernetes_schemas() -> Path:
    """Strict JSON Schemas of Kubernetes' own objects, out of kubernetes-validate, made once into the cache.

    Returns:
        The folder; in it `<kind>-<group>-<version>.json`.
    """
    version = versions()["cluster"]["kubernetes"]
    brought = Path(kubernetes_validate.__file__).parent / f"kubernetes-json-schema/v{version}-local-strict"
    folder = load_settings().cache / f"kubernetes-schemas-{version}"
    if not folder.exists():
        with made_whole(folder) as making:
            for file in brought.glob("*.json"):
                # They name themselves and each other by addresses that only that package knows.
                text = file.read_text().replace('"/api/_definitions.json', '"_definitions.json')
                schema = json.loads(text)
                schema.pop("$id", None)
                (making / file.name).write_text(json.dumps(schema))
    return folder


def operator_schemas() -> Path:
    """Strict JSON Schemas of the operators' objects, made once into the cache.

    Returns:
        The folder; in it `<group>/<kind>_<version>.json`.
    """
    pinned = {name: versions()["cluster"][name] for name in OPERATORS}
    digest = hashlib.sha256(json.dumps(pinned).encode()).hexdigest()[:12]
    folder = load_settings().cache / f"operator-schemas-{digest}"
    if folder.exists():
        return folder
    with made_whole(folder) as making:
        for file in definitions():
            spec = yaml.load(file.read_text(), Loader=_Loader)["spec"]  # noqa: S506 - it is a safe one
            (making / spec["group"]).mkdir(exist_ok=True)
            for version in spec["versions"]:
                schema = version["schema"]["openAPIV3Schema"]
                schema.get("properties", {}).setdefault("metadata", {}).clear()
                _strict(schema)
                name = f"{spec['names']['kind'].lower()}_{version['name']}.json"
                (making / spec["group"] / name).write_text(json.dumps(schema))
    return folder


def _strict(schema: Any) -> None:
    """Have a schema refuse names that it does not know, where Kubernetes would drop them."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for value in list(schema.values()):
            _strict(value)
    elif isinstance(schema, list):
        for value in schema:
            _strict(value)
