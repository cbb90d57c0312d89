"""What is remembered of rows, to find what a cursor does not show."""

from tallyhouse.migrate import run_sql_beside

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Run the SQL file beside this one."""
    run_sql_beside(__file__)
