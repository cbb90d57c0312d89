"""The table, as its document has it."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table, and the index that its pages are read by."""
    op.create_table(
        "datasets",
        sa.Column("id", sa.Integer, sa.Identity(always=False), primary_key=True),
        # By its bytes: the same order on every server, whatever its locale is.
        sa.Column("name", sa.String(255, collation="C"), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("source_url", sa.String(2048)),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("now()")),
        comment="One dataset a row",
    )
    op.create_index("datasets_name_id", "datasets", ["name", "id"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("datasets")
