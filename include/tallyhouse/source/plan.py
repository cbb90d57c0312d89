"""From a database to the files of a source: what would be written, and how it differs from what is there."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from tallyhouse.contracts import SourceContract, TableContract
from tallyhouse.contracts.load import OVERLAYS, PIPELINES, REPOSITORY, load_source, read_source
from tallyhouse.quality.suites import suite_path
from tallyhouse.source import drafts
from tallyhouse.source.catalogue import Catalogue, CatalogueTable, children_first
from tallyhouse.source.drafts import NamedTable
from tallyhouse.source.judge import judge
from tallyhouse.source.names import plain_name, plain_names
from tallyhouse.source.profile import TableProfile, take
from tallyhouse.source.suite import first_suite, updated_suite

ALL = "all"
"""Asks for every table, also where the contract that is there has some of them only."""


@dataclass
class Plan:
    """What a database becomes.

    Attributes:
        source: What it is called.
        tables: The tables, with their names and what was decided, in the order of extraction.
        profiles: By the table's name in `ods`, what it holds.
        untaken: Tables of the database that are not taken.
        changes: How its schema differs from the contract that is there, one line each.
        retaken: Tables with a cursor whose columns changed: what they hold now, no window would show.
        files: By path, the text that should be there; the connection's entry is not among them.
    """

    source: str
    tables: list[NamedTable] = field(default_factory=list)
    profiles: dict[str, TableProfile] = field(default_factory=dict)
    untaken: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    retaken: list[str] = field(default_factory=list)
    files: dict[Path, str] = field(default_factory=dict)

    def different(self) -> dict[Path, str]:
        """The files that are not what they should be, and what there is of them."""
        there = {path: path.read_text(encoding="utf-8") if path.is_file() else "" for path in self.files}
        return {path: text for path, text in there.items() if text != self.files[path]}


def make(source: str, connection: Any, catalogue: Catalogue, conn_id: str, asked: list[str]) -> Plan:
    """Plans a source.

    Args:
        source: What it is called; a plain identifier.
        connection: An open DB-API connection to the database.
        catalogue: What it has.
        conn_id: What its Airflow connection is called.
        asked: Tables to take; none means those of the contract that is there, or else all.

    Raises:
        ValueError: The source was written by hand, or there is nothing to take.
    """
    before = existing(source)
    chosen = children_first(_chosen(catalogue, asked, before))
    plan = Plan(source)
    plan.untaken = sorted(table.qualified_name for table in catalogue.tables if table not in chosen)
    names = _table_names(source, catalogue, chosen, before)
    for table in chosen:
        name = names[table.schema, table.name]
        there = _before(catalogue, before, table)
        kept = {column.in_source: column.name for column in there.source_columns} if there else {}
        profile = take(connection, catalogue.engine, table)
        columns = plain_names([column.name for column in table.columns], kept=kept)
        new = frozenset(columns[one] for one in columns.keys() - kept.keys()) if there else frozenset()
        plan.tables.append(NamedTable(name, table, columns, judge(catalogue, table, profile), new))
        plan.profiles[name] = profile
    overlay_path = OVERLAYS / f"{source}.yaml"
    overlay = drafts.overlay(
        source, catalogue, conn_id, plan.tables, overlay_path.read_text(encoding="utf-8") if before else None
    )
    dbml = drafts.dbml(source, catalogue, plan.tables)
    contract = read_source(source, yaml.safe_load(overlay), dbml)
    plan.files[REPOSITORY / "docs" / "db" / drafts.dbml_name(source, catalogue.engine)] = dbml
    plan.files[overlay_path] = overlay
    for one in plan.tables:
        table_contract = contract.table(one.name)
        plan.files[suite_path(table_contract)] = _suite(connection, catalogue, table_contract, plan, one)
    pipeline, dag = (
        PIPELINES / source / "pipeline.yaml",
        REPOSITORY / "dags" / source / f"{source}_nightly.py",
    )
    if not pipeline.is_file():
        plan.files[pipeline] = drafts.pipeline(source)
    if not dag.is_file():
        plan.files[dag] = drafts.dag(source, catalogue, plan.tables)
    if before:
        plan.changes = _changes(before, contract)
        plan.retaken = [
            table.name
            for table in contract.tables
            if table.cursor and any(change.startswith(f"{table.name}.") for change in plan.changes)
        ]
    return plan


def existing(source: str) -> SourceContract | None:
    """The contract of that name that is there already.

    Raises:
        ValueError: It was written by hand, and so is not to be written again.
    """
    path = OVERLAYS / f"{source}.yaml"
    if not path.is_file():
        return None
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    dbml = REPOSITORY / content["dbml"]
    if not dbml.is_file() or not dbml.read_text(encoding="utf-8").startswith(drafts.MARK):
        raise ValueError(
            f"the source {source} was written by hand: {content['dbml']} does not begin with the line by "
            "which `make source` knows its own files. Take another NAME, or change that source by hand"
        )
    return load_source(source)


def _chosen(catalogue: Catalogue, asked: list[str], before: SourceContract | None) -> list[CatalogueTable]:
    if asked == [ALL] or (not asked and before is None):
        found = list(catalogue.tables)
    elif not asked and before is not None:
        found = [table for table in catalogue.tables if _before(catalogue, before, table)]
    else:
        found = []
        for name in asked:
            fitting = [t for t in catalogue.tables if name in (t.name, t.qualified_name)]
            if not fitting:
                known = [table.qualified_name for table in catalogue.tables]
                near = get_close_matches(name, [*known, *(t.name for t in catalogue.tables)], 1)
                raise ValueError(
                    f"{catalogue.database} has no table {name!r}"
                    + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(sorted(known))}")
                )
            found += [table for table in fitting if table not in found]
    if not found:
        raise ValueError(
            f"{catalogue.database} has no table that this account may read; grant it SELECT on those to be "
            "taken"
        )
    return found


def _table_names(
    source: str, catalogue: Catalogue, tables: list[CatalogueTable], before: SourceContract | None
) -> dict[tuple[str, str], str]:
    """Their names in the lake and in `ods`, where those of every source meet."""
    taken = {
        str(name)
        for path in OVERLAYS.glob("*.yaml")
        if path.stem != source
        for name in yaml.safe_load(path.read_text(encoding="utf-8"))["tables"]
    }
    often = Counter(plain_name(table.name) for table in tables)
    labels: dict[tuple[str, str], str] = {}
    kept: dict[str, str] = {}
    for table in tables:
        plain = plain_name(table.name)
        label = f"{table.schema}.{table.name}" if often[plain] > 1 and table.schema else table.name
        if plain in taken or (often[plain] > 1 and not table.schema):
            label = f"{source}.{label}"
        labels[table.schema, table.name] = label
        if there := _before(catalogue, before, table):
            kept[label] = there.name
    names = plain_names(labels.values(), kept=kept, taken=taken)
    return {place: names[label] for place, label in labels.items()}


def _before(
    catalogue: Catalogue, before: SourceContract | None, table: CatalogueTable
) -> TableContract | None:
    """What the contract that is there says of a table."""
    for one in before.tables if before else ():
        schema = one.schema if catalogue.engine == "postgres" else ""
        if (schema, one.in_source) == (table.schema, table.name):
            return one
    return None


def _suite(
    connection: Any, catalogue: Catalogue, contract: TableContract, plan: Plan, one: NamedTable
) -> str:
    suite = first_suite(connection, catalogue.engine, contract, one.table, plan.profiles[one.name])
    path = suite_path(contract)
    if path.is_file():
        suite = updated_suite(json.loads(path.read_text(encoding="utf-8")), suite, contract)
    return json.dumps(suite, indent=2, ensure_ascii=False) + "\n"


def _changes(before: SourceContract, now: SourceContract) -> list[str]:
    """How two contracts of a source differ in their tables and columns."""
    old, new = ({table.name: table for table in one.tables} for one in (before, now))
    found = [f"{name}: the table is gone" for name in old if name not in new]
    found += [f"{name}: the table is new" for name in new if name not in old]
    for name in [name for name in new if name in old]:
        was, is_ = ({column.name: column for column in one[name].columns} for one in (old, new))
        found += [f"{name}.{column}: gone" for column in was if column not in is_]
        for column, there in is_.items():
            if column not in was:
                found.append(f"{name}.{column}: new, {there.type.postgres}")
            elif was[column].type != there.type:
                found.append(f"{name}.{column}: was {was[column].type.postgres}, is {there.type.postgres}")
            elif was[column].nullable != there.nullable:
                found.append(f"{name}.{column}: {'may' if there.nullable else 'must not'} be NULL now")
        if old[name].key != new[name].key:
            found.append(f"{name}: its key was {', '.join(old[name].key)}, is {', '.join(new[name].key)}")
    return found
