#!/usr/bin/env bash
# Installs every release of infrastructure/helm/helmfile.yaml.gotmpl, or those that are named, and waits for each.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need kubectl
release "$@"
kubectl get pods --all-namespaces --selector app.kubernetes.io/part-of=tallyhouse
