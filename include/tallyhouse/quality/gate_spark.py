"""The gate on Spark: for batches that only a cluster can count, and for curated events.

Importing this module takes seconds: it loads Great Expectations.
"""

from __future__ import annotations

from typing import Any

import great_expectations as gx
from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from pyspark.sql import DataFrame

from tallyhouse.contracts import TableContract
from tallyhouse.quality.gate import RESULT_FORMAT, Gate


class SparkGate(Gate[DataFrame]):
    """Suites over typed frames, by Great Expectations' own engine for Spark."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        # A batch is read from the lake once; the frame is let go after its suite.
        self._source = self.context.data_sources.add_spark("raw", persist=True)

    def validate(
        self, batch: DataFrame, contract: TableContract, suite: gx.ExpectationSuite
    ) -> ExpectationSuiteValidationResult:
        """See `Gate`."""
        name = contract.qualified_name
        data = self._source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("batch")
        definition = self.context.validation_definitions.add(
            gx.ValidationDefinition(name=name, data=data, suite=suite)
        )
        return definition.run(
            batch_parameters={"dataframe": batch}, result_format=RESULT_FORMAT, run_id=self.run
        )

    def validate_one(
        self,
        batch: DataFrame,
        contract: TableContract,
        config: ExpectationConfiguration,
        result_format: dict[str, Any],
    ) -> ExpectationValidationResult:
        """See `Gate`."""
        data = self._source.get_asset(contract.qualified_name).get_batch_definition("batch")
        whole = data.get_batch(batch_parameters={"dataframe": batch})
        result = whole.validate(config.to_domain_obj(), result_format=result_format)
        assert isinstance(result, ExpectationValidationResult)  # noqa: S101 - of one expectation
        return result

    def first_rows(self, batch: DataFrame, query: str, limit: int) -> list[dict[str, Any]]:
        """See `Gate`."""
        return [row.asDict() for row in batch.sparkSession.sql(query, batch=batch).head(limit)]

    def release(self, batch: DataFrame) -> None:
        """See `Gate`."""
        batch.unpersist()
