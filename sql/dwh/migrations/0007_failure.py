"""Why a run failed, and the runs that pipeline-info refused."""

from tallyhouse.migrate import run_sql_beside

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run the SQL file beside this one."""
    run_sql_beside(__file__)
