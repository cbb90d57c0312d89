"""The words of a dataset, to be found by."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# PostgreSQL would take `a/b` for a path and `a.b` for a host, and either for one word.
_WORDS = r"""
CREATE FUNCTION dataset_words(said text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN translate(said, '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32))
"""


def upgrade() -> None:
    """Add the column that a search looks at; PostgreSQL keeps it up to date."""
    op.execute(_WORDS)
    op.add_column(
        "datasets",
        sa.Column(
            "search",
            sa.dialects.postgresql.TSVECTOR,
            sa.Computed(
                "to_tsvector('simple', dataset_words(name || ' ' || coalesce(description, '')))",
                persisted=True,
            ),
        ),
    )
    op.create_index("datasets_search", "datasets", ["search"], postgresql_using="gin")


def downgrade() -> None:
    """Drop it."""
    op.drop_index("datasets_search", "datasets")
    op.drop_column("datasets", "search")
    op.execute("DROP FUNCTION dataset_words")
