#!/usr/bin/env bash
# Makes the Helm chart of a new job, on the library chart `job`, with values for every environment.
#   scripts/new-job-chart.sh NAME --type job|cronjob [--schedule "0 2 * * *"] [--namespace tallyhouse] [--into FOLDER]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/new_chart.sh"

usage() { sed -n '2,3s/^# *//p' "${BASH_SOURCE[0]}"; }
name="" type="" schedule="0 2 * * *"
while [ $# -gt 0 ]; do
  case $1 in
    --type) type=${2:?--type: job or cronjob?} && shift 2 ;;
    --schedule) schedule=${2:?--schedule: when?} && shift 2 ;;
    --namespace) namespace=${2:?--namespace: which?} && shift 2 ;;
    --into) into=${2:?--into: which folder?} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    -*) fail "$1: no such option; $(usage | tail -1)" ;;
    *) [ -z "$name" ] || fail "$1: one name only" && name=$1 && shift ;;
  esac
done
[ -n "$name" ] || { usage && exit 2; }
case $type in
  job | cronjob) ;;
  *) fail "--type ${type:-is missing}: it is job, which runs once, or cronjob" ;;
esac
[[ $schedule =~ ^[^\ ]+(\ [^\ ]+){4}$ ]] || fail "--schedule $schedule: not five fields, as in \"0 2 * * *\""

begin "$name"
chart_yaml "$name" job
{
  cat <<YAML
# What it may be told: infrastructure/helm/library-charts/job/values.yaml and ../common/values.yaml.
job:
  type: $type
YAML
  [ "$type" = job ] || printf '  schedule: "%s"\n  timeZone: Etc/UTC\n' "$schedule"
  cat <<YAML
  image: {repository: tallyhouse-$name}
  # Settings that are no secret; a value is a template.
  config: {}
  # A secret: {secret: name of the Secret, key: its key}
  env: {}
  backoffLimit: 2
  activeDeadlineSeconds: 3600
  networkPolicy:
    # Whom it calls, such as {namespace: techmarket, ports: [5432]} or {app: minio, ports: [9000]}.
    to: []
YAML
} >"$chart/values.yaml"
cat >"$chart/values-local.yaml" <<YAML
# A laptop: as values.yaml has it.
job:
  resources: {requests: {cpu: 25m}}
YAML
cat >"$chart/values-dev.yaml" <<YAML
# The shared cluster of development: one more try is no use while something is being built.
job:
  backoffLimit: 0
YAML
cat >"$chart/values-staging.yaml" <<YAML
# Production's shape with less of it.
job:
  resources: {requests: {cpu: 100m, memory: 256Mi}}
YAML
cat >"$chart/values-production.yaml" <<YAML
job:
  resources: {requests: {cpu: 250m, memory: 256Mi}, limits: {cpu: "2", memory: 1Gi}}
YAML
finish "$name"
