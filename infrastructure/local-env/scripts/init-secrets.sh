#!/usr/bin/env bash
# Namespaces, and in each the passwords that the chart `platform` says it needs: those of this checkout.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need kubectl
release platform
(cd "$root" && PYTHONPATH=include:. .venv/bin/python -m scripts.k8s_secrets) | kubectl apply -f -
