"""Keys of rows that differ, where a line of the ledger does not close."""

from tallyhouse.migrate import run_sql_beside

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Run the SQL file beside this one."""
    run_sql_beside(__file__)
