"""Alembic's environment, of every service: the connection is the runner's."""

from services.common.migrate import run_environment

run_environment()
