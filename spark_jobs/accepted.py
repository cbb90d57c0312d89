"""Raw to accepted: typed, de-duplicated by key, counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from pyspark.sql import Column, DataFrame, Observation, Window
from pyspark.sql import functions as F

from spark_jobs.typed import BAD, refuse_bad_values, replaced, typed
from tallyhouse.contracts import Kind, TableContract

_RANK = "_rank"
VALUES = ("raw", "superseded", "replaced_accepted", "replaced_superseded")
"""What is counted of a column with a policy."""


@dataclass(frozen=True)
class TableReport:
    """What became of a raw batch, for the ledger.

    Attributes:
        raw: Rows in raw.
        accepted: Rows that are the newest of their key.
        superseded: Older duplicates of a key.
        bad: Values that their type cannot hold, by column.
        control_totals: By column, the sums over raw, accepted and superseded rows, as exact text.
        values: By column with a policy: values of raw, values of superseded rows, and in how many accepted
            and superseded rows something was put in the place of one.
    """

    raw: int = 0
    accepted: int = 0
    superseded: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    control_totals: dict[str, dict[str, str]] = field(default_factory=dict)
    values: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def empty(cls, contract: TableContract) -> TableReport:
        """The report of a window without rows."""
        zeros = dict.fromkeys(("raw", "accepted", "superseded"), "0")
        return cls(
            control_totals={name: dict(zeros) for name in contract.control_totals},
            values={column.name: dict.fromkeys(VALUES, 0) for column in contract.replacing},
        )


def rank(rows: DataFrame, contract: TableContract) -> DataFrame:
    """Numbers the rows of each key, from 1, the newest first.

    The newest has the greatest cursor; between equals a hash over the whole row decides, so that the
    same rows give the same answer in whatever order they come.

    Args:
        rows: Typed rows, `_bad` included or not.
        contract: The table.

    Returns:
        The rows with `_rank`.
    """
    newest: list[Column] = [F.col(contract.cursor).desc_nulls_last()] if contract.cursor else []
    newest.append(F.xxhash64(*contract.column_names).desc())
    return rows.withColumn(_RANK, F.row_number().over(Window.partitionBy(*contract.key).orderBy(*newest)))


def newest(rows: DataFrame, contract: TableContract) -> DataFrame:
    """The newest row of each key.

    Args:
        rows: Typed rows.
        contract: The table.

    Returns:
        Its columns, one row per key.
    """
    return rank(rows, contract).where(F.col(_RANK) == 1).select(*contract.column_names)


def prepared(raw: DataFrame, contract: TableContract, *, unique: bool) -> DataFrame:
    """Typed rows with `_bad` and `_rank`, before those that are not the newest of their key are left out.

    Args:
        raw: The batch as the wire carried it.
        contract: The table.
        unique: Whether no key stands twice: every row is the newest of its key then, unsorted.
    """
    rows = typed(raw, contract)
    return rows.withColumn(_RANK, F.lit(1)) if unique else rank(rows, contract)


def accept(
    raw: DataFrame,
    contract: TableContract,
    *,
    run_id: str,
    snapshot_at: datetime,
    target: str,
    unique: bool = False,
) -> TableReport:
    """Writes a raw batch's accepted rows, and counts on the way.

    One pass: the counts are observed between the ranking and the filter of the very job that writes. Where
    no key stands twice nothing is ranked, so nothing is sorted or shuffled either.

    Args:
        raw: The batch as the wire carried it.
        contract: The table.
        run_id: The run, kept in `_run`.
        snapshot_at: When the source was read, kept in `_snapshot`.
        target: URI of the folder; replaced where it exists.
        unique: Whether the batch was found to hold no key twice.

    Returns:
        What became of each row.

    Raises:
        BadValuesError: The batch holds values that their types cannot hold.
    """
    seen = Observation()
    accepted = (
        prepared(raw, contract, unique=unique)
        .observe(seen, *_measures(contract))
        .where(F.col(_RANK) == 1)
        .select(
            *contract.column_names,
            F.lit(snapshot_at).cast("timestamp").alias("_snapshot"),
            F.lit(run_id).alias("_run"),
        )
    )
    accepted.write.mode("overwrite").parquet(target)
    found = seen.get
    if found["bad_rows"]:
        refuse_bad_values(raw, contract, run_id)
    return TableReport(
        raw=found["raw"],
        accepted=found["accepted"],
        superseded=found["superseded"],
        control_totals={
            name: {side: _exact(found[f"{name}_{side}"]) for side in ("raw", "accepted", "superseded")}
            for name in contract.control_totals
        },
        values={
            column.name: {what: found[f"{column.name}_{what}"] for what in VALUES}
            for column in contract.replacing
        },
    )


def _measures(contract: TableContract) -> list[Column]:
    """Rows, bad rows, and each control total, on both sides of the split and over it."""
    is_newest = F.col(_RANK) == 1
    sums = []
    for name in contract.control_totals:
        value = F.col(name)
        if contract.column(name).type.kind is not Kind.DECIMAL:
            value = value.cast("decimal(20,0)")
        sums += [
            F.sum(value).alias(f"{name}_raw"),
            F.sum(F.when(is_newest, value)).alias(f"{name}_accepted"),
            F.sum(F.when(~is_newest, value)).alias(f"{name}_superseded"),
        ]
    return [
        F.count(F.lit(1)).alias("raw"),
        F.count_if(is_newest).alias("accepted"),
        F.count_if(~is_newest).alias("superseded"),
        F.count_if(F.col(BAD)).alias("bad_rows"),
        *sums,
        *(measure for column in contract.replacing for measure in _values(column.name)),
    ]


def _values(name: str) -> list[Column]:
    """What became of a column's values: raw's are those that are there, and those that were replaced."""
    is_newest, was_bad, there = F.col(_RANK) == 1, F.col(replaced(name)), F.col(name).isNotNull()
    return [
        F.count_if(there | was_bad).alias(f"{name}_raw"),
        F.count_if(~is_newest & there & ~was_bad).alias(f"{name}_superseded"),
        F.count_if(is_newest & was_bad).alias(f"{name}_replaced_accepted"),
        F.count_if(~is_newest & was_bad).alias(f"{name}_replaced_superseded"),
    ]


def _exact(total: Decimal | None) -> str:
    return "0" if total is None else f"{total:f}"


def schema_of(contract: TableContract) -> str:
    """The Spark schema of a table's accepted rows, as DDL."""
    columns = [f"`{column.name}` {column.type.spark}" for column in contract.columns]
    return ", ".join([*columns, "_snapshot timestamp", "_run string"])


def as_json(report: TableReport) -> dict[str, Any]:
    """The report as it stands in `transform.json`."""
    return dict(vars(report))
