#!/usr/bin/env bash
# Makes sql/oltp/*.sql from docs/db/*.dbml, the source of truth of the stores' schemas.
# Usage: scripts/dbml.sh            write the files
#        scripts/dbml.sh --check    fail when they differ from their DBML
set -euo pipefail

case "${1:-}" in
  '' | --check) ;;
  -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
  *) echo "dbml: unknown option $1; try scripts/dbml.sh --help" >&2; exit 2 ;;
esac

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${TALLYHOUSE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tallyhouse}
dbml2sql=${DBML2SQL:-$cache/dbml/node_modules/.bin/dbml2sql}
if [[ ! -x $dbml2sql ]]; then
  echo "dbml: no dbml2sql at $dbml2sql; run 'make setup', or set DBML2SQL to an installed @dbml/cli" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/made"

# generate <name of the DBML file> <dialect> <name of the SQL file>
generate() {
  # dbml2sql writes dbml-error.log into its working directory, good news or bad.
  mkdir "$work/$1" && cd "$work/$1"
  # It exits 0 after a syntax error too; the file it then does not write tells.
  NODE_NO_WARNINGS=1 "$dbml2sql" "$root/docs/db/$1.dbml" "--$2" -o body.sql >said.txt 2>&1 || true
  if [[ ! -s body.sql ]]; then
    echo "dbml: docs/db/$1.dbml does not compile:$(grep -m1 -iE 'error' <(grep -v ERROR: said.txt) || cat said.txt)" >&2
    return 1
  fi
  {
    echo "-- generated, do not edit: scripts/dbml.sh makes this file from docs/db/$1.dbml"
    if [[ $2 == mysql ]]; then
      # MySQL and MariaDB have different default collations; this one both know.
      echo "SET NAMES utf8mb4;"
      echo "ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci;"
    fi
    echo
    # Its own header carries the time of day; a generated file must not change by itself.
    sed -n '/^CREATE/,$p' body.sql
  } >"$work/made/$3.sql"
}

# Node takes a second to start each time, so all at once.
running=()
generate auth_mysql mysql 01_auth_schema & running+=($!)
generate catalog_mysql mysql 02_catalog_schema & running+=($!)
generate orders_mysql mysql 03_orders_schema & running+=($!)
generate payments_mysql mysql 04_payments_schema & running+=($!)
generate pancake_postgres postgres 05_pancake_schema & running+=($!)
failed=0
for one in "${running[@]}"; do wait "$one" || failed=1; done
((failed == 0)) || exit 1
cd "$work/made"

if [[ ${1:-} == --check ]]; then
  for made in *.sql; do
    if ! cmp -s "$made" "$root/sql/oltp/$made"; then
      echo "dbml: sql/oltp/$made differs from its DBML; run scripts/dbml.sh and commit the result" >&2
      exit 1
    fi
  done
  echo "dbml: sql/oltp is what docs/db says"
else
  cp ./*.sql "$root/sql/oltp/"
fi
