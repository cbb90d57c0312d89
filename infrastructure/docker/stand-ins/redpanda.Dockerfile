# Apache Kafka, told what Redpanda is told.
FROM debian:bookworm-slim
RUN useradd --system --uid 101 redpanda \
 && apt-get update \
 && apt-get install -y --no-install-recommends openjdk-17-jre-headless \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o redpanda /var/lib/redpanda/data /etc/redpanda
COPY jars /opt/kafka
COPY redpanda.sh /usr/bin/redpanda
COPY rpk.sh /usr/bin/rpk
RUN chmod 755 /usr/bin/redpanda /usr/bin/rpk
USER 101
EXPOSE 9092
