FROM debian:sid-slim
RUN useradd --system --uid 100 adminer \
 && apt-get update \
 && apt-get install -y --no-install-recommends adminer php-cli php-mysql php-pgsql \
 && rm -rf /var/lib/apt/lists/*
USER 100
EXPOSE 8080
CMD ["php", "-S", "0.0.0.0:8080", "-t", "/usr/share/adminer"]
