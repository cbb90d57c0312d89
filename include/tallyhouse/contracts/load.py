"""Reads contracts: columns from the DBML, the rest from the YAML overlay beside it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydbml import PyDBML
from pydbml.classes import Table as DbmlTable

from tallyhouse.contracts.model import IDENTIFIER, Column, SourceContract, SubjectContract, TableContract
from tallyhouse.contracts.types import ColumnType

REPOSITORY = Path(__file__).resolve().parents[3]
OVERLAYS = REPOSITORY / "include" / "contracts"
ENGINES = ("mysql", "postgres", "objects")


@cache
def load_source(name: str) -> SourceContract:
    """The contract of a source.

    Args:
        name: The overlay's file name without its ending, such as `orders`.

    Raises:
        ValueError: There is no such source, or its overlay and its DBML do not agree.
    """
    overlay = _read_yaml(OVERLAYS / f"{name}.yaml", "source")
    if overlay["engine"] not in ENGINES:
        raise ValueError(f"source {name}: engine {overlay['engine']!r} is not one of {', '.join(ENGINES)}")
    dbml_path = REPOSITORY / overlay["dbml"]
    dbml = {table.name: table for table in PyDBML(dbml_path.read_text(encoding="utf-8")).tables}
    defaults = overlay.get("defaults") or {}
    tables = overlay["tables"]
    if missing := sorted(set(tables) ^ set(dbml)):
        raise ValueError(f"source {name}: {', '.join(missing)} not in both {overlay['dbml']} and the overlay")
    return SourceContract(
        name=name,
        engine=overlay["engine"],
        conn_id=overlay["conn_id"],
        tables=tuple(_table(name, dbml[table], {**defaults, **(tables[table] or {})}) for table in tables),
    )


@cache
def load_subject(name: str) -> SubjectContract:
    """The contract of a subject: its sources' contracts and its models.

    Raises:
        ValueError: There is no such subject, or one of its tables shares its name with another one of
            any subject: they would meet in `ods`.
    """
    overlay = _read_yaml(OVERLAYS / "subjects" / f"{name}.yaml", "subject")
    if not IDENTIFIER.fullmatch(name):
        # It stands in the names of tables in `staging` and in paths of the lake.
        raise ValueError(f"subject {name!r} is not a plain lower-case identifier of at most 39 characters")
    subject = SubjectContract(
        name=name,
        sources=tuple(load_source(source) for source in overlay["sources"]),
        models=tuple(overlay["models"]),
        marts=tuple(overlay.get("marts", ())),
    )
    _check_names_differ()
    return subject


@cache
def _check_names_differ() -> None:
    owners: dict[str, str] = {}
    for path in sorted(OVERLAYS.glob("*.yaml")):
        for table in load_source(path.stem).tables:
            if table.name in owners:
                raise ValueError(
                    f"{table.qualified_name} and {owners[table.name]} would meet in ods; "
                    "table names must differ"
                )
            owners[table.name] = table.qualified_name


def _read_yaml(path: Path, what: str) -> dict[str, Any]:
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise ValueError(f"no {what} contract {path.stem!r}; there are: {known}")
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def _table(source: str, dbml: DbmlTable, overlay: dict[str, Any]) -> TableContract:
    key = [column.name for column in dbml.columns if column.pk]
    for index in dbml.indexes:
        if index.pk:
            key = [subject.name for subject in index.subjects]
    contract = TableContract(
        source=source,
        name=dbml.name,
        columns=tuple(
            Column(column.name, _type(source, dbml.name, column), not (column.not_null or column.name in key))
            for column in dbml.columns
        ),
        key=tuple(key),
        cursor=overlay.get("cursor"),
        on_bad_value=overlay.get("on_bad_value", "error"),
        pii=tuple(overlay.get("pii", ())),
        control_totals=tuple(overlay.get("control_totals", ())),
    )
    contract.validate()
    return contract


def _type(source: str, table: str, column: Any) -> ColumnType:
    try:
        return ColumnType.parse(str(column.type))
    except ValueError as error:
        raise ValueError(f"{source}.{table}.{column.name}: {error}") from error
