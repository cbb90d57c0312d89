"""Each model against the cases of its YAML file."""

import inspect
from importlib import import_module

import pytest
from pyspark.sql import SparkSession

from spark_jobs.models.common import conform
from tallyhouse.contracts import load_subject
from tests.spark_jobs.models.cases import CONTRACTS, Case, cases, found, frame, table, wanted

VERSIONS = {"customer_versions": "dim_customer", "product_versions": "dim_product"}
ALL = list(cases())


def test_every_model_has_cases() -> None:
    models = {model for name in ("techmarket", "pancake") for model in load_subject(name).models}
    assert {case.model for case in ALL} == models


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case.model}: {case.name}")
def test_model(case: Case, spark: SparkSession) -> None:
    model = import_module(f"spark_jobs.models.{case.model}")
    given = {}
    for name in inspect.signature(model.build).parameters:
        rows = case.given.get(name, [])
        if name in CONTRACTS:
            given[name] = table(spark, name, rows)
        elif name in VERSIONS:
            given[name] = frame(spark, rows, import_module(f"spark_jobs.models.{VERSIONS[name]}").SCHEMA)
        else:
            given[name] = frame(spark, rows, model.SCHEMA) if name in case.given else None
    rows = conform(model.build(**given), model.SCHEMA)
    assert found(rows, model.SCHEMA, list(case.expected[0])) == wanted(case.expected, model.SCHEMA)
