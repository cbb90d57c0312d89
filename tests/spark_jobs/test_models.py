"""Each model's function against the cases of its YAML file."""

import inspect
from importlib import import_module

import pytest
from pyspark.sql import SparkSession

from spark_jobs.models.common import conform
from tallyhouse.models import all_definitions, definition
from tests.spark_jobs.frames import Case, cases, found, given, wanted

CASES = list(cases())
MODELS = [model.name for model in all_definitions() if model.is_built]


def test_every_model_has_cases() -> None:
    assert {case.model for case in CASES} == set(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_the_function_takes_the_inputs_of_the_definition(model: str) -> None:
    build = import_module(f"spark_jobs.models.{model}").build
    assert set(inspect.signature(build).parameters) == set(definition(model).inputs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.model}: {case.name}")
def test_model(case: Case, spark: SparkSession) -> None:
    model = definition(case.model)
    schema = model.spark_schema
    build = import_module(f"spark_jobs.models.{case.model}").build
    rows = conform(build(**given(spark, model, case.given)), schema)
    assert found(rows, schema, list(case.expected[0])) == wanted(case.expected, schema)
