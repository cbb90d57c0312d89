"""Raw to typed: the wire's text becomes the contract's types, and what a type cannot hold is counted."""

from __future__ import annotations

from functools import reduce
from operator import or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tallyhouse.contracts import Column as ContractColumn
from tallyhouse.contracts import Kind, TableContract
from tallyhouse.errors import TallyhouseError

BAD = "_bad"
"""Added by `typed`: whether the row holds a value that its type cannot hold and that stops the run."""

# The forms in which the wire carries values. Spark's casts take more than that (`2026`, ` 1 `, `1e3`)
# and round or cut what does not fit, so the form is checked as well.
# A form ends with \z: before a line break at the end of the text, $ matches as well.
_DATE = r"\A(?!0000)\d{4}-\d{2}-\d{2}\z"
_TIMESTAMP = r"\A(?!0000)\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}(\.\d{1,6})?\z"
# Numbers cross as text out of files only.
_WHOLE = r"\A-?\d+\z"
_NUMBER = r"\A-?\d+(\.\d+)?([eE][+-]?\d+)?\z"


def replaced(name: str) -> str:
    """The column that `typed` adds beside one with a policy: whether something was put in its place."""
    return f"_replaced_{name}"


def typed(raw: DataFrame, contract: TableContract) -> DataFrame:
    """Types a raw batch.

    Args:
        raw: The contract's columns as the wire carries them: decimals, dates and times (UTC) as text,
            booleans as 0 and 1.
        contract: The table.

    Returns:
        The contract's columns in their Spark types, and `_bad`. Of a value that its type cannot hold there
        is what its policy says, and `_replaced_<column>` is true; by the policy `error` it is NULL, or for
        text as it was.

    Raises:
        TallyhouseError: A column of the contract is missing.
    """
    if missing := [name for name in contract.column_names if name not in raw.columns]:
        raise TallyhouseError(
            f"raw has no column {', '.join(missing)}",
            remedy="Extract it again under the current contract.",
            table=contract.qualified_name,
        )
    wire = dict(raw.dtypes)
    bad = {column.name: is_bad(column, wire[column.name]) for column in contract.columns}
    stops = (bad[column.name] for column in contract.columns if not column.replaces)
    return raw.select(
        *(
            _or_replacement(column, _value(column, wire[column.name]), bad[column.name]).alias(column.name)
            for column in contract.columns
        ),
        reduce(or_, stops).alias(BAD),
        *(bad[column.name].alias(replaced(column.name)) for column in contract.replacing),
    )


def _or_replacement(column: ContractColumn, value: Column, bad: Column) -> Column:
    if not column.replaces:
        return value
    return F.when(bad, F.lit(column.on_bad_value.sentinel).cast(column.type.spark)).otherwise(value)


def is_bad(column: ContractColumn, wire_type: str) -> Column:
    """Whether the wire has a value of this column that its type cannot hold; never NULL.

    Args:
        column: Of the contract.
        wire_type: The raw column's Spark type.
    """
    wire = F.col(column.name)
    if column.type.kind.is_text:
        # PostgreSQL's text cannot hold a NUL character.
        refused = F.contains(wire, F.lit("\0"))
        if column.type.length is not None:
            refused |= F.char_length(wire) > column.type.length
        return F.coalesce(refused, F.lit(False))
    return wire.isNotNull() & _value(column, wire_type).isNull()


def _value(column: ContractColumn, wire_type: str) -> Column:
    wire = F.col(column.name)
    kind = column.type.kind
    if kind.is_text or kind is Kind.BINARY:
        return wire
    cast = wire.try_cast(column.type.spark)
    if kind is Kind.BOOLEAN:
        return F.when(wire.try_cast("int").isin(0, 1), cast)
    form = {
        Kind.DATE: _DATE,
        Kind.TIMESTAMP: _TIMESTAMP,
        Kind.DECIMAL: column.type.decimal_form if kind is Kind.DECIMAL else None,
        Kind.DOUBLE: _NUMBER,
        **dict.fromkeys((Kind.SMALLINT, Kind.INTEGER, Kind.BIGINT), _WHOLE),
    }.get(kind)
    return F.when(wire.rlike(form), cast) if form and wire_type == "string" else cast


def refuse_bad_values(raw: DataFrame, contract: TableContract, run_id: str) -> dict[str, int]:
    """Counts bad values by column and raises the error that names them.

    Read only when a batch is known to hold some; one more pass over it.

    Raises:
        TallyhouseError: Always, by the policy `error`.
    """
    wire = dict(raw.dtypes)
    key_text = F.concat_ws("/", *(F.col(name).cast("string") for name in contract.key))
    aggregates = []
    stopping = [column for column in contract.columns if not column.replaces]
    for column in stopping:
        bad = is_bad(column, wire[column.name])
        aggregates += [
            F.count_if(bad).alias(column.name),
            F.min(
                F.when(bad, F.struct(key_text.alias("key"), F.col(column.name).cast("string").alias("v")))
            ).alias(f"{column.name}_sample"),
        ]
    found = raw.agg(*aggregates).first()
    assert found is not None  # noqa: S101 - an aggregate without GROUP BY has one row
    counts = {column.name: found[column.name] for column in stopping if found[column.name]}
    samples = []
    for name in counts:
        sample = found[f"{name}_sample"]
        value = "personal data" if name in contract.pii else repr(sample["v"])
        key = "personal data" if set(contract.key) & set(contract.pii) else sample["key"]
        samples.append(f"{value} of key {key}")
    raise BadValuesError(
        "values that their type cannot hold: "
        + ", ".join(
            f"{count} in {name} (such as {sample})"
            for (name, count), sample in zip(counts.items(), samples, strict=True)
        ),
        table=contract.qualified_name,
        run_id=run_id,
        counts=counts,
        sample=[f"{name}: {sample}" for name, sample in zip(counts, samples, strict=True)],
    )


class BadValuesError(TallyhouseError):
    """A batch holds values that their types cannot hold.

    Attributes:
        counts: How many, by column.
    """

    def __init__(
        self, what: str, *, table: str, run_id: str, counts: dict[str, int], sample: list[str]
    ) -> None:
        super().__init__(
            what,
            where=f"{table} in run {run_id}",
            remedy="Fix them in the source, change the column's type in its DBML, or give it another "
            "on_bad_value in its contract, and run again.",
            table=table,
            rule=f"type of {', '.join(counts)}",
            count=sum(counts.values()),
            sample=sample,
        )
        self.counts = counts
