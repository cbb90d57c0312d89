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
	  /^[a-z-]+( [a-z-]+)*:.*## / {split($$1, n, " "); printf "  \033[36m%-10s\033[0m %s\n", n[1], $$2}' $(MAKEFILE_LIST)

##@ The whole way

.PHONY: demo
demo: $(READY) ## Set up, start, generate data, run two nights, print their ledgers
	@$(STACK) demo

##@ The stack

.PHONY: setup start up stop down status logs shell airflow superset clean
setup: $(READY) ## Fetch the servers and build the environment, once
	@$(STACK) setup

start up: $(READY) ## Start all of it (also: up), or parts: make start GROUPS=events,watch
	@$(STACK) start --groups "$(GROUPS)"

stop down: $(READY) ## Stop all of it (also: down)
	@$(STACK) stop

status: $(READY) ## What runs, where, with how much memory
	@$(STACK) status

logs: $(READY) ## Follow a service's log: make logs S=airflow-scheduler
	@$(STACK) logs $(S)

shell: $(READY) ## A shell with the stack's environment (airflow, spark-submit, ...)
	@$(STACK) shell

airflow: $(READY) ## Airflow's command line: make airflow ARGS="dags list"
	@scripts/airflow $(ARGS)

superset: $(READY) ## Superset with the dashboards over the running stack, until Ctrl-C
	@$(STACK) superset

clean: $(READY) ## Remove all data, logs and generated configuration of a stopped stack
	@$(STACK) clean

##@ Data

.PHONY: data day ledger sql verify
SCALE ?= 0.1
data: $(READY) ## Fill the source stores: make data SCALE=0.1
	@$(PY) -m tallyhouse.generate data --scale $(SCALE)

day: $(READY) ## Play one more business day onto the running stores
	@$(PY) -m tallyhouse.generate day

ledger: $(READY) ## The ledger of each subject's last night: make ledger ARGS="--last 2"
	@$(PY) -m tallyhouse.ledger print $(ARGS)

ON ?= dwh
sql: $(READY) ## Ask the warehouse, or a store: make sql Q="SELECT 1" ON=orders
	@$(STACK) sql --on "$(ON)" -- "$(Q)"

verify: $(READY) ## Row counts of every table in every store
	@$(PY) -m tallyhouse.generate verify

##@ Quality

.PHONY: test check format dags-md requirements
test: $(READY) ## All tests, on real servers of their own: make test ARGS="tests/extract -k window"
	@$(STACK) test $(ARGS)

check: $(READY) ## Format, lint, types, SQL, and what is generated from what
	@$(STACK) setup --quiet
	@$(PY) -m scripts.check $(ARGS)

format: $(READY) ## Mend formatting
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix --select I .

dags-md: $(READY) ## Write docs/DAGS.md anew from the DAGs' docstrings
	@$(PY) scripts/dags_md.py

requirements: $(READY) ## Write requirements.txt anew from the lock
	@$(PY) -m scripts.check --write-requirements
