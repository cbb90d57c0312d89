"""Reads contracts: columns from the DBML, the rest from the YAML overlay beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml
from pydbml import PyDBML
from pydbml.classes import Enum as DbmlEnum
from pydbml.classes import Table as DbmlTable

from tallyhouse.contracts.model import (
    IDENTIFIER,
    Column,
    Made,
    PipelineContract,
    Policy,
    SourceContract,
    TableContract,
)
from tallyhouse.contracts.types import ColumnType, Kind
from tallyhouse.settings import TargetsSetting

REPOSITORY = Path(__file__).resolve().parents[3]
OVERLAYS = REPOSITORY / "include" / "contracts"
PIPELINES = REPOSITORY / "include" / "pipelines"
DATABASES = ("mysql", "postgres")
ENGINES = (*DATABASES, "objects", "files")
ROW_DIGESTS = 7
"""Runs within which all rows of a table with a cursor are compared, unless its contract says otherwise."""


@cache
def load_source(name: str) -> SourceContract:
    """The contract of a source.

    Args:
        name: The overlay's file name without its ending, such as `orders`.

    Raises:
        ValueError: There is no such source, or its overlay and its DBML do not agree.
    """
    overlay = _overlay(name)
    return read_source(name, overlay, (REPOSITORY / overlay["dbml"]).read_text(encoding="utf-8"))


def read_source(name: str, overlay: dict[str, Any], dbml_text: str) -> SourceContract:
    """The contract of a source by the content of its files.

    Args:
        name: What the source is called.
        overlay: What stands in its YAML.
        dbml_text: Its DBML.

    Raises:
        ValueError: They do not agree.
    """
    if overlay["engine"] not in ENGINES:
        raise ValueError(f"source {name}: engine {overlay['engine']!r} is not one of {', '.join(ENGINES)}")
    dbml = {table.name: table for table in PyDBML(dbml_text).tables}
    defaults = overlay.get("defaults") or {}
    tables = overlay["tables"]
    if missing := sorted(set(tables) ^ set(dbml)):
        raise ValueError(f"source {name}: {', '.join(missing)} not in both {overlay['dbml']} and the overlay")
    if lost := [
        table for table in tables if (overlay["engine"] == "files") != ("file" in (tables[table] or {}))
    ]:
        raise ValueError(
            f"source {name}: {', '.join(lost)}: `file` goes with the engine `files`, and with no other"
        )
    source = SourceContract(
        name=name,
        engine=overlay["engine"],
        conn_id=overlay["conn_id"],
        tables=tuple(
            _table(name, overlay["engine"], dbml[table], {**defaults, **(tables[table] or {})})
            for table in tables
        ),
        files={table: content["file"] for table, content in tables.items() if content and "file" in content},
        **{key: overlay[key] for key in ("overlap", "clock", "replica_lag", "give_way") if key in overlay},
    )
    source.validate()
    return source


@dataclass(frozen=True)
class SourceOutline:
    """What a DAG has to know of a source: its engine, and the names of its tables."""

    engine: str
    tables: tuple[str, ...]


@cache
def outline(pipeline: str) -> dict[str, SourceOutline]:
    """The sources of a pipeline by name, from the overlays alone.

    A DAG file is read again and again, and to parse DBML takes ten times as long.
    """
    found = _read_yaml(PIPELINES / pipeline / "pipeline.yaml", "pipeline", PIPELINES.glob("*/pipeline.yaml"))
    overlays = {name: _overlay(name) for name in found["sources"]}
    return {name: SourceOutline(one["engine"], tuple(one["tables"])) for name, one in overlays.items()}


def has_models(pipeline: str) -> bool:
    """Whether a pipeline has models; without them it ends in `ods`."""
    return any(path.parent.name == pipeline for path in model_files().values())


def _overlay(source: str) -> dict[str, Any]:
    return _read_yaml(OVERLAYS / f"{source}.yaml", "source contract", OVERLAYS.glob("*.yaml"))


@cache
def load_pipeline(name: str) -> PipelineContract:
    """The contract of a pipeline: its sources' contracts, and the models defined beside `pipeline.yaml`.

    Raises:
        ValueError: There is no such pipeline, or one of its tables shares its name with another one of
            any pipeline: they would meet in `ods`.
    """
    overlay = _read_yaml(PIPELINES / name / "pipeline.yaml", "pipeline", PIPELINES.glob("*/pipeline.yaml"))
    if not IDENTIFIER.fullmatch(name):
        # It stands in the names of tables in `staging` and in paths of the lake.
        raise ValueError(f"pipeline {name!r} is not a plain lower-case identifier of at most 39 characters")
    built, marts = _models(name)
    pipeline = PipelineContract(
        name=name,
        sources=tuple(load_source(source) for source in overlay["sources"]),
        models=built,
        marts=marts,
        # A pipeline without models brings nothing to the warehouse, and so to no target.
        targets=TargetsSetting().names if built else (),
    )
    _check_names_differ()
    return pipeline


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


@cache
def model_files() -> dict[str, Path]:
    """The files that define models, by the model's name, of every pipeline.

    Raises:
        ValueError: Two have the same name: they would meet in the warehouse.
    """
    found: dict[str, Path] = {}
    for path in sorted(PIPELINES.glob("*/*.yaml")):
        if path.name == "pipeline.yaml":
            continue
        if path.stem in found:
            raise ValueError(f"{path} and {found[path.stem]} would meet in the warehouse; rename one of them")
        found[path.stem] = path
    return found


def _models(pipeline: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A pipeline's models, each after the dimensions that it joins, and its marts."""
    kinds: dict[str, str] = {}
    before: dict[str, list[str]] = {}
    for name, path in model_files().items():
        if path.parent.name == pipeline:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            kinds[name] = str(content.get("kind"))
            joins = content.get("joins") or {}
            before[name] = [join["dimension"] for join in joins.values() if "dimension" in (join or {})]
    names = [name for name in TopologicalSorter(before).static_order() if name in kinds]
    built = sorted((name for name in names if kinds[name] != "mart"), key=lambda name: kinds[name] == "fact")
    return tuple(built), tuple(name for name in names if kinds[name] == "mart")


