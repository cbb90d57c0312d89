# The commands of the project. Bare `make` lists them.
.DEFAULT_GOAL := help
SHELL := bash
export PYTHONPATH := include:plugins:.

PY    := .venv/bin/python
READY := .venv/.ready
STACK := $(PY) -m scripts.stack

$(READY): uv.lock scripts/bootstrap.sh
	@scripts/bootstrap.sh

.PHONY: help
help:
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-z0-9-]+( [a-z0-9-]+)*:.*## / {split($$1, n, " "); printf "  \033[36m%-10s\033[0m %s\n", n[1], $$2}' $(MAKEFILE_LIST)

##@ The whole way

.PHONY: demo
demo: $(READY) ## Set up, start, generate data, run the pipelines twice, print their ledgers
	@$(STACK) demo

##@ The stack

# With COMPOSE=1 these drive docker-compose.yaml instead of the native stack.
comma   := ,
COMPOSE_GROUPS = $(or $(subst $(comma), ,$(GROUPS)),events apps watch)
DOCKER  := python3 scripts/compose_env.py && docker compose $(foreach group,$(COMPOSE_GROUPS),--profile $(group))
NATIVE  := $(if $(COMPOSE),,$(READY))

.PHONY: setup build start up stop down status logs shell airflow superset superset-check clean
setup: $(READY) ## Fetch the servers and build the environment, once
	@$(STACK) setup

build: $(NATIVE) ## What is needed to start: the servers, or, with COMPOSE=1, the images
	@$(if $(COMPOSE),$(DOCKER) build,$(STACK) setup)

start up: $(NATIVE) ## Start all of it (also: up), or parts: make start GROUPS=events,watch
	@$(if $(COMPOSE),$(DOCKER) up --detach --wait,$(STACK) start --groups "$(GROUPS)")

stop down: $(NATIVE) ## Stop all of it (also: down); with COMPOSE=1 its volumes go too
	@$(if $(COMPOSE),python3 scripts/compose_env.py && docker compose --profile '*' down --volumes,$(STACK) stop)

status: $(READY) ## What runs, where, with how much memory; logins: make status ARGS="--logins"
	@$(STACK) status $(ARGS)

logs: $(READY) ## Follow a service's log: make logs S=airflow-scheduler
	@$(STACK) logs $(S)

shell: $(READY) ## A shell with the stack's environment (airflow, spark-submit, ...)
	@$(STACK) shell

airflow: $(READY) ## Airflow's command line: make airflow ARGS="dags list"
	@scripts/airflow $(ARGS)

superset: $(READY) ## Superset with the dashboards over the running stack, until Ctrl-C
	@$(STACK) superset

superset-check: $(READY) ## Open every dashboard in a browser on a Superset of its own: each chart gets rows
	@$(STACK) superset check $(ARGS)

clean: $(READY) ## Remove all data, logs and generated configuration of a stopped stack
	@$(STACK) clean

##@ Data

.PHONY: source data day ingest run run-etl ledger reconcile repair maintain-lake sql verify
source: $(READY) ## A database of yours in one command: make source URL=mysql://user@host/db NAME=shipping [WRITE=1]
	@$(PY) -m scripts.source --name "$$NAME" --tables "$$TABLES" $(if $(WRITE),--write)

SCALE ?= 0.1
data: $(READY) ## Fill the source stores: make data SCALE=0.1
	@$(PY) -m techmarket data --scale $(SCALE)

day: $(READY) ## Play one more business day onto the running stores
	@$(PY) -m techmarket day

ingest: $(NATIVE) ## Send an event through the running platform and follow it
	@$(if $(COMPOSE),set -a; . ./.env; set +a;,eval "$$($(STACK) env)";) python3 tools/ingest_test.py

run: $(READY) ## Start a run and follow it: make run DAG=techmarket_nightly ARGS="--full-refresh"
	@$(STACK) run $(DAG) $(ARGS)

run-etl: $(NATIVE) ## Run the events' DAG: raw JSON to curated Parquet, and its ledger
	@$(if $(COMPOSE),docker compose exec -T airflow-scheduler /opt/tallyhouse/infrastructure/docker/entrypoint.sh \
	  airflow dags test events_curated,$(STACK) run events_curated)

ledger: $(READY) ## The ledger of each pipeline's last run: make ledger ARGS="--last 2"
	@$(PY) -m tallyhouse.ledger print $(ARGS)

reconcile: $(READY) ## Live sources against the warehouse, at any time: make reconcile [TABLE=orders.orders] [SQL=1]
	@$(PY) -m tallyhouse.reconcile $(if $(PIPELINE),--pipeline "$(PIPELINE)") $(if $(TABLE),--table "$(TABLE)") \
	  $(if $(SQL),--sql) $(ARGS)

repair: $(READY) ## Copy the warehouse into the targets again, for a run that one refused or lost: make repair RUN=…
	@$(PY) -m tallyhouse.publish.repair $(if $(RUN),--run "$(RUN)") $(ARGS)

