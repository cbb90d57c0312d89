#!/usr/bin/env bash
# Makes the kind cluster, unless it runs.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need kind
need kubectl
if kind get clusters 2>/dev/null | grep -qx "$CLUSTER"; then
  echo "cluster $CLUSTER: is there"
else
  kind create cluster --name "$CLUSTER" --config "$env_root/kind-config.yaml" --image "$CLUSTER_NODE_IMAGE" --wait 5m
fi
kubectl config use-context "kind-$CLUSTER" >/dev/null
kubectl wait --for=condition=Ready nodes --all --timeout=5m
