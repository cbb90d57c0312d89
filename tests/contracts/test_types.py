import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallyhouse.contracts import ColumnType, Kind


@pytest.mark.parametrize(
    ("dbml", "kind", "postgres", "spark"),
    [
        ("char(36)", Kind.CHAR, "char(36)", "string"),
        ("varchar(255)", Kind.VARCHAR, "varchar(255)", "string"),
        ("decimal(12,2)", Kind.DECIMAL, "numeric(12,2)", "decimal(12,2)"),
        ("numeric(6, 2)", Kind.DECIMAL, "numeric(6,2)", "decimal(6,2)"),
        ("int", Kind.INTEGER, "integer", "int"),
        ("smallint", Kind.SMALLINT, "smallint", "smallint"),
        ("boolean", Kind.BOOLEAN, "boolean", "boolean"),
        ("date", Kind.DATE, "date", "date"),
        ("json", Kind.JSON, "text", "string"),
        ("timestamptz", Kind.TIMESTAMP, "timestamp with time zone", "timestamp"),
        (
            "datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)",
            Kind.TIMESTAMP,
            "timestamp with time zone",
            "timestamp",
        ),
    ],
)
def test_a_dbml_type_is_spelled_for_each_engine(dbml: str, kind: Kind, postgres: str, spark: str) -> None:
    parsed = ColumnType.parse(dbml)
    assert (parsed.kind, parsed.postgres, parsed.spark) == (kind, postgres, spark)


@pytest.mark.parametrize(
    ("dbml", "engine", "postgres", "spark"),
    [
        ("tinyint(1)", "mysql", "boolean", "boolean"),
        ("tinyint unsigned", "mysql", "smallint", "smallint"),
        ("smallint unsigned", "mysql", "integer", "int"),
        ("mediumint unsigned", "mysql", "integer", "int"),
        ("int(10) unsigned", "mysql", "bigint", "bigint"),
        ("bigint unsigned zerofill", "mysql", "numeric(20,0)", "decimal(20,0)"),
        ("bit(63)", "mysql", "bigint", "bigint"),
        ("bit(64)", "mysql", "numeric(20,0)", "decimal(20,0)"),
        ("bit(3)", "postgres", "text", "string"),
        ("bit varying(3)", "postgres", "text", "string"),
        ("decimal(65,30)", "mysql", "numeric(65,30)", "string"),
        ("enum('a,b','c')", "mysql", "text", "string"),
        ("time(6)", "mysql", "text", "string"),
        ("varbinary(16)", "mysql", "bytea", "binary"),
        ("geometry", "mysql", "bytea", "binary"),
        ("numeric", "postgres", "text", "string"),
        ("character varying(20)", "postgres", "varchar(20)", "string"),
        ("varchar", "postgres", "text", "string"),
        ("timestamp(3) without time zone", "postgres", "timestamp with time zone", "timestamp"),
        ("integer[][]", "postgres", "text", "string"),
        ("tstzrange", "postgres", "text", "string"),
    ],
)
def test_a_type_means_what_its_source_means(dbml: str, engine: str, postgres: str, spark: str) -> None:
    parsed = ColumnType.parse(dbml, engine)
    assert (parsed.postgres, parsed.spark) == (postgres, spark)


@pytest.mark.parametrize(
    ("dbml", "held", "not_held"),
    [
        ("boolean", ["0", "1"], ["2", "true", ""]),
        ("smallint", ["-32768", "32767"], ["32768", "1.0", "", "１"]),
        ("decimal(4,2)", ["99.99", "-0.50", "1"], ["100", "1.005", "NaN", ".5", ""]),
        ("decimal(2,2)", ["0.99", "00.10"], ["1.00", "1"]),
        ("double", ["1e308", "nan"], ["x", ""]),
        ("date", ["1900-01-01"], ["1900-02-30", "19000101", "1900-1-1"]),
        ("datetime", ["1900-01-01 00:00:00", "1900-01-01 00:00:00.5"], ["1900-01-01", "1900-01-01 24:00:00"]),
        ("varchar(2)", ["", "🥞🥞"], ["abc", "a\0"]),
        ("blob", [], ["", "00"]),
    ],
)
def test_a_sentinel_must_fit_the_type(dbml: str, held: list[str], not_held: list[str]) -> None:
    parsed = ColumnType.parse(dbml)
    assert [parsed.holds(text) for text in held] == [True] * len(held)
    assert [parsed.holds(text) for text in not_held] == [False] * len(not_held)


@pytest.mark.parametrize("dbml", ["decimal", "varchar", "shape", "int[]", "", "decimal(12)", "char(x)"])
def test_a_type_without_precision_or_without_a_home_is_refused(dbml: str) -> None:
    with pytest.raises(ValueError, match=r"type"):
        ColumnType.parse(dbml)


@given(precision=st.integers(1, 38), data=st.data())
def test_every_decimal_keeps_its_precision(precision: int, data: st.DataObject) -> None:
    scale = data.draw(st.integers(0, precision))
    assert ColumnType.parse(f"decimal({precision},{scale})").postgres == f"numeric({precision},{scale})"
