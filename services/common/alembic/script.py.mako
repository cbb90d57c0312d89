"""${message}."""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Forward."""
    raise NotImplementedError


def downgrade() -> None:
    """Back: what `upgrade` made is gone again, and the rows of before are there."""
    raise NotImplementedError
