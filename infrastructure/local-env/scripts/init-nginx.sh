#!/usr/bin/env bash
# Installs the pinned ingress controller and waits for it.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need kubectl
kubectl apply -f "https://raw.githubusercontent.com/kubernetes/ingress-nginx/controller-$CLUSTER_INGRESS_NGINX/deploy/static/provider/kind/deploy.yaml"
kubectl -n ingress-nginx rollout status deployment/ingress-nginx-controller --timeout=5m
