# Superset as `make superset` runs it natively: the same packages, the same configuration, the same dashboards.
# Built from the repository's root: docker build -f infrastructure/docker/superset.Dockerfile .
FROM python:3.12-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254 AS build
COPY scripts/uv.txt /build/uv.txt
RUN pip install --no-cache-dir --require-hashes -r /build/uv.txt
COPY scripts/superset/requirements.txt /build/requirements.txt
RUN uv venv /venv \
 && uv pip install --no-cache --python /venv/bin/python --no-deps --require-hashes -r /build/requirements.txt

FROM python:3.12-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254
RUN useradd --system --uid 10001 --create-home superset \
 && install -d -o superset /data
COPY --from=build /venv /venv
WORKDIR /app
COPY scripts/__init__.py scripts/__init__.py
COPY scripts/superset scripts/superset
COPY dashboards/superset dashboards/superset
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONPATH=/app \
    SUPERSET_CONFIG_PATH=/app/scripts/superset/superset_config.py SUPERSET_HOME=/data \
    SUPERSET_ASSETS=/app/dashboards/superset FLASK_APP="superset.app:create_app()" SCARF_ANALYTICS=false
USER 10001
EXPOSE 8088
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8088/health', timeout=2)"]
# Its metadata and the dashboards first; both may be repeated.
CMD ["sh", "-c", "python -m scripts.superset.prepare upgrade && exec gunicorn 'superset.app:create_app()' --bind 0.0.0.0:8088 --worker-class gthread --threads 8 --timeout 120"]
