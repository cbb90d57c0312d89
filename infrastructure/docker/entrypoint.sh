#!/usr/bin/env bash
# Gives a container the environment that the native stack's processes have. In docker-compose.yaml it is made once
# by `stack provision` (the service airflow-init) and kept in the volume that the Airflow services share; in a
# cluster each pod is told TALLYHOUSE_RENDER and makes it for itself, from its settings and Secrets.
set -euo pipefail
env=$TALLYHOUSE_LOCAL/run/env.sh
if [ -n "${TALLYHOUSE_RENDER:-}" ] && [ ! -e "$env" ]; then
  (cd /opt/tallyhouse && python -m scripts.stack render)
fi
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
