"""The table, as docs/db/pancake_postgres.dbml has it."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "pancakes",
        sa.Column("id", sa.Integer, sa.Identity(always=False), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("fluffiness_level", sa.Integer, nullable=False, comment="1 to 10"),
        sa.Column("syrup_type", sa.String(50), nullable=False),
        sa.Column("is_buttery", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("magical_factor", sa.Numeric(6, 2), nullable=False, server_default=sa.text("0")),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            nullable=False,
            server_default=sa.text("CURRENT_TIMESTAMP"),
        ),
        sa.Column("taste_notes", sa.Text),
        comment="One pancake a row, as its document has it",
    )


def downgrade() -> None:
    """Take the table away, with all pancakes."""
    op.drop_table("pancakes")
