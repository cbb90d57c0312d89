#!/usr/bin/env bash
# Does at a first start what PostgreSQL's official image does: the superuser, its database, init files.
set -euo pipefail
[ "${1:-postgres}" = postgres ] && shift
options=(-D "$PGDATA" -c unix_socket_directories=/var/run/postgresql -c listen_addresses='*' "$@")
POSTGRES_USER=${POSTGRES_USER:-postgres}
POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
docker_process_sql() {
  PGPASSWORD=$POSTGRES_PASSWORD psql --host=/var/run/postgresql --set ON_ERROR_STOP=1 --no-psqlrc \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" "$@"
}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA"
  chmod 700 "$PGDATA"
  initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --encoding=UTF8 --locale=C.UTF-8 \
    --auth-host=scram-sha-256 --auth-local=trust --pwfile=<(echo "$POSTGRES_PASSWORD")
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  pg_ctl -D "$PGDATA" -o "-c unix_socket_directories=/var/run/postgresql -c listen_addresses=" -w start
  if [ "$POSTGRES_DB" != postgres ]; then
    echo "CREATE DATABASE :\"db\";" | POSTGRES_DB=postgres docker_process_sql --set db="$POSTGRES_DB"
  fi
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sh) . "$file" ;;
      *.sql) docker_process_sql <"$file" ;;
    esac
  done
  pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec postgres "${options[@]}"
