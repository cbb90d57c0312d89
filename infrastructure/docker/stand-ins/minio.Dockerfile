FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends curl \
 && rm -rf /var/lib/apt/lists/*
COPY minio /usr/bin/minio
VOLUME /data
EXPOSE 9000
ENTRYPOINT ["/usr/bin/minio"]
