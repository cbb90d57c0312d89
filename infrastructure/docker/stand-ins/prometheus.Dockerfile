FROM debian:sid-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends prometheus \
 && rm -rf /var/lib/apt/lists/* \
 && ln -sf /usr/bin/prometheus /usr/bin/promtool /usr/local/bin/ \
 && install -d -o 65534 -g 65534 /prometheus /etc/prometheus
USER 65534
VOLUME /prometheus
WORKDIR /prometheus
EXPOSE 9090
ENTRYPOINT ["prometheus"]
