# Python on Debian's minimal system, as the official image has it. python.tar is the Python that runs the command.
FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      libbz2-1.0 libffi8 liblzma5 libncursesw6 libreadline8 libsqlite3-0 libssl3 libuuid1 netbase tzdata zlib1g \
 && rm -rf /var/lib/apt/lists/*
ADD python.tar /usr/local/
WORKDIR /usr/local/bin
RUN ldconfig \
 && ln -sf python3.12 python3 && ln -sf python3.12 python \
 && python -m ensurepip --default-pip \
 && ln -sf pip3.12 pip \
 && find /usr/local -name __pycache__ -prune -exec rm -rf {} +
WORKDIR /
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
CMD ["python3"]
