"""TechMarket: dimensions first, then the facts that point at their versions."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.models import (
    dim_category,
    dim_customer,
    dim_payment_method,
    dim_product,
    fact_order_line,
    fact_payment,
    fact_refund,
)
from spark_jobs.models.common import conform
from spark_jobs.night import Night
from spark_jobs.scd2 import changed_since

# Which columns of tonight's rows are keys of which kind.
KEYS = (
    ("customers", "id", "customer"),
    ("users", "customer_id", "customer"),
    ("users", "id", "user"),
    ("addresses", "customer_id", "customer"),
    ("addresses", "id", "address"),
    ("products", "id", "product"),
    ("product_prices", "product_id", "product"),
    ("product_prices", "id", "price"),
    ("categories", "id", "category"),
    ("payment_methods", "id", "method"),
    ("orders", "id", "order"),
    ("order_items", "order_id", "order"),
    ("payments", "order_id", "order"),
    ("payments", "id", "payment"),
    ("refunds", "payment_id", "payment"),
    ("orders", "customer_id", "customer of order"),
    ("orders", "shipping_address_id", "address of order"),
    ("order_items", "product_id", "product of order"),
)


def build(night: Night) -> None:
    """Writes the increments of every model."""
    with night.warehouse() as keys:
        if keys:
            keys.push(touched_keys(night))
            keys.run("techmarket/dimensions.sql")
        categories = night.current_whole("categories")
        methods = night.current_whole("payment_methods")
        products = dim_product.build(
            night.current("products", "id", "product"),
            night.current("product_prices", "product_id", "product"),
            categories,
            night.existing("dim_product", "product_id", "product"),
        )
        customers = dim_customer.build(
            night.current("customers", "id", "customer"),
            night.current("users", "customer_id", "customer"),
            night.current("addresses", "customer_id", "customer"),
            night.existing("dim_customer", "customer_id", "customer"),
        )
        if keys:
            # Read twice: for the increment, and for what of it is new.
            products, customers = products.persist(), customers.persist()
        dimensions = {
            "dim_product": conform(products, dim_product.SCHEMA),
            "dim_customer": conform(customers, dim_customer.SCHEMA),
        }
        if night.touched("categories"):
            dimensions["dim_category"] = dim_category.build(categories)
        if night.touched("payment_methods"):
            dimensions["dim_payment_method"] = dim_payment_method.build(methods)
        night.write(dimensions)

        if keys:
            keys.push(
                changed_since(products, "product_id")
                .select(F.lit("changed product").alias("kind"), "id", "since")
                .unionByName(
                    changed_since(customers, "customer_id").select(
                        F.lit("changed customer").alias("kind"), "id", "since"
                    )
                )
            )
            products.unpersist()
            customers.unpersist()
            keys.run("techmarket/orders.sql")
            keys.run("techmarket/references.sql")
        orders = night.current("orders", "id", "order")
        payments = night.current("payments", "order_id", "order")
        customer_versions = _versions(night, "dim_customer", dim_customer.SCHEMA, "customer")
        product_versions = _versions(night, "dim_product", dim_product.SCHEMA, "product")
        night.write(
            {
                "fact_order_line": fact_order_line.build(
                    night.current("order_items", "order_id", "order"),
                    orders,
                    night.current("addresses", "id", "address of order"),
                    customer_versions,
                    product_versions,
                ),
                "fact_payment": fact_payment.build(payments, orders, methods, customer_versions),
                "fact_refund": fact_refund.build(
                    night.current("refunds", "payment_id", "payment"),
                    payments,
                    orders,
                    methods,
                    customer_versions,
                ),
            }
        )


def touched_keys(night: Night) -> DataFrame:
    """The keys of tonight's rows, and of the rows that they name: `kind`, `id` as text, `since` NULL."""
    return (
        reduce(
            DataFrame.unionByName,
            (
                night.accepted(table).select(
                    F.lit(kind).alias("kind"),
                    F.col(column).cast("string").alias("id"),
                    F.lit(None).cast("timestamp").alias("since"),
                )
                for table, column, kind in KEYS
                if night.touched(table)
            ),
        )
        .distinct()
        .coalesce(2)
    )


def _versions(night: Night, model: str, schema: str, member: str) -> DataFrame:
    """All versions of the members that the touched orders name: tonight's, else the warehouse's."""
    tonight = night.increment(model, schema)
    known = night.existing(model, f"{member}_id", f"{member} of order")
    if known is None:
        return tonight
    others = conform(known, schema).join(
        tonight.select(f"{member}_id").distinct(), f"{member}_id", "left_anti"
    )
    return tonight.unionByName(others)
