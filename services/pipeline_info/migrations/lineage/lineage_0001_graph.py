"""Lineage: the events as they came, and the graph that they add up to. For PostgreSQL and SQLite."""

import sqlalchemy as sa
from alembic import op

revision = "lineage_0001"
down_revision = None

TIME = sa.TIMESTAMP(timezone=True)
NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "lineage_event",
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column("event_time", TIME, nullable=False),
        sa.Column("event_type", sa.Text),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("doc", sa.JSON, nullable=False),
    )
    op.create_index("lineage_event_by_run", "lineage_event", ["run_id", "event_time"])
    op.create_index("lineage_event_by_job", "lineage_event", ["job", sa.text("event_time DESC")])
    make_graph()


def make_graph() -> None:
    """Make the tables of edges between nodes, and of where each column comes from."""
    op.create_table(
        "lineage_edge",
        sa.Column("source", NAME, primary_key=True),
        sa.Column("target", NAME, primary_key=True),
        sa.Column("last_seen", TIME, nullable=False),
    )
    op.create_index("lineage_edge_by_target", "lineage_edge", ["target"])
    op.create_index("lineage_edge_by_last_seen", "lineage_edge", [sa.text("last_seen DESC")])
    op.create_table(
        "lineage_column",
        sa.Column("target", NAME, primary_key=True),
        sa.Column("target_field", NAME, primary_key=True),
        sa.Column("source", NAME, primary_key=True),
        sa.Column("source_field", NAME, primary_key=True),
        sa.Column("how", sa.Text, nullable=False),
        sa.Column("last_seen", TIME, nullable=False),
    )
    op.create_index("lineage_column_by_source", "lineage_column", ["source"])


def downgrade() -> None:
    """Take the tables away, with all lineage."""
    for table in ("lineage_column", "lineage_edge", "lineage_event"):
        op.drop_table(table)
