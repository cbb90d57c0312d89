"""Events: from the lines of a raw batch to the rows of the curated Parquet, as pure functions."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

LINES = (
    "object_key string, line int, problem string, id string, event_type string, received_at string, "
    "payload string, text binary"
)
"""A raw batch, see `tallyhouse.events.take.LINES`."""

CURATED = (
    "id string, received_at timestamp, payload string, fields map<string,string>, "
    "_object string, _line int, _run string, event_type string, day date"
)
"""The curated rows; the last two are their partition."""

OUTCOME = "_outcome"
_LONG = 1024


def events(lines: DataFrame, run_id: str) -> DataFrame:
    """The lines that are events, as curated rows.

    The payload stays the text that was sent. Beside it, `fields` maps its first level to text, so that a
    field that nobody had yesterday can be asked for today without a change of schema.

    Args:
        lines: A raw batch.
        run_id: The run, kept in `_run`.

    Returns:
        Columns as in `CURATED`.
    """
    received_at = F.to_timestamp("received_at", "yyyy-MM-dd HH:mm:ss.SSSSSS")
    return lines.where(F.col("problem").isNull()).select(
        "id",
        received_at.alias("received_at"),
        "payload",
        F.from_json("payload", "map<string,string>").alias("fields"),
        F.col("object_key").alias("_object"),
        F.col("line").alias("_line"),
        F.lit(run_id).alias("_run"),
        "event_type",
        F.to_date(received_at).alias("day"),
    )


def decided(rows: DataFrame, known: DataFrame | None) -> DataFrame:
    """Says of each event whether it is new, or one that is there already.

    The first one received stays. An event keeps its id, type and time however often it is written, so
    one that was curated before is found in its own partition.

    Args:
        rows: The run's events.
        known: `id`, `event_type`, `day` of what the partitions that the run touches hold; None for none.

    Returns:
        The rows with `_outcome`, `curated` or `superseded`.
    """
    first = Window.partitionBy("id").orderBy("received_at", "_object", "_line")
    again = F.row_number().over(first) > 1
    if known is None:
        return rows.withColumn(OUTCOME, F.when(again, "superseded").otherwise("curated"))
    there = known.select("id", "event_type", "day", F.lit(True).alias("_there"))
    return (
        rows.withColumn("_again", again)
        .join(there, ["id", "event_type", "day"], "left")
        .withColumn(OUTCOME, F.when(F.col("_again") | F.col("_there"), "superseded").otherwise("curated"))
        .drop("_again", "_there")
    )


def quarantined(lines: DataFrame, run_id: str) -> DataFrame:
    """The lines that are no events: where they stand, why, and every byte of them."""
    return lines.where(F.col("problem").isNotNull()).select(
        "object_key", "line", F.col("problem").alias("reason"), "text", F.lit(run_id).alias("run_id")
    )


def digest() -> Column:
    """The sum of a hash over each row's id, type, time and payload; 0 for no rows.

    The first 60 bits of an MD5, summed as an exact number, so that the order of rows does not matter.
    """
    texts = (
        F.col("id"),
        F.col("event_type"),
        F.date_format("received_at", "yyyy-MM-dd HH:mm:ss.SSSSSS"),
        F.when(F.octet_length("payload") > _LONG, F.md5("payload")).otherwise(F.col("payload")),
    )
    fields = [F.coalesce(F.concat(F.octet_length(text), F.lit(":"), text), F.lit("N")) for text in texts]
    bits = F.conv(F.substring(F.md5(F.concat(*fields)), 1, 15), 16, 10).cast("decimal(20,0)")
    return F.coalesce(F.sum(bits), F.lit(0).cast("decimal(30,0)"))
