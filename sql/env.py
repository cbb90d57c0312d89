"""Alembic's environment, of both engines: the connection is the runner's."""

from tallyhouse.migrate import run_environment

run_environment()
