#!/usr/bin/env bash
# The databases of the services, made at PostgreSQL's first start; the image sources this file. The nightly job's own
# provisioning finds them there and sees to their passwords and rights.
set -u
for key in INGEST PANCAKE DWH SUPERSET; do
  db_name=${key}_DB
  user=${key}_USER password=${key}_PASSWORD
  if [ "$key" = SUPERSET ]; then user=SUPERSET_DB_USER password=SUPERSET_DB_PASSWORD; fi
  docker_process_sql \
    --set "db=${!db_name}" --set "user=${!user}" --set "password=${!password}" <<'SQL'
CREATE ROLE :"user" LOGIN PASSWORD :'password';
CREATE DATABASE :"db" OWNER :"user";
SQL
done
set +u
