"""What is written from definitions: the JSON Schema, the DBML of the warehouse, the reference page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tallyhouse.contracts.load import PIPELINES, REPOSITORY
from tallyhouse.models import postgres
from tallyhouse.models.definition import Definition, ModelKind
from tallyhouse.models.load import all_definitions, column_origins, source_tables

SCHEMA = PIPELINES / "model.schema.json"
DBML = REPOSITORY / "docs" / "db" / "dwh_postgres.dbml"
PAGE = REPOSITORY / "docs" / "reference" / "warehouse.md"
MARK = (
    "// ---- Generated below: python -m tallyhouse.models write. Edit include/pipelines/ and the contracts.\n"
)


def files() -> dict[Path, str]:
    """Every generated file and what it should hold."""
    return {SCHEMA: schema(), DBML: dbml(), PAGE: page()}


def schema() -> str:
    """The JSON Schema by which editors complete and check a definition."""
    found = Definition.model_json_schema(by_alias=True, mode="validation")
    for name in ("name", "pipeline"):
        found["properties"].pop(name, None)
    return json.dumps(found, indent=2) + "\n"


def dbml() -> str:
    """The warehouse in DBML: the pipeline's own tables as written by hand, the rest from definitions."""
    head = DBML.read_text(encoding="utf-8").partition(MARK)[0]
    return head + MARK + "\n" + "\n".join(_dbml_table(table) for table in postgres.tables())


def _dbml_table(table: postgres.Table) -> str:
    lines = [f"Table {table.qualified_name} {{"]
    for column in table.columns:
        settings = []
        if table.key == (column.name,):
            settings.append("pk")
        elif not column.nullable:
            settings.append("not null")
        if column.comment:
            settings.append("note: " + _quoted(column.comment))
        shown = f" [{', '.join(settings)}]" if settings else ""
        lines.append(
            f"  {column.name} {column.type.replace('timestamp with time zone', 'timestamptz')}{shown}"
        )
    lines.append(f"  Note: {_quoted(table.comment)}")
    indexes = [f"    ({', '.join(table.key)}) [pk]"] if len(table.key) > 1 else []
    for name, index in table.indexes.items():
        columns = index.columns[0] if len(index.columns) == 1 else f"({', '.join(index.columns)})"
        unique = "unique, " if index.unique else ""
        indexes.append(f"    {columns} [{unique}name: '{name}']")
    if indexes:
        lines += ["  indexes {", *indexes, "  }"]
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"


def page() -> str:
    """The reference page: every model and mart with its columns, where they come from and what is checked."""
    lines = [
        "# The warehouse, table by table",
        "",
        "Written by `python -m tallyhouse.models write` from `include/pipelines/`; do not edit.",
        "",
        "| table | kind | one row per | rows of |",
        "| --- | --- | --- | --- |",
    ]
    models = all_definitions()
    for model in models:
        name = f"[{model.name}](#{model.name})"
        rows = model.rows_of or ", ".join(model.models) or "a migration"
        lines.append(f"| {name} | {_kind(model)} | {_grain(model)} | {_cell(rows)} |")
    for model in models:
        lines += ["", *_section(model)]
    lines += [
        "",
        "## ods",
        "",
        "The typed current state of each source table, in PostgreSQL: the contract's columns, and",
        "`_snapshot`, `_run` and `_deleted_at`, which say with which extract a row's values came and when",
        "the source no longer had it.",
        "",
        "| table | source | key | columns |",
        "| --- | --- | --- | --- |",
    ]
    for table in source_tables().values():
        lines.append(
            f"| `ods.{table.name}` | {table.qualified_name} | {', '.join(table.key)} | {len(table.columns)} |"
        )
    return "\n".join(lines) + "\n"


def _section(model: Definition) -> Iterator[str]:
    store = "the targets" if model.kind is ModelKind.MART else "PostgreSQL and the targets"
    yield f"## {model.name}"
    yield ""
    yield f"{model.description}. {_grain(model).capitalize()} is a row. In {store}; key: " + (
        f"{', '.join(f'`{name}`' for name in model.key)}."
    )
    for name, join in model.joins.items():
        what = f"`{join.dimension}`" if join.dimension else f"`{join.table or name}`"
        where = ", ".join(f"{c} = {' or '.join(refs)}" for c, refs in join.match.items())
        at = f", the version in force at {join.at}" if join.at else ""
        yield ""
        yield f"Joins {what} as `{name}`: {where}{at}."
    if model.measures:
        by = f" per {model.measures.by}" if model.measures.by else ""
        yield ""
        yield f"Summed by reconciliation{by}: {', '.join(model.measures.sum)}."
    yield ""
    yield "| column | type | made of | |"
    yield "| --- | --- | --- | --- |"
    origins = column_origins(model.name)
    for name, column in model.columns.items():
        nullable = ", nullable" if column.nullable else ""
        made_of = ", ".join(origins[name])
        yield f"| {name} | {column.type}{nullable} | {made_of} | {_cell(column.description)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace(">", "&gt;")


def _kind(model: Definition) -> str:
    return f"{model.kind}, {'SCD2' if model.history else 'type 1'}" if model.natural_key else str(model.kind)


def _grain(model: Definition) -> str:
    return model.grain.removeprefix("one row per ")
