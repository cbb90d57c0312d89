"""The warehouse as docs/db/dwh_postgres.dbml has it, and rows that fit it."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from pydbml import PyDBML

from tallyhouse.contracts import ColumnType
from tallyhouse.settings import ROOT

SPELLED = {
    "text": "text",
    "text[]": "text[]",
    "jsonb": "jsonb",
    "numeric": "numeric",
}
"""Types of `etl` that no source has, so that contracts do not know them."""


def formatted(type_: str) -> str:
    """A type as PostgreSQL's format_type() writes it."""
    return type_.replace("varchar", "character varying").replace("char(", "character(")


@dataclass(frozen=True)
class Column:
    name: str
    dbml: str
    nullable: bool

    @property
    def postgres(self) -> str:
        """As PostgreSQL's format_type() writes it."""
        if self.dbml in SPELLED:
            return self.dbml
        return formatted(ColumnType.parse(self.dbml).postgres)

    @property
    def filler(self) -> Any:
        """A value for a test that does not care."""
        if self.nullable:
            return None
        kind = self.dbml.split("(")[0]
        return {
            "boolean": True,
            "date": "2026-01-02",
            "timestamptz": "2026-01-02 03:04:05+00",
            "text": "x",
            "varchar": "x",
            "char": "x",
        }.get(kind, 1)


@dataclass(frozen=True)
class Table:
    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    indexes: tuple[str, ...]

    @property
    def qualified_name(self) -> str:
        return f"{self.schema}.{self.name}"

    def row(self, values: dict[str, Any]) -> dict[str, Any]:
        """A whole row: what the test says, and fillers."""
        names = {column.name for column in self.columns}
        assert values.keys() <= names, f"{self.qualified_name} has no {values.keys() - names}"
        return {column.name: values.get(column.name, column.filler) for column in self.columns}


@cache
def tables() -> dict[str, Table]:
    """Every table, by its qualified name."""
    parsed = PyDBML((ROOT / "docs/db/dwh_postgres.dbml").read_text(encoding="utf-8"))
    found = {}
    for table in parsed.tables:
        key = tuple(column.name for column in table.columns if column.pk)
        for index in table.indexes:
            if index.pk:
                key = tuple(subject.name for subject in index.subjects)
        columns = tuple(
            Column(column.name, str(column.type).strip('"'), not (column.not_null or column.name in key))
            for column in table.columns
        )
        indexes = tuple(index.name for index in table.indexes if not index.pk)
        found[f"{table.schema}.{table.name}"] = Table(table.schema, table.name, columns, key, indexes)
    return found


def models() -> list[str]:
    """Names of the models that are merged: the star schema without the calendar."""
    return sorted(t.name for t in tables().values() if t.schema == "dwh" and t.name != "dim_date")
