"""The gate in DuckDB: one process reads raw in place and counts; Great Expectations judges.

Great Expectations asks each expectation which metrics it needs; their values come from one aggregate over
the batch (`metrics_sql`), and the expectation makes its own result of them, as it does on any engine.

Importing this module takes seconds: it loads Great Expectations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import duckdb
import great_expectations as gx
from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
from great_expectations.data_context.types.resource_identifiers import (
    ExpectationSuiteIdentifier,
    ValidationResultIdentifier,
)
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.validator.metric_configuration import MetricConfiguration
from great_expectations.validator.validation_statistics import calc_validation_statistics

from tallyhouse.contracts import TableContract
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.quality.gate import RESULT_FORMAT, Gate
from tallyhouse.quality.metrics_sql import (
    BATCH,
    RowRule,
    UnsupportedMetricError,
    aggregate,
    row_rule,
)
from tallyhouse.quality.typed_sql import quoted, sql_type

# How a metric's name ends that is about the rows which break a rule.
_ABOUT_ROWS = (
    *("unexpected_count", "filtered_row_count", "unexpected_values"),
    *("unexpected_index_list", "unexpected_index_query"),
)


@dataclass(frozen=True)
class DuckBatch:
    """A typed batch, as the view `batch` of a connection.

    Attributes:
        connection: Of this batch alone.
        rows: How many rows it has.
    """

    connection: duckdb.DuckDBPyConnection
    rows: int

    def value(self, statement: str) -> Any:
        """The one value that a statement finds."""
        found = self.connection.execute(statement).fetchone()
        assert found is not None  # noqa: S101 - an aggregate without GROUP BY has one row
        return found[0]

    def unique(self, columns: Iterable[str]) -> bool:
        """Whether no two rows have the same values in these columns."""
        names = ", ".join(map(quoted, columns))
        return not self.value(
            f"SELECT count(*) FROM (SELECT 1 FROM {BATCH} GROUP BY {names} HAVING count(*) > 1 LIMIT 1)"
        )


class DuckDbGate(Gate[DuckBatch]):
    """Suites over typed batches, counted by DuckDB.

    Attributes:
        unique_keys: Of the tables whose batch was checked and holds no key twice, the qualified names.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.unique_keys: set[str] = set()

    def validate(
        self, batch: DuckBatch, contract: TableContract, suite: gx.ExpectationSuite
    ) -> ExpectationSuiteValidationResult:
        """See `Gate`.

        Raises:
            TallyhouseError: An expectation needs a metric that there is no SQL for, or whose arguments
                DuckDB does not take, such as a pattern.
        """
        name = contract.qualified_name
        if batch.unique(contract.key):
            self.unique_keys.add(name)
        configs = _in_order(suite.expectation_configurations)
        return self._store(suite, f"raw-{name}", self._results(batch, contract, configs, RESULT_FORMAT))

    def validate_one(
        self,
        batch: DuckBatch,
        contract: TableContract,
        config: ExpectationConfiguration,
        result_format: dict[str, Any],
    ) -> ExpectationValidationResult:
        """See `Gate`."""
        (result,) = self._results(batch, contract, [config], result_format)
        return result

    def first_rows(self, batch: DuckBatch, query: str, limit: int) -> list[dict[str, Any]]:
        """See `Gate`."""
        cursor = batch.connection.execute(_over_batch(query))
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchmany(limit)]

    def _results(
        self,
        batch: DuckBatch,
        contract: TableContract,
        configs: list[ExpectationConfiguration],
        result_format: Mapping[str, Any],
    ) -> list[ExpectationValidationResult]:
        """What Great Expectations makes of the counts: all is asked for first, then counted in one pass."""
        name = contract.qualified_name
        expectations = [_Expectation(config, f"raw-{name}", result_format) for config in configs]
        metrics = _Metrics(batch, contract, unique=name in self.unique_keys)
        try:
            for expectation in expectations:
                for metric in expectation.metrics:
                    metrics.ask(metric)
            metrics.count()
            return [
                expectation.result({metric.id: metrics.value(metric) for metric in expectation.metrics})
                for expectation in expectations
            ]
        except (UnsupportedMetricError, duckdb.Error) as error:
            raise TallyhouseError(
                f"its suite cannot be counted in DuckDB ({first_line(error)})",
                remedy="Write the rule in another way, or set GATE_ENGINE=spark; docs/guides/quality.md "
                "lists the kinds.",
                table=name,
            ) from error

    def _store(
        self, suite: gx.ExpectationSuite, batch_id: str, results: list[ExpectationValidationResult]
    ) -> ExpectationSuiteValidationResult:
        """Puts the results together as Great Expectations' own validation does, for the Data Docs."""
        statistics = calc_validation_statistics(results)
        result = ExpectationSuiteValidationResult(
            results=results,
            success=statistics.success,
            suite_name=suite.name,
            statistics={
                "evaluated_expectations": statistics.evaluated_expectations,
                "successful_expectations": statistics.successful_expectations,
                "unsuccessful_expectations": statistics.unsuccessful_expectations,
                "success_percent": statistics.success_percent,
            },
            meta={
                "great_expectations_version": gx.__version__,
                "batch_spec": {"batch_data": "DuckDB"},
                "active_batch_definition": {
                    "datasource_name": "raw",
                    "data_asset_name": suite.name,
                    "batch_identifiers": {},
                },
                "run_id": self.run,
                "validation_time": self.run.run_time,
            },
            batch_id=batch_id,
        )
        suite_id = ExpectationSuiteIdentifier(name=suite.name)
        self.context.validation_results_store.store_validation_results(
            suite_validation_result=result,
            suite_validation_result_identifier=ValidationResultIdentifier(
                batch_identifier=batch_id, expectation_suite_identifier=suite_id, run_id=self.run
            ),
            expectation_suite_identifier=suite_id,
        )
        return result


