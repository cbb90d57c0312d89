"""What models share: surrogate keys, business days, the final shape."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from tallyhouse.contracts import TableContract
from tallyhouse.models.definition import BUSINESS_ZONE, UNKNOWN_KEY

# `dim_date` ends there; an event outside falls on its unknown member.
FIRST_DATE, LAST_DATE = "2015-01-01", "2035-12-31"


def surrogate_key(source: str, natural_key: Column, version_at: Column | None = None) -> Column:
    """The deterministic key of a dimension's row: 60 bits of MD5 as BIGINT.

    Args:
        source: The table that the member comes from, such as `orders.customers`.
        natural_key: Its key there.
        version_at: For SCD2, the source's time of the version (UTC); None for type 1.
    """
    version = F.lit("") if version_at is None else F.date_format(version_at, "yyyy-MM-dd HH:mm:ss.SSSSSS")
    text = F.concat(F.lit(f"{source}|"), natural_key.cast("string"), F.lit("|"), version)
    return F.conv(F.substring(F.md5(text), 1, 15), 16, 10).cast("bigint")


def business_date(instant: Column) -> Column:
    """The calendar day in Europe/Kyiv of an instant (UTC)."""
    return F.to_date(F.from_utc_timestamp(instant, BUSINESS_ZONE))


def date_key(day: Column) -> Column:
    """The key in `dim_date` of a day; the unknown member where it has none."""
    known = day.between(F.lit(FIRST_DATE).cast("date"), F.lit(LAST_DATE).cast("date"))
    return F.when(known, F.date_format(day, "yyyyMMdd").cast("int")).otherwise(F.lit(UNKNOWN_KEY))


def or_unknown(key: Column) -> Column:
    """The key, or that of the unknown member."""
    return F.coalesce(key, F.lit(UNKNOWN_KEY).cast("bigint"))


def conform(rows: DataFrame, schema: str) -> DataFrame:
    """Exactly the model's columns, in order and in their types.

    Args:
        rows: With at least those columns.
        schema: As DDL.
    """
    return rows.select(
        *(F.col(field.name).cast(field.dataType).alias(field.name) for field in fields_of(schema))
    )


def fields_of(schema: str) -> list[StructField]:
    """The columns of a schema as DDL."""
    parsed = StructType.fromDDL(schema)
    assert isinstance(parsed, StructType)  # noqa: S101 - its signature promises less
    return parsed.fields


def newest_of(accepted: DataFrame, ods: DataFrame | None, contract: TableContract) -> DataFrame:
    """The current rows: what was seen last, of what the run brought and what the warehouse had.

    Args:
        accepted: The run's rows of the table, one per key.
        ods: The warehouse's rows that matter to the run; None where it has none.
        contract: The table.

    Returns:
        The contract's columns, one row per key; keys that the source deleted are left out.
    """
    names = contract.column_names
    if ods is None:
        return accepted.select(*names)
    both = accepted.withColumn("_deleted_at", F.lit(None).cast("timestamp")).unionByName(ods)
    whole = F.struct(*names, "_deleted_at").alias("_row")
    seen = F.greatest("_snapshot", "_deleted_at")
    newest = F.max_by(whole, F.struct(seen, F.xxhash64(*names))).alias("_row")
    rows = both.groupBy(*(F.col(name).alias(f"_key_{name}") for name in contract.key)).agg(newest)
    return rows.where("_row._deleted_at IS NULL").select(*(F.col(f"_row.{name}") for name in names))
