"""dim_product: products with their list price, type 2."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.models import dim_category
from spark_jobs.models.common import or_unknown, surrogate_key
from spark_jobs.scd2 import versions

SOURCE = "catalog.products"


def build(
    products: DataFrame, product_prices: DataFrame, categories: DataFrame, existing: DataFrame | None
) -> DataFrame:
    """All versions of the products that the run touches.

    A version begins when the product or its list price changed in the source.

    Args:
        products: Current rows of `catalog.products`: those products.
        product_prices: Current rows of `catalog.product_prices`: all prices of those products.
        categories: Current rows of `catalog.categories`, all of them.
        existing: Those products' rows of `dwh.dim_product`; None where there are none.

    Returns:
        Rows of `dwh.dim_product`. The list price is the one with the latest `valid_from`;
        a category that is not there is the unknown member.
    """
    latest = F.struct("valid_from", "updated_at", "id")
    prices = product_prices.groupBy(F.col("product_id").alias("_product")).agg(
        F.max_by(F.struct("price", "currency", "updated_at"), latest).alias("_price")
    )
    current = products.join(prices, F.col("id") == F.col("_product"), "left").select(
        F.col("id").alias("product_id"),
        "sku",
        "name",
        "brand",
        "category_id",
        F.col("_price.price").alias("list_price"),
        F.col("_price.currency").alias("list_currency"),
        "is_active",
        "launched_on",
        F.greatest("updated_at", "_price.updated_at").alias("version_at"),
    )
    history = versions(current, existing, natural_key="product_id", surrogate="product_key", source=SOURCE)
    known = categories.select(
        F.col("id").alias("_category"), surrogate_key(dim_category.SOURCE, F.col("id")).alias("_category_key")
    )
    return history.join(F.broadcast(known), F.col("category_id") == F.col("_category"), "left").withColumn(
        "category_key", or_unknown(F.col("_category_key"))
    )
