#!/usr/bin/env bash
# Deletes the cluster; nothing happens if there is none.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need kind
kind delete cluster --name "$CLUSTER"
