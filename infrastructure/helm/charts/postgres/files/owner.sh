#!/usr/bin/env bash
# The database, its owner and who may read it, at a plain server's first start; the image sources this file.
docker_process_sql --set "db=$OWNER_DATABASE" --set "owner=$OWNER" --set "password=$OWNER_PASSWORD" <<'SQL'
CREATE ROLE :"owner" LOGIN PASSWORD :'password';
CREATE DATABASE :"db" OWNER :"owner";
REVOKE ALL ON DATABASE :"db" FROM PUBLIC;
SQL
docker_process_sql --dbname "$OWNER_DATABASE" --set "owner=$OWNER" <<'SQL'
ALTER SCHEMA public OWNER TO :"owner";
SQL
# READER_<name>=<password> for each account that reads.
for variable in "${!READER_@}"; do
  docker_process_sql --dbname "$OWNER_DATABASE" --set "db=$OWNER_DATABASE" --set "owner=$OWNER" \
    --set "reader=${variable#READER_}" --set "password=${!variable}" <<'SQL'
CREATE ROLE :"reader" LOGIN PASSWORD :'password';
GRANT CONNECT ON DATABASE :"db" TO :"reader";
-- When the transactions of others began, which the watermark needs.
GRANT pg_read_all_stats TO :"reader";
GRANT USAGE ON SCHEMA public TO :"reader";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT ON TABLES TO :"reader";
SQL
done
