#!/usr/bin/env bash
# The account that extracts, made at a MySQL container's first start; the image sources this file.
docker_process_sql <<SQL
CREATE USER '${ETL_READER_USER}'@'%' IDENTIFIED BY '${ETL_READER_PASSWORD}';
-- They show the open transactions of others, which the watermark needs.
GRANT PROCESS ON *.* TO '${ETL_READER_USER}'@'%';
GRANT SELECT ON performance_schema.* TO '${ETL_READER_USER}'@'%';
GRANT SELECT ON \`${MYSQL_DATABASE}\`.* TO '${ETL_READER_USER}'@'%';
SQL
