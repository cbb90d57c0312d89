"""Alembic's environment, of all stores: the connection is the runner's."""

from tallyhouse.migrate import run_environment

run_environment()
