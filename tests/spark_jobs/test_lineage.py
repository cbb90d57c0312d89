"""The columns that a model is said to be made of are those that its plan takes them from."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructField, StructType

from spark_jobs.models.common import conform, fields_of
from tallyhouse.models import all_definitions, column_origins, definition
from tallyhouse.models.load import table_of
from tests.spark_jobs.frames import TABLES, dimension_of

MODELS = [model.name for model in all_definitions() if model.is_built]


def marked(spark: SparkSession, table: str, columns: dict[str, Any]) -> DataFrame:
    """An empty frame whose columns carry, in their metadata, what they are."""
    fields = [StructField(name, kind, True, {"is": f"{table}.{name}"}) for name, kind in columns.items()]
    return spark.createDataFrame([], StructType(fields))


def table(spark: SparkSession, name: str) -> DataFrame:
    contract = TABLES[name]
    kinds = StructType.fromDDL(", ".join(f"{c.name} {c.type.spark}" for c in contract.columns))
    return marked(spark, contract.qualified_name, {field.name: field.dataType for field in kinds})


def versions(spark: SparkSession, dimension: str) -> DataFrame:
    fields = fields_of(definition(dimension).spark_schema)
    return marked(spark, dimension, {field.name: field.dataType for field in fields})


def items(sequence: Any) -> Iterator[Any]:
    return (sequence.apply(number) for number in range(sequence.size()))


class Provenance:
    """Follows the attributes of an analysed plan down to the marks of its leaves.

    What only decides which rows there are (joins, filters, order) is not followed, nor what is put into
    the message of an error.
    """

    def __init__(self, rows: DataFrame) -> None:
        self.known: dict[int, set[str]] = {}
        self.parts: dict[int, list[set[str]]] = {}
        self.plan = rows._jdf.queryExecution().analyzed()
        self.visit(self.plan)

    def columns(self) -> dict[str, set[str]]:
        return {out.name(): self.known[out.exprId().id()] for out in items(self.plan.output())}

    def visit(self, node: Any) -> None:
        for child in items(node.children()):
            self.visit(child)
        kind = node.getClass().getSimpleName()
        if node.children().isEmpty():
            for out in items(node.output()):
                self.known[out.exprId().id()] = {out.metadata().getString("is")}
        if kind == "Union":
            sides = zip(*(items(child.output()) for child in items(node.children())), strict=True)
            for out, side in zip(items(node.output()), sides, strict=True):
                self.known[out.exprId().id()] = set().union(*(self.known[one.exprId().id()] for one in side))
        named = {
            "Project": "projectList",
            "Aggregate": "aggregateExpressions",
            "Window": "windowExpressions",
        }
        for expression in items(getattr(node, named[kind])()) if kind in named else ():
            if expression.getClass().getSimpleName() == "Alias":
                number = expression.exprId().id()
                self.known[number] = self.made_of(expression.child())
                self.parts[number] = self.fields(expression.child())

    def made_of(self, expression: Any) -> set[str]:
        kind = expression.getClass().getSimpleName()
        children = list(items(expression.children()))
        if kind == "AttributeReference":
            return self.known[expression.exprId().id()]
        if kind == "RaiseError":
            return set()
        if kind in {"MaxBy", "WindowExpression"}:
            return self.made_of(children[0])
        if kind == "GetStructField" and children[0].getClass().getSimpleName() == "AttributeReference":
            parts = self.parts.get(children[0].exprId().id())
            if parts:
                return parts[expression.ordinal()]
        return set().union(*(self.made_of(child) for child in children))

    def fields(self, expression: Any) -> list[set[str]]:
        """What the fields of a struct are made of, by place; empty when it is none."""
        kind = expression.getClass().getSimpleName()
        if kind == "CreateNamedStruct":
            return [self.made_of(value) for value in items(expression.valExprs())]
        if kind in {"AggregateExpression", "MaxBy"}:
            return self.fields(next(items(expression.children())))
        if kind == "AttributeReference":
            return self.parts.get(expression.exprId().id(), [])
        return []


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_made_of_the_columns_that_its_contract_says(spark: SparkSession, model: str) -> None:
    defined = definition(model)
    given: dict[str, DataFrame] = {}
    for name in defined.inputs:
        dimension = dimension_of(defined, name)
        given[name] = versions(spark, dimension) if dimension else table(spark, table_of(defined, name).name)
        if name in defined.joins and not dimension:
            given[name] = given[name].select(*defined.joins[name].taken)
    build = import_module(f"spark_jobs.models.{model}").build
    found = Provenance(conform(build(**given), defined.spark_schema)).columns()

    def expanded(names: set[str]) -> set[str]:
        """Columns of dimensions, as the columns of tables that they are made of."""
        whole: set[str] = set()
        for name in names:
            owner, _, column = name.rpartition(".")
            whole |= set(column_origins(owner)[column]) if owner in MODELS else {name}
        return whole

    declared = column_origins(model)
    assert {column: sorted(names) for column, names in declared.items()} == {
        column: sorted(expanded(names)) for column, names in found.items()
    }
