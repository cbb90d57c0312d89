"""Slowly changing dimensions, type 2: versions with validity intervals, and facts that point at them."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from spark_jobs.models.common import or_unknown, surrogate_key

OPEN_PAST = "1900-01-01 00:00:00"
OPEN_FUTURE = "2299-12-31 00:00:00"
"""The bounds of time, UTC: what ClickHouse's DateTime64 can hold."""


def versions(
    current: DataFrame, existing: DataFrame | None, *, natural_key: str, surrogate: str, source: str
) -> DataFrame:
    """All versions of the members in `current`, their intervals worked out again.

    Versions are told apart by (natural key, `version_at`): the same state seen twice is one version.
    The first one is open to the past, each ends where the next begins, the last is open to the future.
    A state that differs from the last version and yet has no later time of its own (an account that was
    unlinked takes its time with it) begins a microsecond after that version.

    Args:
        current: One row per member: its attributes and `version_at` (UTC).
        existing: The versions that the warehouse has of them, with the same columns and `valid_to`; None for
            none. Of a member that is not in `current` they end where they end: the source deleted it.
        natural_key: The member's key in the source.
        surrogate: Name of the surrogate key's column.
        source: What goes into the surrogate key, such as `orders.customers`.

    Returns:
        `current`'s columns and surrogate key, `valid_from`, `valid_to`, `is_current`.
    """
    attributes = current.columns
    by_member = Window.partitionBy(natural_key).orderBy("version_at")
    if existing is None:
        rows = current
        previous, following = F.lit(None), F.lit(None).cast("timestamp")
        end = F.lit(None).cast("timestamp")
    else:
        late = _after_the_last(current, existing.select(*attributes, "valid_to"), natural_key)
        both = late.withColumns({"_new": F.lit(1), "_end": F.lit(None).cast("timestamp")}).unionByName(
            existing.select(*attributes, F.lit(0).alias("_new"), F.col("valid_to").alias("_end"))
        )
        # Of one version seen on both sides, the older side comes first and gives way.
        seen = Window.partitionBy(natural_key).orderBy("version_at", "_new")
        rows = (
            both.withColumn("_next", F.lead("version_at").over(seen))
            .where("_next IS NULL OR _next <> version_at")
            .select(*attributes, "_end")
        )
        previous, following = (F.lag("version_at").over(by_member), F.lead("version_at").over(by_member))
        end = F.when(F.col("_end") < _instant(OPEN_FUTURE), F.col("_end"))
    return (
        rows.withColumn("_previous", previous)
        .withColumn("_following", following)
        .withColumn("_ended", end)
        .select(
            surrogate_key(source, F.col(natural_key), F.col("version_at")).alias(surrogate),
            *attributes,
            F.when(F.col("_previous").isNull(), _instant(OPEN_PAST))
            .otherwise(F.col("version_at"))
            .alias("valid_from"),
            F.coalesce("_following", "_ended", _instant(OPEN_FUTURE)).alias("valid_to"),
            (F.col("_following").isNull() & F.col("_ended").isNull()).alias("is_current"),
        )
    )


def _after_the_last(current: DataFrame, existing: DataFrame, natural_key: str) -> DataFrame:
    """Current states in their place after the last version; those that this version shows are left out."""
    state = F.struct(*(name for name in current.columns if name != "version_at"))
    last = existing.groupBy(F.col(natural_key).alias("_member")).agg(
        F.max("version_at").alias("_last"),
        F.max_by(state, "version_at").alias("_state"),
        F.max("valid_to").alias("_until"),
    )
    # A member that had ended and is back begins a version of its own, whatever time it bears.
    is_back = F.col("_until") < _instant(OPEN_FUTURE)
    timeless = F.coalesce(
        (F.col("version_at") < F.col("_last")) | (is_back & (F.col("version_at") <= F.col("_last"))),
        F.lit(False),
    )
    return (
        current.join(last, F.col(natural_key) == F.col("_member"), "left")
        .where(~timeless | ~state.eqNullSafe(F.col("_state")) | F.coalesce(is_back, F.lit(False)))
        .withColumn(
            "version_at",
            F.when(timeless, F.col("_last") + F.expr("INTERVAL 0.000001 SECOND")).otherwise(
                F.col("version_at")
            ),
        )
        .select(*current.columns)
    )


def assign(
    facts: DataFrame, members: DataFrame, *, natural_key: str, at: str, take: dict[str, str]
) -> DataFrame:
    """Points each fact at the version that was valid when it happened.

    Args:
        facts: With the member's natural key and the event's time.
        members: All versions of the members that the facts name.
        natural_key: The key's column on both sides.
        at: The event's time (UTC) among the facts.
        take: Surrogate keys to take, by the column of `members`, under the name among the facts.

    Returns:
        The facts, none dropped and none doubled, with the columns of `take`; the unknown member where
        there is no version.
    """
    lookup = members.select(
        F.col(natural_key).alias("_natural"),
        F.col("valid_from").alias("_from"),
        F.col("valid_to").alias("_to"),
        *(F.col(column).alias(f"_take_{name}") for column, name in take.items()),
    )
    event = F.col(at)
    matches = (F.col(natural_key) == F.col("_natural")) & (event >= F.col("_from")) & (event < F.col("_to"))
    joined = facts.join(lookup, matches, "left")
    taken: list[Column] = [or_unknown(F.col(f"_take_{name}")).alias(name) for name in take.values()]
    return joined.select(*facts.columns, *taken)


def _instant(text: str) -> Column:
    return F.lit(text).cast("timestamp")
