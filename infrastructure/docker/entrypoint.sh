#!/usr/bin/env bash
# Gives a container of docker-compose.yaml the environment that the native stack's processes have: made once
# by `stack provision` (the service airflow-init), kept in the volume that the Airflow services share.
set -euo pipefail
env=$TALLYHOUSE_LOCAL/run/env.sh
if [ -r "$env" ]; then
  # shellcheck source=/dev/null
  source "$env"
  # A container's own addresses; what is published, and to whom, docker-compose.yaml says.
  export AIRFLOW__API__HOST=0.0.0.0
  export AIRFLOW__API__BASE_URL="$AIRFLOW_PUBLIC_URL"
fi
exec "$@"