class _Expectation:
    """One expectation of a suite: the metrics that it needs, and its result."""

    def __init__(
        self, config: ExpectationConfiguration, batch_id: str, result_format: Mapping[str, Any]
    ) -> None:
        config = deepcopy(config)
        config.kwargs["batch_id"] = batch_id
        self._expectation: Expectation = config.to_domain_obj()
        self._runtime: dict[str, Any] = {"result_format": dict(result_format)}
        dependencies = self._expectation.get_validation_dependencies(runtime_configuration=self._runtime)
        self.metrics: list[MetricConfiguration] = dependencies.get_metric_configurations()

    def result(self, metrics: dict[Any, Any]) -> ExpectationValidationResult:
        """What Great Expectations makes of the values of its metrics."""
        return self._expectation.metrics_validate(metrics, runtime_configuration=self._runtime)


class _Metrics:
    """The metrics of one suite over one batch: first all are asked for, then counted in one pass."""

    def __init__(self, batch: DuckBatch, contract: TableContract, *, unique: bool) -> None:
        self._batch = batch
        self._contract = contract
        self._unique_key = unique
        self._types = {column.name: sql_type(column) for column in contract.columns}
        self._aggregates: dict[str, Any] = {}

    def ask(self, metric: MetricConfiguration) -> None:
        """Notes what the one pass must count for a metric.

        Raises:
            UnsupportedMetricError: There is no SQL for it.
        """
        name, about = _split(metric.metric_name)
        if about == "unexpected_count":
            rule = self._rule(metric)
            if rule.broken is not None:
                self._aggregates[rule.unexpected_count] = None
        elif about == "filtered_row_count":
            self._aggregates[self._rule(metric).considered_count] = None
        elif about is None and not _answered_apart(name):
            self._aggregates[aggregate(name, metric.metric_domain_kwargs)] = None

    def count(self) -> None:
        """Counts all that was asked for, in one pass over the batch."""
        if self._aggregates:
            statement = f"SELECT {', '.join(self._aggregates)} FROM {BATCH}"
            found = self._batch.connection.execute(statement).fetchone()
            self._aggregates = dict(zip(self._aggregates, found or (), strict=True))

    def value(self, metric: MetricConfiguration) -> Any:
        """A metric's value."""
        name, about = _split(metric.metric_name)
        arguments = metric.metric_value_kwargs
        if about is not None:
            return self._of_rows(about, self._rule(metric), arguments.get("result_format") or {})
        if name == "unexpected_rows_query.row_count":
            return self._batch.value(
                f"SELECT count(*) FROM ({_over_batch(arguments['unexpected_rows_query'])})"
            )
        known: dict[str, Any] = {
            "table.columns": list(self._contract.column_names),
            "table.column_count": len(self._contract.columns),
            "unexpected_rows_query.table": [],  # kept by no result format but COMPLETE
        }
        return (
            known[name] if name in known else self._aggregates[aggregate(name, metric.metric_domain_kwargs)]
        )

    def _of_rows(self, about: str, rule: RowRule, result_format: Mapping[str, Any]) -> Any:
        match about:
            case "unexpected_count":
                return self._broken(rule)
            case "filtered_row_count":
                return self._aggregates[rule.considered_count]
            case "unexpected_values":
                return self._values(rule, result_format)
            case "unexpected_index_list":
                return self._index(rule, result_format)
        return self._index_query(rule, result_format)

    def _rule(self, metric: MetricConfiguration) -> RowRule:
        name, _ = _split(metric.metric_name)
        return row_rule(name, metric.metric_domain_kwargs, metric.metric_value_kwargs, self._types)

    def _broken(self, rule: RowRule) -> int:
        if rule.broken is not None:
            return int(self._aggregates[rule.unexpected_count])
        if self._unique_key and set(rule.columns) >= set(self._contract.key):
            return 0
        if rule.duplicates not in self._aggregates:
            self._aggregates[rule.duplicates] = self._batch.value(rule.duplicates)
        return int(self._aggregates[rule.duplicates])

    def _values(self, rule: RowRule, result_format: Mapping[str, Any]) -> list[Any]:
        rows = self._sample(rule, rule.columns, result_format)
        match len(rule.columns):
            case 1:
                return [value for (value,) in rows]
            case 2 if rule.broken is not None:
                return rows
        return [dict(zip(rule.columns, row, strict=True)) for row in rows]

    def _index(self, rule: RowRule, result_format: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        names = result_format.get("unexpected_index_column_names")
        if not names:
            return None
        shown = tuple(dict.fromkeys((*rule.columns, *names)))
        rows = self._sample(rule, shown, result_format)
        return [dict(zip(shown, row, strict=True)) for row in rows]

    def _index_query(self, rule: RowRule, result_format: Mapping[str, Any]) -> str | None:
        names = result_format.get("unexpected_index_column_names")
        if not names:
            return None
        shown = tuple(dict.fromkeys((*names, *rule.columns)))
        return rule.sample(shown, result_format["partial_unexpected_count"])

    def _sample(
        self, rule: RowRule, shown: tuple[str, ...], result_format: Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        if not self._broken(rule):
            return []
        statement = rule.sample(shown, result_format["partial_unexpected_count"])
        return self._batch.connection.execute(statement).fetchall()


def _split(metric: str) -> tuple[str, str | None]:
    """A metric's name in two: of the rule, and what of the rows that break it; None where it is neither."""
    name, _, about = metric.rpartition(".")
    return (name, about) if about in _ABOUT_ROWS else (metric, None)


def _answered_apart(metric: str) -> bool:
    """Whether a metric needs no aggregate: the contract knows it, or a query of the suite's own counts."""
    return metric in ("table.columns", "table.column_count") or metric.startswith("unexpected_rows_query.")


def _over_batch(query: str) -> str:
    return query.format(batch=BATCH)


def _in_order(configs: Iterable[ExpectationConfiguration]) -> list[ExpectationConfiguration]:
    """Grouped by column, as Great Expectations' own validation puts them: pages list them in this order."""
    groups: dict[str, list[ExpectationConfiguration]] = {}
    for config in configs:
        groups.setdefault(str(config.kwargs.get("column", "")), []).append(config)
    return [config for group in groups.values() for config in group]
