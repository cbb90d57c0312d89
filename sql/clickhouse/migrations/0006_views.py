"""What people query are views, each over two tables of which one is seen."""

from alembic import op
from sqlalchemy import text

from tallyhouse.migrate import run_sql_beside

revision = "0006"
down_revision = "0005"

VIEWS = (
    "dim_pancake",
    "fact_pancake_rating",
    "mart_pancake_quality",
    "dim_category",
    "dim_customer",
    "dim_payment_method",
    "dim_product",
    "fact_payment",
    "fact_refund",
    "fact_order_line",
    "mart_customer_cohorts",
    "mart_payment_conversion",
    "mart_revenue_daily",
)


def upgrade() -> None:
    """Put each table that is there in a view's first place, and then run the SQL file beside this one."""
    connection = op.get_bind()
    found = connection.execute(
        text("SELECT name FROM system.tables WHERE database = 'dwh' AND engine LIKE '%MergeTree'")
    ).scalars()
    for name in set(found).intersection(VIEWS):
        # 0001 made the other one, when it was repeated; it is empty.
        connection.execute(text(f"DROP TABLE IF EXISTS dwh.{name}__a SYNC"))
        connection.execute(text(f"RENAME TABLE dwh.{name} TO dwh.{name}__a"))
    run_sql_beside(__file__)
