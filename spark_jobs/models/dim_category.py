"""dim_category: the tree of categories, type 1, with each one's way from its root."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.models.common import surrogate_key

SOURCE = "catalog.categories"
MAX_LEVELS = 8
"""Deeper trees, and cycles, are refused: each level is one more join."""


def build(categories: DataFrame) -> DataFrame:
    """Every category with its place in the tree.

    A name that changes moves every path below it, so the tree is built whole.

    Args:
        categories: Current rows of `catalog.categories`, all of them.

    Returns:
        Rows of `dwh.dim_category`. `level` is 1 at a root; `path` joins names by ` > `; a category
        whose parent is not there counts as a root. The job fails on a cycle or past `MAX_LEVELS`.
    """
    parents = categories.select(
        F.col("id").alias("_id"), F.col("name").alias("_name"), F.col("parent_category_id").alias("_parent")
    )
    rows = categories.withColumns(
        {
            "path": F.col("name"),
            "root_name": F.col("name"),
            "level": F.lit(1),
            "_up": F.col("parent_category_id"),
        }
    )
    for _ in range(MAX_LEVELS):
        found = F.col("_id").isNotNull()
        rows = rows.join(F.broadcast(parents), F.col("_up") == F.col("_id"), "left").select(
            *categories.columns,
            F.when(found, F.concat_ws(" > ", "_name", "path")).otherwise(F.col("path")).alias("path"),
            F.coalesce("_name", "root_name").alias("root_name"),
            (F.col("level") + found.cast("int")).alias("level"),
            F.col("_parent").alias("_up"),
        )
    too_deep = F.raise_error(
        F.concat(F.lit("catalog.categories: a cycle, or more than 8 levels, at category "), F.col("id"))
    )
    return (
        rows.withColumn("level", F.when(F.col("level") > MAX_LEVELS, too_deep).otherwise(F.col("level")))
        .withColumnRenamed("id", "category_id")
        .withColumn("category_key", surrogate_key(SOURCE, F.col("category_id")))
    )
