#!/usr/bin/env bash
# Installs the CloudNativePG operator, for charts whose database has `mode: cnpg`.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need kubectl
version=${CLUSTER_CLOUDNATIVE_PG#v}
kubectl apply --server-side -f "https://raw.githubusercontent.com/cloudnative-pg/cloudnative-pg/release-${version%.*}/releases/cnpg-$version.yaml"
kubectl -n cnpg-system rollout status deployment/cnpg-controller-manager --timeout=5m
