"""Lineage by environment, with names of any length, and when each part was last reported.

An index holds the hashes of names. For PostgreSQL and SQLite: hashes are Python's in both.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from services.pipeline_info.migrations.lineage.lineage_0001_graph import make_graph

revision = "lineage_0002"
down_revision = "lineage_0001"

TIME = sa.TIMESTAMP(timezone=True)
KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ROWS = 1000


def upgrade() -> None:
    """Make the new tables, carry what the old ones hold over, drop those."""
    # What an event did not say the environment of has the empty one: only who may see all sees it.
    op.add_column("lineage_event", sa.Column("environment", sa.Text, nullable=False, server_default=""))
    op.add_column("lineage_event", sa.Column("reported_at", TIME))
    op.drop_index("lineage_event_by_job", "lineage_event")
    op.create_table(
        "lineage_node",
        sa.Column("environment", sa.Text, primary_key=True),
        sa.Column("node_key", KEY, primary_key=True),
        *_texts("node", "folded"),
        *_seen(),
    )
    op.create_table(
        "lineage_link",
        sa.Column("environment", sa.Text, primary_key=True),
        sa.Column("source_key", KEY, primary_key=True),
        sa.Column("target_key", KEY, primary_key=True),
        *_texts("source", "target"),
        *_seen(),
    )
    op.create_index("lineage_link_by_source", "lineage_link", ["source_key"])
    op.create_index("lineage_link_by_target", "lineage_link", ["target_key"])
    op.create_table(
        "lineage_origin",
        sa.Column("environment", sa.Text, primary_key=True),
        sa.Column("origin_key", KEY, primary_key=True),  # of target, its field, source and its field
        sa.Column("target_key", KEY, nullable=False),
        sa.Column("source_key", KEY, nullable=False),
        *_texts("target", "target_field", "source", "source_field", "how"),
        *_seen(),
    )
    op.create_index("lineage_origin_by_target", "lineage_origin", ["target_key"])
    op.create_index("lineage_origin_by_source", "lineage_origin", ["source_key"])
    _carry(
        "SELECT source, target, last_seen FROM lineage_edge",
        "INSERT INTO lineage_link VALUES ('', :k0, :k1, :c0, :c1, :c2, :c2)",
        lambda row: (_key(row[0]), _key(row[1])),
    )
    _carry(
        "SELECT target, target_field, source, source_field, how, last_seen FROM lineage_column",
        "INSERT INTO lineage_origin VALUES ('', :k0, :k1, :k2, :c0, :c1, :c2, :c3, :c4, :c5, :c5)",
        lambda row: (_key("".join(map(_key, row[:4]))), _key(row[0]), _key(row[2])),
    )
    _carry(
        "SELECT node, max(last_seen) FROM (SELECT source AS node, last_seen FROM lineage_edge"
        " UNION ALL SELECT target, last_seen FROM lineage_edge) AS ends GROUP BY node",
        "INSERT INTO lineage_node VALUES ('', :k0, :c0, :k1, :c1, :c1)",
        lambda row: (_key(row[0]), row[0].lower()),
    )
    op.drop_table("lineage_edge")
    op.drop_table("lineage_column")


def downgrade() -> None:
    """Go back to one graph for all environments; the newest report of a thing counts.

    It fails, and changes nothing, where a name is too long for an index of PostgreSQL.
    """
    make_graph()
    op.execute(
        "INSERT INTO lineage_edge SELECT source, target, max(last_seen) FROM lineage_link"
        " GROUP BY source, target"
    )
    op.execute(
        "INSERT INTO lineage_column SELECT target, target_field, source, source_field, how, last_seen FROM"
        " (SELECT *, row_number() OVER (PARTITION BY origin_key ORDER BY last_seen DESC, environment)"
        " AS place FROM lineage_origin) AS placed WHERE place = 1"
    )
    for table in ("lineage_origin", "lineage_link", "lineage_node"):
        op.drop_table(table)
    op.create_index("lineage_event_by_job", "lineage_event", ["job", sa.text("event_time DESC")])
    op.drop_column("lineage_event", "reported_at")
    op.drop_column("lineage_event", "environment")


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _seen() -> list[sa.Column[Any]]:
    return [sa.Column(name, TIME, nullable=False) for name in ("last_seen", "reported_at")]


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _carry(query: str, insert: str, keys: Callable[[Sequence[Any]], Sequence[str]]) -> None:
    """Copy rows: their columns are bound as c0, c1, ..., and what `keys` makes of them as k0, k1, ..."""
    connection = op.get_bind()
    found = connection.execute(sa.text(query), execution_options={"yield_per": ROWS})
    for rows in found.partitions():
        connection.execute(
            sa.text(insert),
            [
                {f"c{number}": value for number, value in enumerate(row)}
                | {f"k{number}": value for number, value in enumerate(keys(row))}
                for row in rows
            ],
        )
