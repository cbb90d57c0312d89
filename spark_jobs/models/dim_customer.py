"""dim_customer: customers conformed of three tables of two services, type 2."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.scd2 import versions

SOURCE = "orders.customers"


def build(
    customers: DataFrame, users: DataFrame, addresses: DataFrame, existing: DataFrame | None
) -> DataFrame:
    """All versions of the customers that the run touches.

    A version begins when the customer, their account or their default shipping address changed in
    its source.

    Args:
        customers: Current rows of `orders.customers`: those customers.
        users: Current rows of `auth.users`: their accounts.
        addresses: Current rows of `orders.addresses`: all their addresses.
        existing: Those customers' rows of `dwh.dim_customer`; None where there are none.

    Returns:
        Rows of `dwh.dim_customer`. What the customer has no account or default shipping
        address for is NULL; of two, the one that changed last counts.
    """
    newest = F.struct("updated_at", "id")
    accounts = (
        users.where("customer_id IS NOT NULL")
        .groupBy(F.col("customer_id").alias("_account_of"))
        .agg(
            F.max_by(F.struct("id", "locale", "is_active", "is_verified", "updated_at"), newest).alias(
                "_user"
            )
        )
    )
    homes = (
        addresses.where("kind = 'shipping' AND is_default")
        .groupBy(F.col("customer_id").alias("_home_of"))
        .agg(F.max_by(F.struct("country", "region", "city", "updated_at"), newest).alias("_home"))
    )
    current = (
        customers.join(accounts, F.col("id") == F.col("_account_of"), "left")
        .join(homes, F.col("id") == F.col("_home_of"), "left")
        .select(
            F.col("id").alias("customer_id"),
            F.col("_user.id").alias("user_id"),
            F.concat_ws(" ", "first_name", "last_name").alias("full_name"),
            "email",
            "phone",
            "segment",
            "marketing_opt_in",
            F.col("_home.country").alias("country"),
            F.col("_home.region").alias("region"),
            F.col("_home.city").alias("city"),
            F.col("_user.locale").alias("locale"),
            F.col("_user.is_active").alias("is_active"),
            F.col("_user.is_verified").alias("is_verified"),
            "registered_at",
            F.greatest("updated_at", "_user.updated_at", "_home.updated_at").alias("version_at"),
        )
    )
    return versions(current, existing, natural_key="customer_id", surrogate="customer_key", source=SOURCE)
