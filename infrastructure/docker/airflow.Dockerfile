# Airflow, Spark and this repository's code, in one image: DAG processor, scheduler, triggerer, API server,
# Spark's master and workers, and Data Docs all run from it, so that they cannot disagree on a version.
# Built from the repository's root: docker build -f infrastructure/docker/airflow.Dockerfile .

# -- the jars that Spark needs beside its own, as the native stack takes them
FROM maven:3.9-eclipse-temurin-17@sha256:1ed5d1f54416b706707b4f3238f63a20bb06aab27c6d240090a2bb9ad895ed45 AS jars
COPY scripts/stack/maven/pom.xml /build/pom.xml
RUN mvn -B -q -f /build/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=/jars

# -- the environment of uv.lock
FROM python:3.12-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254 AS python
COPY scripts/uv.txt /build/uv.txt
RUN pip install --no-cache-dir --require-hashes -r /build/uv.txt
WORKDIR /opt/tallyhouse
COPY pyproject.toml uv.lock ./
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
RUN uv sync --frozen --no-dev --no-install-project

# -- what runs
FROM python:3.12-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254
# Debian keeps only the newest version of a package, so that a pinned one would stop building.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends openjdk-17-jre-headless procps \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home tallyhouse \
 && install -d -o tallyhouse /var/lib/tallyhouse
WORKDIR /opt/tallyhouse
COPY --from=python /opt/tallyhouse/.venv .venv
COPY --from=jars /jars /opt/cache/jars
COPY pyproject.toml uv.lock ./
COPY config config
COPY docs/db docs/db
COPY sql sql
COPY scripts scripts
COPY services/common services/common
COPY services/data_docs services/data_docs
COPY services/run_metrics services/run_metrics
COPY services/embedded_clickhouse services/embedded_clickhouse
COPY jobs jobs
COPY include include
COPY plugins plugins
COPY spark_jobs spark_jobs
COPY dags dags
ENV PATH=/opt/tallyhouse/.venv/bin:$PATH \
    PYTHONPATH=/opt/tallyhouse/include:/opt/tallyhouse/plugins:/opt/tallyhouse \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TALLYHOUSE_CACHE=/opt/cache TALLYHOUSE_LOCAL=/var/lib/tallyhouse
# Where the code looks for them: a folder whose name tells what pom.xml they are of.
RUN ln -s jars "$(python -c 'from scripts.stack.context import Stack; print(Stack().spark_jars)')"
COPY infrastructure/docker/entrypoint.sh infrastructure/docker/entrypoint.sh
USER 10001
VOLUME /var/lib/tallyhouse
ENTRYPOINT ["/opt/tallyhouse/infrastructure/docker/entrypoint.sh"]
