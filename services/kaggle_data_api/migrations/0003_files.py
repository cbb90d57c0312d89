"""What was fetched of a dataset: its version and its files."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

_COLUMNS = ("ref", "version", "licence", "files", "total_bytes", "updated_at")


def upgrade() -> None:
    """Add the columns; datasets that are there were never fetched."""
    columns = (
        sa.Column("ref", sa.String(201)),
        sa.Column("version", sa.Integer),
        sa.Column("licence", sa.String(200)),
        sa.Column("files", postgresql.JSONB, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("total_bytes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("now()")),
    )
    for column in columns:
        op.add_column("datasets", column)
    op.execute("UPDATE datasets SET updated_at = created_at")
    op.create_unique_constraint("datasets_ref", "datasets", ["ref"])


def downgrade() -> None:
    """Drop the columns, and with them what was fetched; name, description, address and time stay."""
    for column in _COLUMNS:
        op.drop_column("datasets", column)