def _read_yaml(path: Path, what: str, others: Iterable[Path]) -> dict[str, Any]:
    if not path.is_file():
        known = ", ".join(sorted(_name(file) for file in others))
        raise ValueError(f"no {what} {_name(path)!r}; there are: {known}")
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def _name(path: Path) -> str:
    """What a contract is called: its file, or the folder of a pipeline."""
    return path.parent.name if path.name == "pipeline.yaml" else path.stem


def _table(source: str, engine: str, dbml: DbmlTable, overlay: dict[str, Any]) -> TableContract:
    names = [column.name for column in dbml.columns]
    renamed = {str(name): str(other) for name, other in (overlay.get("columns") or {}).items()}
    collated = [str(name) for name in overlay.get("collated", ())]
    _check_named(
        f"{source}.{dbml.name}", names, columns=renamed, collated=collated, key=overlay.get("key", ())
    )
    pii = list(overlay.get("pii", ()))
    said = tuple(overlay.get("key", ())) or _dbml_key(dbml)
    exact = {*said, overlay.get("cursor"), *overlay.get("control_totals", ())}
    policies = _policies(f"{source}.{dbml.name}", overlay.get("on_bad_value", "error"), names, exact)
    columns = [
        Column(
            column.name,
            _type(source, engine, dbml.name, column),
            not (column.not_null or column.name in said) or policies[column.name].name == "null",
            policies[column.name],
            renamed.get(column.name, ""),
        )
        for column in dbml.columns
    ]
    made, key = _made(engine, said, collated, {column.name: column.in_source for column in columns})
    pii += [f"{COLLATED}{name}" for name in collated if name in pii]
    has_changes = engine in DATABASES and overlay.get("cursor") is not None
    contract = TableContract(
        source=source,
        name=dbml.name,
        columns=(*columns, *made),
        key=key,
        cursor=overlay.get("cursor"),
        pii=tuple(pii),
        control_totals=tuple(overlay.get("control_totals", ())),
        proof=overlay.get("proof", "digest"),
        schema=overlay.get("schema", "public"),
        deletes=overlay.get("deletes", "mark"),
        delete_limit=overlay.get("delete_limit", 0.2),
        source_name=str(overlay.get("table") or ""),
        schema_changes=overlay.get("schema_changes", "freeze"),
        left_out=tuple(overlay.get("left_out", ())),
        row_digests=overlay.get("row_digests", ROW_DIGESTS if has_changes else None),
    )
    if engine not in DATABASES and contract.row_digests is not None:
        raise ValueError(f"{contract.qualified_name}: row_digests goes with a database; take it out")
    if engine == "files" and contract.deletes != "ignore":
        raise ValueError(
            f"{contract.qualified_name}: of files no rows are marked as deleted; use `deletes: ignore`"
        )
    contract.validate()
    return contract


COLLATED = "_key_"
"""What stands before the name of a key's column, in that of the column by which its collation compares it."""


def _dbml_key(dbml: DbmlTable) -> tuple[str, ...]:
    for index in dbml.indexes:
        if index.pk:
            return tuple(subject.name for subject in index.subjects)
    return tuple(column.name for column in dbml.columns if column.pk)


def _made(
    engine: str, key: tuple[str, ...], collated: list[str], in_source: dict[str, str]
) -> tuple[list[Column], tuple[str, ...]]:
    """What the source computes beside its columns, and the key with that in it."""
    if not key and engine in DATABASES:
        number = ColumnType(Kind.BIGINT)
        made = [Column("_row", number, False, made=Made.ROW), Column("_copy", number, False, made=Made.COPY)]
        return made, tuple(column.name for column in made)
    hexadecimal = ColumnType(Kind.CHAR, length=64)
    return (
        [
            Column(f"{COLLATED}{name}", hexadecimal, False, source_name=in_source[name], made=Made.COLLATED)
            for name in collated
        ],
        tuple(f"{COLLATED}{name}" if name in collated else name for name in key),
    )


def _check_named(where: str, names: list[str], **named: Iterable[str]) -> None:
    for what, said in named.items():
        if unknown := sorted(set(said) - set(names)):
            raise ValueError(f"{where}: {what} names {unknown}, which the DBML does not have")


def _policies(where: str, said: Any, names: list[str], exact: set[str | None]) -> dict[str, Policy]:
    """Policies by column: one for all but those that must be exact, or a mapping; the others keep `error`."""
    try:
        if isinstance(said, dict) and set(said) != {"sentinel"}:
            by_name = {str(name): Policy.parse(policy) for name, policy in said.items()}
        else:
            one = Policy.parse(said)
            by_name = {name: one for name in names if name not in exact}
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if unknown := sorted(by_name.keys() - set(names)):
        raise ValueError(f"{where}: on_bad_value names {unknown}, which the DBML does not have")
    return dict.fromkeys(names, Policy()) | by_name


def _type(source: str, engine: str, table: str, column: Any) -> ColumnType:
    try:
        if isinstance(column.type, DbmlEnum):  # described beside the tables
            return ColumnType(Kind.TEXT, native="enum")
        return ColumnType.parse(str(column.type), engine)
    except ValueError as error:
        raise ValueError(f"{source}.{table}.{column.name}: {error}") from error
