"""Great Expectations' metrics as SQL for DuckDB.

Great Expectations asks of a metric a name and arguments, and judges by its value. A rule over rows becomes
a predicate that is true for the rows that break it, so that one statement counts all rules of a suite
in one pass. (The same predicate is what a row's own verdict can be made of.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from tallyhouse.quality.typed_sql import literal, quoted

BATCH = "batch"
"""What the typed batch is called in the statements."""


class UnsupportedMetricError(Exception):
    """There is no SQL for a metric, or for what it is asked with."""


@dataclass(frozen=True)
class RowRule:
    """A rule over rows.

    Attributes:
        columns: What it is about; their values are shown of rows that break it.
        considered: Predicate of the rows that it judges at all.
        broken: Predicate of the rows that break it; None for a rule about values that occur twice.
    """

    columns: tuple[str, ...]
    considered: str
    broken: str | None

    @property
    def unexpected_count(self) -> str:
        """Aggregate over the batch: how many rows break the rule."""
        return f"count(*) FILTER (WHERE ({self.considered}) AND ({self.broken}))"

    @property
    def considered_count(self) -> str:
        """Aggregate over the batch: how many rows are judged."""
        return f"count(*) FILTER (WHERE {self.considered})"

    @property
    def duplicates(self) -> str:
        """Statement: how many rows share their values with another row."""
        columns = _list(self.columns)
        return (
            f"SELECT coalesce(sum(n), 0)::BIGINT FROM (SELECT count(*) AS n FROM {BATCH} "
            f"WHERE {self.considered} GROUP BY {columns} HAVING count(*) > 1)"
        )

    def sample(self, shown: Sequence[str], limit: int) -> str:
        """Statement: values of a few rows that break the rule.

        Args:
            shown: Columns to show.
            limit: How many rows at most.
        """
        if self.broken is None:
            twice = f"QUALIFY count(*) OVER (PARTITION BY {_list(self.columns)}) > 1"
            return f"SELECT {_list(shown)} FROM {BATCH} WHERE {self.considered} {twice} LIMIT {limit}"
        where = f"WHERE ({self.considered}) AND ({self.broken})"
        return f"SELECT {_list(shown)} FROM {BATCH} {where} LIMIT {limit}"


def row_rule(
    metric: str, domain: Mapping[str, Any], arguments: Mapping[str, Any], types: Mapping[str, str]
) -> RowRule:
    """The rule behind a metric over rows.

    Args:
        metric: Such as `column_values.between`.
        domain: What it is about, as Great Expectations has it: `column`, `column_A`, `ignore_row_if`, …
        arguments: Such as `min_value`.
        types: The SQL type of each column.

    Raises:
        UnsupportedMetricError: There is no SQL for it.
    """
    if domain.get("row_condition"):
        raise UnsupportedMetricError(f"{metric} with a row_condition")
    if metric in _COLUMN:
        column = str(domain["column"])
        holds = _COLUMN[metric](quoted(column), types[column], arguments)
        # About NULLs themselves ask only these two; to all others a NULL is no value.
        about_nulls = metric in ("column_values.nonnull", "column_values.null")
        return RowRule(
            (column,),
            "TRUE" if about_nulls else f"{quoted(column)} IS NOT NULL",
            None if metric in _UNIQUE else f"NOT ({holds})",
        )
    if metric in _PAIR:
        pair = (str(domain["column_A"]), str(domain["column_B"]))
        a, b = map(quoted, pair)
        ignored = {
            "both_values_are_missing": f"{a} IS NULL AND {b} IS NULL",
            "either_value_is_missing": f"{a} IS NULL OR {b} IS NULL",
            "neither": "FALSE",
        }
        return RowRule(
            pair,
            f"NOT ({ignored[domain['ignore_row_if']]})",
            f"NOT ({_PAIR[metric](a, b, arguments)})",
        )
    if metric in _UNIQUE:
        columns = tuple(map(str, domain["column_list"]))
        nulls = [f"{quoted(column)} IS NULL" for column in columns]
        ignored = {
            "all_values_are_missing": " AND ".join(nulls),
            "any_value_is_missing": " OR ".join(nulls),
            "never": "FALSE",
        }
        return RowRule(columns, f"NOT ({ignored[domain['ignore_row_if']]})", None)
    raise UnsupportedMetricError(metric)


def aggregate(metric: str, domain: Mapping[str, Any]) -> str:
    """A metric over the whole batch, or over a column of it, as an aggregate.

    Raises:
        UnsupportedMetricError: There is no SQL for it.
    """
    if domain.get("row_condition") or metric not in _AGGREGATES:
        raise UnsupportedMetricError(f"{metric} with a row_condition" if metric in _AGGREGATES else metric)
    return _AGGREGATES[metric].format(column=quoted(str(domain.get("column", ""))))


def _list(columns: Sequence[str]) -> str:
    return ", ".join(map(quoted, columns))


def _bound(value: Any, type_: str) -> str:
    """A bound or a member of a set, as a value that compares with the column as it does on Spark."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        # As on Spark: a bound that Great Expectations hands over as a float is compared as one.
        return f"{literal(repr(value))}::DOUBLE"
    if isinstance(value, datetime) and value.tzinfo:
        value = value.astimezone(UTC).replace(tzinfo=None)
    text = value.isoformat(" ") if isinstance(value, datetime) else str(value)
    if isinstance(value, str | date):
        return literal(text) if type_ == "VARCHAR" else f"CAST({literal(text)} AS {type_})"
    raise UnsupportedMetricError(f"a value of type {type(value).__name__}")


