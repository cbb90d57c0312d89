#!/usr/bin/env bash
# Does at a first start what MySQL's official image does: the root account, a database and its account, init files.
set -euo pipefail
[ "${1:-mysqld}" = mysqld ] && shift
options=(--datadir=/var/lib/mysql --socket=/var/run/mysqld/mysqld.sock --mysqlx=OFF "$@")
if [ "$(id -u)" = 0 ]; then options+=(--user=mysql); fi
docker_process_sql() {
  MYSQL_PWD=${root_password-} mysql --no-defaults --protocol=socket --socket=/var/run/mysqld/mysqld.sock \
    --user=root ${database:+--database="$database"}
}
if [ ! -d /var/lib/mysql/mysql ]; then
  : "${MYSQL_ROOT_PASSWORD:?set it}"
  mysqld --no-defaults "${options[@]}" --initialize-insecure
  mysqld --no-defaults "${options[@]}" --skip-networking &
  server=$!
  for _ in $(seq 120); do
    if mysqladmin --no-defaults --socket=/var/run/mysqld/mysqld.sock --user=root --silent ping; then break; fi
    sleep 0.5
  done
  docker_process_sql <<SQL
ALTER USER root@localhost IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
CREATE USER root@'%' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
CREATE DATABASE \`$MYSQL_DATABASE\`;
CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '$MYSQL_PASSWORD';
GRANT ALL ON \`$MYSQL_DATABASE\`.* TO '$MYSQL_USER'@'%';
SQL
  root_password=$MYSQL_ROOT_PASSWORD database=$MYSQL_DATABASE
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sh) . "$file" ;;
      *.sql) docker_process_sql <"$file" ;;
    esac
  done
  kill "$server"
  wait "$server"
fi
exec mysqld --no-defaults "${options[@]}"
