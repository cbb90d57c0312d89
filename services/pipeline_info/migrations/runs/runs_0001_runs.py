"""Runs by month, their summaries, and the idempotency keys that were used."""

from alembic import op

from services.common.migrate import run_sql_beside

revision = "runs_0001"
down_revision = None


def upgrade() -> None:
    """Make the tables; PostgreSQL alone has partitions."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Take the tables away, with all runs."""
    op.execute("DROP TABLE run, pipeline_summary, idempotency_key")
    op.execute("DROP TABLE IF EXISTS migration")  # what noted versions before Alembic did
