"""Cases of the models: input rows and expected rows, in one YAML file per model."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import yaml
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import DateType, DecimalType, StructField, StructType, TimestampType

from tallyhouse.models import Definition, definition
from tallyhouse.models.definition import EXISTING
from tallyhouse.models.load import source_tables, table_of
from tallyhouse.settings import ROOT

TABLES = source_tables()


@dataclass(frozen=True)
class Case:
    model: str
    name: str
    given: dict[str, list[dict[str, Any]]]
    expected: list[dict[str, Any]]


def cases() -> Iterator[Case]:
    """What each model's function has to make of which rows: `build` in tests/cases/<model>.yaml."""
    for path in sorted((ROOT / "tests" / "cases").glob("*.yaml")):
        for name, case in yaml.safe_load(path.read_text(encoding="utf-8"))["build"].items():
            yield Case(path.stem, name, case["given"], case["expected"])


def given(spark: SparkSession, model: Definition, rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """A model's inputs with those rows; its own versions are None where the case has none."""
    inputs: dict[str, Any] = {}
    for name in model.inputs:
        dimension = dimension_of(model, name)
        if dimension is None:
            whole = table(spark, table_of(model, name).name, rows.get(name, []))
            inputs[name] = whole.select(*model.joins[name].taken) if name in model.joins else whole
        elif name in rows or name != EXISTING:
            inputs[name] = frame(spark, rows.get(name, []), definition(dimension).spark_schema)
        else:
            inputs[name] = None
    return inputs


def dimension_of(model: Definition, name: str) -> str | None:
    """The dimension whose rows an input holds, where it is no table."""
    return model.name if name == EXISTING else model.joins[name].dimension if name in model.joins else None


def frame(spark: SparkSession, rows: list[dict[str, Any]], schema: str) -> DataFrame:
    fields = StructType.fromDDL(schema)
    data = [tuple(value(row.get(field.name), field) for field in fields) for row in rows]
    return spark.createDataFrame(data, fields)


def table(spark: SparkSession, name: str, rows: list[dict[str, Any]]) -> DataFrame:
    columns = TABLES[name].columns
    return frame(spark, rows, ", ".join(f"{column.name} {column.type.spark}" for column in columns))


def value(text: Any, field: StructField) -> Any:
    """A YAML scalar in the column's type; `key(...)` texts become surrogate keys."""
    if text is None:
        return None
    if field.name.endswith("_key") and isinstance(text, str):
        return surrogate(text)
    if isinstance(field.dataType, TimestampType):
        # Spark takes naive times for the machine's zone.
        return datetime.fromisoformat(str(text)).replace(tzinfo=UTC)
    if isinstance(field.dataType, DateType):
        return text if isinstance(text, date) else date.fromisoformat(text)
    return Decimal(str(text)) if isinstance(field.dataType, DecimalType) else text


def surrogate(text: str) -> int:
    """The first 60 bits of MD5 of `<source>|<natural key>|<version>`."""
    return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:15], 16)


def found(rows: DataFrame, schema: str, names: list[str]) -> list[dict[str, Any]]:
    """The rows' named columns, sorted, times as aware UTC; their types must be the schema's."""
    fields = {field.name: field for field in StructType.fromDDL(schema)}
    assert [(f.name, f.dataType) for f in rows.schema] == [(n, f.dataType) for n, f in fields.items()]
    collected = [row.asDict() for row in rows.collect()]
    return by_text({name: aware(row[name]) for name in names} for row in collected)


def aware(one: Any) -> Any:
    return one.astimezone(UTC) if isinstance(one, datetime) else one


def wanted(rows: list[dict[str, Any]], schema: str) -> list[dict[str, Any]]:
    fields = {field.name: field for field in StructType.fromDDL(schema)}
    return by_text({name: value(text, fields[name]) for name, text in row.items()} for row in rows)


def by_text(rows: Any) -> list[dict[str, Any]]:
    key: Callable[[dict[str, Any]], str] = str
    return sorted(rows, key=key)
