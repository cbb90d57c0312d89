# chDB behind ClickHouse's HTTP protocol: this repository's own server, under the account of ClickHouse's image.
# Built just before.
# hadolint ignore=DL3007
FROM tallyhouse-airflow:latest
USER 0
RUN apt-get update \
 && apt-get install -y --no-install-recommends wget \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 101 clickhouse \
 && install -d -o clickhouse /var/lib/clickhouse
USER 101
VOLUME /var/lib/clickhouse
EXPOSE 8123
ENTRYPOINT ["sh", "-c", "exec python -m services.embedded_clickhouse --path=/var/lib/clickhouse/data --host=0.0.0.0 --port=8123 --user=\"$CLICKHOUSE_USER\" --lake=http://minio:9000 --allow-host=clickhouse --allow-host=clickhouse.tallyhouse.svc"]
