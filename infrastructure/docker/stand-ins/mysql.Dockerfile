FROM debian:sid-slim
RUN groupadd --system --gid 999 mysql && useradd --system --uid 999 --gid 999 mysql \
 && apt-get update \
 && apt-get install -y --no-install-recommends mysql-server-core mysql-client-core \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o mysql -g mysql /var/lib/mysql /var/run/mysqld \
 && install -d /docker-entrypoint-initdb.d
COPY mysql.sh /usr/local/bin/docker-entrypoint.sh
VOLUME /var/lib/mysql
EXPOSE 3306
ENTRYPOINT ["bash", "/usr/local/bin/docker-entrypoint.sh"]
CMD ["mysqld"]