def _between(value: str, type_: str, arguments: Mapping[str, Any]) -> str:
    low, high = arguments.get("min_value"), arguments.get("max_value")
    bounds = []
    if low is not None:
        bounds.append(f"{value} {'>' if arguments.get('strict_min') else '>='} {_bound(low, type_)}")
    if high is not None:
        bounds.append(f"{value} {'<' if arguments.get('strict_max') else '<='} {_bound(high, type_)}")
    return " AND ".join(bounds) or "TRUE"


def _in_set(value: str, type_: str, arguments: Mapping[str, Any]) -> str:
    members = ", ".join(_bound(member, type_) for member in arguments["value_set"])
    return f"{value} IN ({members})" if members else "FALSE"


def _matches(value: str, _: str, arguments: Mapping[str, Any]) -> str:
    return f"regexp_matches({value}, {literal(arguments['regex'])})"


def _greater(a: str, b: str, arguments: Mapping[str, Any]) -> str:
    return f"{a} >= {b} OR {a} IS NOT DISTINCT FROM {b}" if arguments.get("or_equal") else f"{a} > {b}"


# What holds for a value; NULLs are left out before.
_COLUMN: dict[str, Callable[[str, str, Mapping[str, Any]], str]] = {
    "column_values.nonnull": lambda value, *_: f"{value} IS NOT NULL",
    "column_values.null": lambda value, *_: f"{value} IS NULL",
    "column_values.between": _between,
    "column_values.in_set": _in_set,
    "column_values.not_in_set": lambda *about: f"NOT ({_in_set(*about)})",
    "column_values.match_regex": _matches,
    "column_values.not_match_regex": lambda *about: f"NOT {_matches(*about)}",
    "column_values.value_length.between": lambda value, _, arguments: _between(
        f"length({value})", "BIGINT", arguments
    ),
    "column_values.value_length.equals": lambda value, _, arguments: (
        f"length({value}) = {int(arguments['value'])}"
    ),
    "column_values.unique": lambda *_: "TRUE",
}
_PAIR: dict[str, Callable[[str, str, Mapping[str, Any]], str]] = {
    "column_pair_values.a_greater_than_b": _greater,
    "column_pair_values.equal": lambda a, b, _: f"{a} IS NOT DISTINCT FROM {b}",
}
_UNIQUE = ("column_values.unique", "compound_columns.unique")
_AGGREGATES = {
    "table.row_count": "count(*)",
    "column.min": "min({column})",
    "column.max": "max({column})",
    "column.mean": "avg({column})",
    "column.sum": "sum({column})",
    "column.standard_deviation": "stddev_samp({column})",
    "column.distinct_values.count": "count(DISTINCT {column})",
}
