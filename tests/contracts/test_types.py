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


@pytest.mark.parametrize("dbml", ["decimal", "varchar", "geometry", "bit(8)", "", "decimal(12)"])
def test_a_type_without_precision_or_without_a_home_is_refused(dbml: str) -> None:
    with pytest.raises(ValueError, match=r"type"):
        ColumnType.parse(dbml)


@given(precision=st.integers(1, 38), data=st.data())
def test_every_decimal_keeps_its_precision(precision: int, data: st.DataObject) -> None:
    scale = data.draw(st.integers(0, precision))
    assert ColumnType.parse(f"decimal({precision},{scale})").postgres == f"numeric({precision},{scale})"
