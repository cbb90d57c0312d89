FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends maven openjdk-17-jre-headless ca-certificates-java \
 && rm -rf /var/lib/apt/lists/*
CMD ["mvn"]
