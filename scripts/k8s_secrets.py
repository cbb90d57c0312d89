"""Prints the Secrets of a local cluster, to be applied: the passwords of this checkout.

    python -m scripts.k8s_secrets | kubectl apply -f -

Which namespace gets which password, the chart `platform` says, in its values.yaml. In a shared cluster the
External Secrets Operator brings the same ones out of a vault.
"""

import sys
from typing import Any

import yaml

from scripts.charts import CHARTS
from scripts.stack.context import make_secrets
from tallyhouse.settings import LocalFolder

NAME = "tallyhouse-passwords"


def manifests(secrets: dict[str, str]) -> list[dict[str, Any]]:
    """The Secrets.

    Args:
        secrets: of the checkout, by their names.

    Raises:
        KeyError: the chart names one that the checkout does not have.
    """
    found = []
    values = yaml.safe_load((CHARTS / "platform/values.yaml").read_text())
    for namespace, has in values["namespaces"].items():
        if has.get("passwords"):
            found.append(secret(namespace, NAME, {name: secrets[name] for name in has["passwords"]}))
        for name, login in has.get("logins", {}).items():
            data = {"username": login["username"], "password": secrets[login["password"]]}
            found.append(secret(namespace, name, data, "kubernetes.io/basic-auth"))
    return found


def secret(namespace: str, name: str, data: dict[str, str], kind: str = "Opaque") -> dict[str, Any]:
    """One Secret."""
    labels = {"app.kubernetes.io/part-of": "tallyhouse"}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "stringData": data}


def main() -> int:
    """Print them to a pipe; never to a terminal."""
    if sys.stdout.isatty():
        print("these are passwords: python -m scripts.k8s_secrets | kubectl apply -f -", file=sys.stderr)
        return 2
    yaml.safe_dump_all(manifests(make_secrets(LocalFolder().secrets_file)), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
