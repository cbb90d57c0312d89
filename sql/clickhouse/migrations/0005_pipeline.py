"""What a run carries is called a pipeline."""

from alembic import op
from sqlalchemy import text

from tallyhouse.migrate import run_sql_beside

revision = "0005"
down_revision = "0004"

RENAMED = (
    "SELECT count() FROM system.columns WHERE database = 'dwh' AND table = 'etl_run' AND name = 'pipeline'"
)


def upgrade() -> None:
    """Run the SQL file beside this one, unless it was run before: later columns would be lost."""
    if not op.get_bind().scalar(text(RENAMED)):
        run_sql_beside(__file__)
