"""fact_refund: one row per refund."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.models.common import business_date, date_key
from spark_jobs.models.fact_payment import with_method
from spark_jobs.scd2 import assign


def build(
    refunds: DataFrame,
    payments: DataFrame,
    orders: DataFrame,
    payment_methods: DataFrame,
    customer_versions: DataFrame,
) -> DataFrame:
    """The refunds that the run touches; one whose payment is not there yet is kept, the rest unknown.

    Args:
        refunds: Current rows of `payments.refunds`: those refunds.
        payments: Current rows of `payments.payments`: what they give back.
        orders: Current rows of `orders.orders`: what those payments paid.
        payment_methods: Current rows of `payments.payment_methods`, all of them.
        customer_versions: Rows of `dwh.dim_customer`: all versions of those orders' customers.

    Returns:
        Rows of `dwh.fact_refund`.
    """
    paid = payments.select(F.col("id").alias("_payment"), "order_id", "method_id")
    buyers = orders.select(F.col("id").alias("_order"), "customer_id")
    rows = (
        refunds.withColumnRenamed("id", "refund_id")
        .join(paid, F.col("payment_id") == F.col("_payment"), "left")
        .join(buyers, F.col("order_id") == F.col("_order"), "left")
    )
    rows = assign(
        rows,
        customer_versions,
        natural_key="customer_id",
        at="refunded_at",
        take={"customer_key": "customer_key"},
    )
    rows = with_method(rows, payment_methods)
    rows = rows.withColumn("business_date", business_date(F.col("refunded_at")))
    return rows.withColumn("date_key", date_key(F.col("business_date")))
