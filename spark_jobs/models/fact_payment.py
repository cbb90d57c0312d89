"""fact_payment: one row per attempt to pay an order."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.models import dim_payment_method
from spark_jobs.models.common import business_date, date_key, or_unknown, surrogate_key
from spark_jobs.scd2 import assign


def build(
    payments: DataFrame, orders: DataFrame, payment_methods: DataFrame, customer_versions: DataFrame
) -> DataFrame:
    """The payments that the run touches; one whose order is not there yet has an unknown customer.

    Args:
        payments: Current rows of `payments.payments`: those payments.
        orders: Current rows of `orders.orders`: what they pay.
        payment_methods: Current rows of `payments.payment_methods`, all of them.
        customer_versions: Rows of `dwh.dim_customer`: all versions of those orders' customers.

    Returns:
        Rows of `dwh.fact_payment`.
    """
    buyers = orders.select(F.col("id").alias("_order"), "customer_id")
    rows = payments.withColumnRenamed("id", "payment_id").join(
        buyers, F.col("order_id") == F.col("_order"), "left"
    )
    rows = assign(
        rows,
        customer_versions,
        natural_key="customer_id",
        at="attempted_at",
        take={"customer_key": "customer_key"},
    )
    rows = with_method(rows, payment_methods)
    rows = rows.withColumn("business_date", business_date(F.col("attempted_at")))
    return rows.withColumn("date_key", date_key(F.col("business_date")))


def with_method(rows: DataFrame, payment_methods: DataFrame) -> DataFrame:
    """Rows with `method_id`, and the `payment_method_key` of it."""
    known = payment_methods.select(
        F.col("id").alias("_method"),
        surrogate_key(dim_payment_method.SOURCE, F.col("id")).alias("_method_key"),
    )
    return rows.join(F.broadcast(known), F.col("method_id") == F.col("_method"), "left").withColumn(
        "payment_method_key", or_unknown(F.col("_method_key"))
    )
