"""dim_payment_method: the ways to pay, type 1."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.models.common import conform, surrogate_key

SCHEMA = """
    payment_method_key bigint, method_id smallint, code string, name string, provider string,
    is_online boolean, is_active boolean
"""
SOURCE = "payments.payment_methods"


def build(payment_methods: DataFrame) -> DataFrame:
    """Every way to pay.

    Args:
        payment_methods: Current rows of `payments.payment_methods`.

    Returns:
        Rows of `dwh.dim_payment_method`.
    """
    return conform(
        payment_methods.withColumnRenamed("id", "method_id").withColumn(
            "payment_method_key", surrogate_key(SOURCE, F.col("method_id"))
        ),
        SCHEMA,
    )
