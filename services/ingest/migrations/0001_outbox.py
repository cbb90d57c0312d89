"""The outbox: events, documents that wait, and how far each carrier has come."""

from alembic import op
from sqlalchemy import text

from services.common.migrate import MigrationError, run_sql_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make what is not there yet."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Take all of it away, also what is known of events; refused while events wait to be carried."""
    if op.get_bind().execute(text("SELECT EXISTS (SELECT FROM ingest.outbox)")).scalar_one():
        raise MigrationError("ingest.outbox: events wait to be carried; let the relay empty it first")
    op.execute("DROP FUNCTION ingest.accept")
    op.execute("DROP TABLE ingest.event, ingest.outbox, ingest.progress")
