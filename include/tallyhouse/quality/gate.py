"""Runs suites over typed batches; `gate_duckdb` and `gate_spark` say what counts.

Importing this module takes seconds: it loads Great Expectations.
"""

from __future__ import annotations

import logging
import os
import re
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tallyhouse.contracts import TableContract
from tallyhouse.errors import SAMPLES
from tallyhouse.quality.suites import columns_of, read_suite

# Read when Great Expectations is imported: it would send usage data otherwise.
os.environ["GX_ANALYTICS_ENABLED"] = "false"

import great_expectations as gx
from great_expectations.core import (
    ExpectationSuiteValidationResult,
    ExpectationValidationResult,
    RunIdentifier,
)
from great_expectations.data_context.data_context.ephemeral_data_context import (
    EphemeralDataContext,
)
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.data_context.types.resource_identifiers import ValidationResultIdentifier
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

# It tells every step of its work at INFO.
logging.getLogger("great_expectations").setLevel(logging.WARNING)

# Counts, and a few values that break the rule; the index of every row that does would not fit in memory.
RESULT_FORMAT = {"result_format": "SUMMARY", "partial_unexpected_count": 10}
HIDDEN = "(personal data)"


@dataclass(frozen=True)
class Failure:
    """An expectation that a batch does not meet.

    Attributes:
        expectation: Its type, in Great Expectations' words.
        column: What it is about: a column, several with commas between, or a description.
        unexpected: Rows that break it; None where it is not about rows.
        sample: A value that breaks it; of personal data only that it is there.
        rows: Some of the rows that break it, by their keys, such as `id 7`; five at most.
    """

    expectation: str
    column: str
    unexpected: int | None
    sample: str | None
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class SuiteResult:
    """How a batch did.

    Attributes:
        success: Whether it meets every expectation.
        rows: Its rows.
        failed: The expectations that it does not meet.
        details: Great Expectations' own result, as JSON; None for an empty batch.
    """

    success: bool
    rows: int
    failed: tuple[Failure, ...] = ()
    details: dict[str, Any] | None = None

    def report(self) -> dict[str, Any]:
        """What `quality.json` says of the suite."""
        return {
            "success": self.success,
            "rows": self.rows,
            "failed": [asdict(failure) for failure in self.failed],
        }


