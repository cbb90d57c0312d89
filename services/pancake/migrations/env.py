"""Alembic's environment: revisions run in the transaction of services.pancake.migrate."""

from alembic import context

from services.pancake.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
