#!/usr/bin/env bash
# The databases of the services, made at PostgreSQL's first start; the image sources this file. The nightly job's own
# provisioning finds them there and sees to their passwords and rights.
set -u
for key in INGEST PANCAKE KAGGLE_DATA DWH SUPERSET; do
  db_name=${key}_DB
  [ -n "${!db_name:-}" ] || continue # in a cluster the shop has a server of its own
  user=${key}_USER password=${key}_PASSWORD
  if [ "$key" = SUPERSET ]; then user=SUPERSET_DB_USER password=SUPERSET_DB_PASSWORD; fi
  docker_process_sql \
    --set "db=${!db_name}" --set "user=${!user}" --set "password=${!password}" <<'SQL'
CREATE ROLE :"user" LOGIN PASSWORD :'password';
CREATE DATABASE :"db" OWNER :"user";
SQL
done
# In the warehouse's database, pipeline-info owns its schema and sees no other.
docker_process_sql --dbname "$DWH_DB" \
  --set "db=$DWH_DB" --set "user=$PIPELINE_INFO_DB_USER" --set "password=$PIPELINE_INFO_DB_PASSWORD" <<'SQL'
CREATE ROLE :"user" LOGIN PASSWORD :'password';
GRANT CONNECT ON DATABASE :"db" TO :"user";
CREATE SCHEMA pipeline_info AUTHORIZATION :"user";
SQL
set +u
