"""Why a run failed, in a short text for lists: the whole of it is in the document."""

import sqlalchemy as sa
from alembic import op

revision = "runs_0002"
down_revision = "runs_0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("run", sa.Column("failure", sa.Text))


def downgrade() -> None:
    """Take the column away; the documents keep what it said."""
    op.drop_column("run", "failure")
