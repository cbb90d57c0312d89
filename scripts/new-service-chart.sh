#!/usr/bin/env bash
# Makes the Helm chart of a new service, on the library chart `service`, with values for every environment.
#   scripts/new-service-chart.sh NAME [--port 8000] [--namespace tallyhouse] [--into FOLDER]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/new_chart.sh"

usage() { sed -n '2,3s/^# *//p' "${BASH_SOURCE[0]}"; }
name="" port=8000
while [ $# -gt 0 ]; do
  case $1 in
    --port) port=${2:?--port: which?} && shift 2 ;;
    --namespace) namespace=${2:?--namespace: which?} && shift 2 ;;
    --into) into=${2:?--into: which folder?} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    -*) fail "$1: no such option; $(usage | tail -1)" ;;
    *) [ -z "$name" ] || fail "$1: one name only" && name=$1 && shift ;;
  esac
done
[ -n "$name" ] || { usage && exit 2; }
[[ $port =~ ^[0-9]+$ ]] && [ "$port" -ge 1024 ] && [ "$port" -le 65535 ] ||
  fail "--port $port: not a port from 1024 to 65535; below, only root may listen"

begin "$name"
chart_yaml "$name" service
cat >"$chart/values.yaml" <<YAML
# What it may be told: infrastructure/helm/library-charts/service/values.yaml and ../common/values.yaml.
service:
  image: {repository: tallyhouse-$name}
  ports: {http: $port}
  # Settings that are no secret; a value is a template.
  config:
    ALLOWED_HOSTS: '$name,$name.{{ .Release.Namespace }}.svc,$name.{{ (.Values.global).domain | default "localhost" }}'
  # A secret: {secret: name of the Secret, key: its key}
  env: {}
  probes:
    startup: {path: /health}
    liveness: {path: /health}
    readiness: {path: /ready}
  ingress:
    hosts: ['$name.{{ (.Values.global).domain | default "localhost" }}']
  networkPolicy:
    # Whom it calls, such as {namespace: techmarket, ports: [5432]} or {app: kafka, ports: [9092]}.
    to: []
YAML
cat >"$chart/values-local.yaml" <<YAML
# A laptop: as values.yaml has it.
service:
  resources: {requests: {cpu: 25m}}
YAML
cat >"$chart/values-dev.yaml" <<YAML
# The shared cluster of development, by its ingress.
service:
  ingress: {enabled: true}
YAML
cat >"$chart/values-staging.yaml" <<YAML
# Production's shape with less of it.
service:
  replicas: 2
  ingress: {enabled: true, tls: {enabled: true, clusterIssuer: letsencrypt}}
  serviceMonitor: {enabled: true}
YAML
cat >"$chart/values-production.yaml" <<YAML
service:
  autoscaling: {enabled: true, minReplicas: 2, maxReplicas: 6}
  ingress: {enabled: true, tls: {enabled: true, clusterIssuer: letsencrypt}}
  serviceMonitor: {enabled: true}
YAML
finish "$name"
