"""fact_pancake_rating: how each pancake came out, one row per pancake."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.models import dim_pancake
from spark_jobs.models.common import business_date, date_key, surrogate_key


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
    return rows.withColumn("date_key", date_key(F.col("business_date")))