class Gate[Batch](ABC):
    """Suites over the batches of one run, whatever engine counts.

    Attributes:
        context: Great Expectations' context, in memory; `data_docs` renders it.
        run: How Great Expectations calls the run.
    """

    def __init__(self, run_id: str) -> None:
        context = gx.get_context(mode="ephemeral")
        assert isinstance(context, EphemeralDataContext)  # noqa: S101 - what the mode says
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self.context = context
        self.run = RunIdentifier(run_name=run_id, run_time=datetime.now(UTC))

    def check(self, batch: Batch, contract: TableContract, rows: int) -> SuiteResult:
        """Runs a table's suite.

        Args:
            batch: Its typed rows.
            contract: The table.
            rows: How many there are; an empty batch meets every suite.

        Raises:
            TallyhouseError: The table has no suite.
            RuntimeError: An expectation could not be computed at all.
        """
        suite = self.context.suites.add(gx.ExpectationSuite(**read_suite(contract)))
        if not rows:
            return SuiteResult(success=True, rows=0)
        try:
            result = self.validate(batch, contract, suite)
            failing = [one for one in result.results if not one.success]
            failed = tuple(self._failure(one, batch, contract) for one in failing)
        finally:
            self.release(batch)
        self._hide_personal_data(result, contract)
        return SuiteResult(bool(result.success), rows, failed, result.to_json_dict())  # type: ignore[no-untyped-call]

    @abstractmethod
    def validate(
        self, batch: Batch, contract: TableContract, suite: gx.ExpectationSuite
    ) -> ExpectationSuiteValidationResult:
        """Runs a suite over a batch that has rows, and stores the result in the context."""

    @abstractmethod
    def validate_one(
        self,
        batch: Batch,
        contract: TableContract,
        config: ExpectationConfiguration,
        result_format: dict[str, Any],
    ) -> ExpectationValidationResult:
        """Runs one expectation of the suite that was validated last, in another result format."""

    @abstractmethod
    def first_rows(self, batch: Batch, query: str, limit: int) -> list[dict[str, Any]]:
        """A few rows of a query over the batch, which it calls `{batch}`."""

    def release(self, batch: Batch) -> None:  # noqa: B027 - most engines keep nothing
        """Lets a batch go after its suite."""

    def _rows(
        self, result: ExpectationValidationResult, batch: Batch, contract: TableContract
    ) -> tuple[str, ...]:
        """Some of the rows that break an expectation, by their keys.

        Asked for only of what fails: it is one more pass for each expectation. They are put into the
        result as well, so that its page in the Data Docs names them.
        """
        config = result.expectation_config
        if config is None or _exception(result) or set(contract.key) & set(contract.pii):
            return ()
        if "unexpected_count" not in result.result:
            return ()  # not about single rows
        named = {
            "result_format": "SUMMARY",
            "partial_unexpected_count": SAMPLES,
            "unexpected_index_column_names": list(contract.key),
        }
        again = self.validate_one(batch, contract, config, named)
        rows = again.result.get("partial_unexpected_index_list") or []
        if rows:
            result.result["unexpected_index_list"] = [
                {name: None if value is None else str(value) for name, value in row.items()} for row in rows
            ]
            result.result["unexpected_index_column_names"] = list(contract.key)
        return tuple(", ".join(f"{name} {row[name]}" for name in contract.key) for row in rows)

    def _failure(self, result: ExpectationValidationResult, batch: Batch, contract: TableContract) -> Failure:
        config = result.expectation_config
        assert config is not None  # noqa: S101 - every result of a suite has it
        if raised := _exception(result):
            raise RuntimeError(f"{contract.qualified_name}: {config.type} {config.kwargs}: {raised}")
        rows = self._rows(result, batch, contract)
        columns = _columns(result)
        found = result.result
        values = found.get("partial_unexpected_list") or []
        sample = str(values[0]) if values else None
        query = config.kwargs.get("unexpected_rows_query")
        if query is not None:
            # Great Expectations counts what the query finds and keeps none of it in this format.
            found_rows = self.first_rows(batch, query, SAMPLES)
            rows = tuple(", ".join(f"{key} {value}" for key, value in row.items()) for row in found_rows)
            sample = rows[0] if rows else None
        elif "observed_value" in found and not values:
            sample = f"observed {found['observed_value']}"
        if sample is not None and tells_of(contract.pii, columns, query):
            sample = HIDDEN
            rows = rows if query is None else ()
        unexpected = found.get("unexpected_count", found.get("observed_value") if query else None)
        return Failure(
            config.type,
            ", ".join(columns) or str(config.description or query or "table"),
            unexpected if isinstance(unexpected, int) else None,
            sample,
            rows,
        )

    def _hide_personal_data(self, result: ExpectationSuiteValidationResult, contract: TableContract) -> None:
        """Takes personal data out of a result, here and where it was stored for the Data Docs."""
        for one in result.results:
            if hidden := set(_columns(one)) & set(contract.pii):
                for key in ("partial_unexpected_list", "partial_unexpected_counts"):
                    one.result.pop(key, None)
                if rows := one.result.get("unexpected_index_list"):
                    # What the page of a rule shows beside the keys of its rows.
                    for row in rows:
                        row.update(dict.fromkeys(hidden - set(contract.key), HIDDEN))
                    one.result["partial_unexpected_counts"] = [{"value": HIDDEN, "count": len(rows)}]
        store = self.context.validation_results_store
        for stored in store.list_keys():
            assert isinstance(stored, ValidationResultIdentifier)  # noqa: S101 - what this store has
            if stored.expectation_suite_identifier.name == contract.qualified_name:
                store.update(stored, result)


def _columns(result: ExpectationValidationResult) -> list[str]:
    config = result.expectation_config
    return columns_of({"kwargs": config.kwargs}) if config else []


def tells_of(personal: tuple[str, ...], columns: list[str], query: str | None) -> bool:
    """Whether what an expectation finds may hold personal data: of its columns, or of its query's."""
    if set(columns) & set(personal):
        return True
    # Any mention counts, since an alias can rename the column; so does a star.
    words = set(re.findall(r"\w+|\*", (query or "").lower()))
    return bool(personal) and bool(words & {*personal, "*"})


def _exception(result: ExpectationValidationResult) -> str | None:
    """What Great Expectations caught while it computed; it comes in two shapes."""
    info = result.exception_info or {}
    for one in [info, *(value for value in info.values() if isinstance(value, dict))]:
        if one.get("raised_exception"):
            return str(one.get("exception_message"))
    return None