maintain-lake: $(READY) ## What nobody needs any more in the lake, with sizes; APPLY=1 removes it
	@$(PY) -m tallyhouse.lake.upkeep $(if $(APPLY),--apply)

ON ?= dwh
sql: $(READY) ## Ask a database: make sql Q="SELECT 1" ON=clickhouse; without Q it shows how
	@$(STACK) sql --on "$(ON)" --format "$(FORMAT)" -- "$$Q"

verify: $(READY) ## Row counts of every table in every store
	@$(PY) -m techmarket verify

.PHONY: backup restore
backup: $(READY) ## Dump every store of the running stack: make backup [TO=backups/before-the-change]
	@$(PY) -m scripts.backup create $(if $(TO),--to "$(TO)")

restore: $(READY) ## Bring a backup back into an empty stack and compare digests: make restore FROM=backups/…
	@$(PY) -m scripts.backup restore "$(FROM)" $(if $(REPLACE),--replace)

##@ The Kaggle data API

.PHONY: migrate-up migrate-down migrate-create
KAGGLE_MIGRATE = eval "$$($(STACK) env)" && DATABASE_URL="postgresql://$$KAGGLE_DATA_USER:$$KAGGLE_DATA_PASSWORD@$$POSTGRES_HOST:$$POSTGRES_PORT/$$KAGGLE_DATA_DB" \
  $(PY) -m services.kaggle_data_api.migrate
migrate-up: $(READY) ## Move the Kaggle data API's database to its newest revision
	@$(KAGGLE_MIGRATE) up

migrate-down: $(READY) ## One revision back, with the columns that it added: make migrate-down TO=0001
	@$(KAGGLE_MIGRATE) down "$(or $(TO),-1)"

migrate-create: $(READY) ## Start a new revision: make migrate-create NAME="What it does"
	@$(PY) -m services.kaggle_data_api.migrate create "$$NAME"

##@ Compose and Kubernetes

.PHONY: compose-verify
compose-verify: $(READY) ## docker-compose.yaml run for real: images, runs, events, a kill; ARGS="--keep" keeps the images
	@$(STACK) setup --quiet
	@$(PY) -m scripts.verify.compose $(ARGS)

.PHONY: k8s-deploy charts
k8s-deploy: $(READY) ## The whole platform on a kind cluster of this machine
	@$(MAKE) --no-print-directory -C infrastructure/local-env setup deploy platform

charts: $(READY) ## The platform's manifests: make charts ENV=production [RELEASES="airflow spark"]
	@$(PY) -m scripts.charts template $(or $(ENV),local) $(RELEASES)

##@ Quality

.PHONY: test proof torture test-unit check bench bench-extract bench-publish bench-run audit format docs picture dags-md requirements
test: $(READY) ## All tests, on real servers of their own: make test ARGS="tests/extract -k window"
	@$(STACK) test $(ARGS)

test-unit: $(READY) ## The package's tests that need no server, and what they cover: about a minute
	@$(STACK) setup --quiet
	@$(STACK) unit $(ARGS)

proof: $(READY) ## Kills a run at each durable write and starts it again: build/proof.json (ONLY=clickhouse for a part)
	@PROOF=1 PROOF_ONLY="$(ONLY)" $(STACK) test tests/proof -s $(ARGS)

torture: $(READY) ## Every type and nasty value through every store: docs/reference/values.md, or what changed
	@TORTURE=1 $(STACK) test tests/torture -s $(ARGS)

check: $(READY) ## Format, lint, types, SQL, and what is generated from what
	@$(STACK) setup --quiet
	@$(PY) -m scripts.check $(ARGS)

bench: bench-extract bench-publish ## Both of the next, into build/bench.json

bench-extract: $(READY) ## Extraction and loading beside their floors and dlt (ARGS="--rows 10000000")
	@$(PY) -m benchmarks.extract.run $(ARGS)

bench-publish: $(READY) ## Whole runs and publishing, all rows and one in a hundred (ARGS="--rows 10000000")
	@$(PY) -m benchmarks.publish.run $(ARGS)

bench-run: $(READY) ## Time whole runs, task by task: build/bench-run.json (SCALE=10 for a large one)
	@$(PY) -m benchmarks.run.run --scale $(if $(filter command line environment,$(origin SCALE)),$(SCALE),1) $(ARGS)

audit: $(READY) ## Known vulnerabilities of every locked package; says so where it cannot ask
	@$(PY) -m scripts.audit

format: $(READY) ## Fix formatting
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix --select I .

docs: $(READY) ## The documentation site, in build/site
	@$(PY) -m scripts.site

picture: $(READY) ## Draw docs/architecture.svg anew from the contracts
	@$(PY) -m scripts.picture

dags-md: $(READY) ## Write docs/DAGS.md anew from the DAGs' docstrings
	@$(PY) scripts/dags_md.py

requirements: $(READY) ## Write requirements.txt anew from the lock
	@$(PY) -m scripts.check --write-requirements
