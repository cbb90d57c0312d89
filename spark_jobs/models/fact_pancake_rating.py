"""fact_pancake_rating: how each pancake came out, one row a pancake."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.models import dim_pancake
from spark_jobs.models.common import business_date, conform, date_key, surrogate_key

SCHEMA = """
    pancake_id int, pancake_key bigint, date_key int, business_date date, created_at timestamp,
    fluffiness_level int, magical_factor decimal(6,2), taste_notes string
"""


def build(pancakes: DataFrame) -> DataFrame:
    """Every pancake's ratings.

    Args:
        pancakes: Current rows of `pancake.pancakes`.

    Returns:
        Rows of `dwh.fact_pancake_rating`.
    """
    rows = pancakes.withColumnRenamed("id", "pancake_id").withColumns(
        {
            "pancake_key": surrogate_key(dim_pancake.SOURCE, F.col("pancake_id")),
            "business_date": business_date(F.col("created_at")),
        }
    )
    return conform(rows.withColumn("date_key", date_key(F.col("business_date"))), SCHEMA)
