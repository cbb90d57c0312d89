"""dim_pancake: the pancakes, type 1."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.models.common import surrogate_key

SOURCE = "pancake.pancakes"


def build(pancakes: DataFrame) -> DataFrame:
    """Every pancake.

    Args:
        pancakes: Current rows of `pancake.pancakes`.

    Returns:
        Rows of `dwh.dim_pancake`.
    """
    return pancakes.withColumnRenamed("id", "pancake_id").withColumn(
        "pancake_key", surrogate_key(SOURCE, F.col("pancake_id"))
    )
