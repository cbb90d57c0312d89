#!/usr/bin/env bash
# Gives a container of docker-compose.yaml the environment that the native stack's processes have: made once
# by `stack provision` (the service airflow-init), kept in the volume that the Airflow services share.
set -euo pipefail
env=$TALLYHOUSE_LOCAL/run/env.sh
if [ -r "$env" ]; then
  own=$(export -p)
  # shellcheck source=/dev/null
  source "$env"
  # What docker-compose.yaml gives this container wins: the addresses it listens on, for one.
  eval "$own"
  export AIRFLOW__API__HOST=0.0.0.0
  export AIRFLOW__API__BASE_URL="$AIRFLOW_PUBLIC_URL"
fi
exec "$@"
