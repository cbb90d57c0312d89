"""fact_order_line: one row per order item."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.models.common import business_date, date_key
from spark_jobs.scd2 import assign


def build(
    order_items: DataFrame,
    orders: DataFrame,
    addresses: DataFrame,
    customer_versions: DataFrame,
    product_versions: DataFrame,
) -> DataFrame:
    """The lines that the run touches; an item whose order is not there yet is kept, its order unknown.

    Args:
        order_items: Current rows of `orders.order_items`: those lines.
        orders: Current rows of `orders.orders`: theirs.
        addresses: Current rows of `orders.addresses`: where those orders go.
        customer_versions: Rows of `dwh.dim_customer`: all versions of those orders' customers.
        product_versions: Rows of `dwh.dim_product`: all versions of those lines' products.

    Returns:
        Rows of `dwh.fact_order_line`.
    """
    heads = orders.select(
        F.col("id").alias("_order"),
        "order_number",
        "customer_id",
        "shipping_address_id",
        "status",
        "channel",
        "currency",
        "ordered_at",
    )
    places = addresses.select(
        F.col("id").alias("_address"),
        F.col("country").alias("ship_country"),
        F.col("region").alias("ship_region"),
        F.col("city").alias("ship_city"),
    )
    lines = (
        order_items.withColumnRenamed("id", "order_item_id")
        .join(heads, F.col("order_id") == F.col("_order"), "left")
        .join(places, F.col("shipping_address_id") == F.col("_address"), "left")
    )
    lines = assign(
        lines,
        customer_versions,
        natural_key="customer_id",
        at="ordered_at",
        take={"customer_key": "customer_key"},
    )
    lines = assign(
        lines,
        product_versions,
        natural_key="product_id",
        at="ordered_at",
        take={"product_key": "product_key", "category_key": "category_key"},
    )
    lines = lines.withColumn("business_date", business_date(F.col("ordered_at")))
    return lines.withColumn("date_key", date_key(F.col("business_date")))
