"""dim_payment_method: the ways to pay, type 1."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.models.common import surrogate_key

SOURCE = "payments.payment_methods"


def build(payment_methods: DataFrame) -> DataFrame:
    """Every way to pay.

    Args:
        payment_methods: Current rows of `payments.payment_methods`.

    Returns:
        Rows of `dwh.dim_payment_method`.
    """
    return payment_methods.withColumnRenamed("id", "method_id").withColumn(
        "payment_method_key", surrogate_key(SOURCE, F.col("method_id"))
    )
