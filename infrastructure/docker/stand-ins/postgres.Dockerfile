FROM debian:bookworm-slim
RUN groupadd --system --gid 999 postgres && useradd --system --uid 999 --gid 999 --home /var/lib/postgresql postgres \
 && apt-get update \
 && apt-get install -y --no-install-recommends postgresql-client-15 locales \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o postgres -g postgres /var/lib/postgresql/data /var/run/postgresql \
 && install -d /docker-entrypoint-initdb.d
COPY server /usr/local/postgres
COPY postgres.sh /usr/local/bin/docker-entrypoint.sh
ENV PATH=/usr/local/postgres/bin:$PATH PGDATA=/var/lib/postgresql/data LANG=C.UTF-8
USER 999
VOLUME /var/lib/postgresql/data
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["bash", "/usr/local/bin/docker-entrypoint.sh"]
CMD ["postgres"]
