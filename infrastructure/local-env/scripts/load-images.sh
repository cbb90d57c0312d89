#!/usr/bin/env bash
# Builds this repository's images under the tag `dev` and puts them into the cluster's nodes.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need kind
command -v docker >/dev/null || fail "docker: not found; kind and the images need it"
cd "$root"
build() { docker build --quiet --file "$2" --tag "tallyhouse-$1:dev" . && kind load docker-image --name "$CLUSTER" "tallyhouse-$1:dev"; }
build airflow infrastructure/docker/airflow.Dockerfile
for dockerfile in services/*/Dockerfile jobs/*/Dockerfile; do
  [ -e "$dockerfile" ] || continue
  name=$(basename "$(dirname "$dockerfile")")
  build "${name//_/-}" "$dockerfile"
done
