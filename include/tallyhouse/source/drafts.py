"""The files of a source, as text: DBML, contract, pipeline, connection and DAG."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import SingleQuotedScalarString as _Quoted

from tallyhouse.source.catalogue import Catalogue, CatalogueTable
from tallyhouse.source.judge import Judgement

MARK = "// Written by `make source` from the database's catalogue; run it again, do not edit.\n"
"""How a DBML file begins that may be written again."""
_RESERVED = (
    "table",
    "ref",
    "enum",
    "project",
    "tablegroup",
    "note",
    "indexes",
    "as",
    "tablepartial",
    "records",
)
_PLAIN_TYPE = re.compile(r"[a-z_0-9]+(\(\d+(,\d+)?\))?")
_ENGINES = {"mysql": "MySQL", "postgres": "PostgreSQL"}


@dataclass(frozen=True)
class NamedTable:
    """A table of the catalogue with its names in the warehouse, and what was decided of it.

    Attributes:
        name: The table's name in the lake and in `ods`.
        table: As the catalogue has it.
        columns: By the source's name, the name in the lake and in `ods`.
        judgement: What the contract says.
        new: Of a table that has a contract already: the columns that it lacks, by their names in `ods`.
    """

    name: str
    table: CatalogueTable
    columns: Mapping[str, str]
    judgement: Judgement
    new: frozenset[str] = frozenset()


def dbml(source: str, catalogue: Catalogue, tables: list[NamedTable]) -> str:
    """The columns and types, in DBML."""
    lines = [
        MARK.rstrip("\n"),
        f"Project {source} {{",
        f"  database_type: '{_ENGINES[catalogue.engine]}'",
        "}",
    ]
    for one in tables:
        lines += ["", f"Table {_name(one.name)} {{"]
        primary = next((index.columns for index in one.table.unique if index.primary), ())
        key = [one.columns[name] for name in one.judgement.key]
        for column in one.table.columns:
            settings = []
            if key == [one.columns[column.name]]:
                settings.append("pk")
            elif not column.nullable or column.name in primary:
                settings.append("not null")
            if column.comment:
                settings.append(f"note: {_text(column.comment)}")
            said = f" [{', '.join(settings)}]" if settings else ""
            lines.append(f"  {_name(one.columns[column.name])} {_type(column.declared)}{said}")
        if one.table.comment:
            lines.append(f"  Note: {_text(one.table.comment)}")
        if len(key) > 1:
            lines += ["  indexes {", f"    ({', '.join(map(_name, key))}) [pk]", "  }"]
        lines.append("}")
    return "\n".join(lines) + "\n"


def _name(name: str) -> str:
    return f'"{name}"' if name in _RESERVED else name


def _type(declared: str) -> str:
    return declared if _PLAIN_TYPE.fullmatch(declared) else f'"{declared}"'


def _text(text: str) -> str:
    plain = " ".join(text.split()).replace("\\", "/").replace("'", "’")
    return f"'{plain}'"


def overlay(
    source: str, catalogue: Catalogue, conn_id: str, tables: list[NamedTable], there: str | None
) -> str:
    """The contract's YAML. What a person wrote into one that is there stays, comments too.

    Args:
        source: What it is called.
        catalogue: The database.
        conn_id: The Airflow connection.
        tables: In the order in which they are extracted.
        there: The file's text, where there is one.
    """
    round_trip = YAML()
    round_trip.width = 110
    round_trip.indent(mapping=2, sequence=4, offset=2)
    if there is None:
        content = CommentedMap(
            engine=catalogue.engine,
            conn_id=conn_id,
            dbml=f"docs/db/{dbml_name(source, catalogue.engine)}",
            tables=CommentedMap(),
        )
        content.yaml_set_start_comment(
            f"Drafted by `make source` from {_ENGINES[catalogue.engine]}. Yours to edit: run again, it keeps "
            "what you\nwrote and follows the database's changes. Tables are extracted top to bottom."
        )
    else:
        content = round_trip.load(there)
    listed = content["tables"]
    for gone in [name for name in listed if name not in {one.name for one in tables}]:
        del listed[gone]
    for one in tables:
        if one.name not in listed:
            listed[_text_of(one.name)] = _settings(one)
            listed.yaml_set_comment_before_after_key(
                one.name, before="\n".join(one.judgement.reasons), indent=2
            )
        elif listed[one.name] is not None:
            _follow(listed[one.name], one)
    for one in tables:
        listed.move_to_end(one.name)
    text = io.StringIO()
    round_trip.dump(content, text)
    return text.getvalue()


def _settings(one: NamedTable) -> CommentedMap:
    """What the contract says of a table that it did not have."""
    judged, columns = one.judgement, one.columns
    found = CommentedMap()
    if one.table.name != one.name:
        found["table"] = _text_of(one.table.name)
    if one.table.schema not in ("", "public"):
        found["schema"] = _text_of(one.table.schema)
    if renamed := _renamed(columns):
        found["columns"] = renamed
    found["cursor"] = _text_of(columns[judged.cursor]) if judged.cursor else None
    if not judged.key:
        found["delete_limit"] = 1
        found.yaml_add_eol_comment("a changed row is one row less and another one more", "delete_limit")
    for setting, names in (
        ("collated", judged.collated),
        ("pii", judged.pii),
        ("control_totals", judged.totals),
    ):
        if names:
            found[setting] = _flow([columns[name] for name in names])
    if judged.policies:
        policies = {_text_of(columns[name]): said for name, said in judged.policies.items()}
        found["on_bad_value"] = CommentedMap(policies)
    return found


def _follow(settings: Any, one: NamedTable) -> None:
    """Takes out of a table's settings what names columns that are gone, and adds what new columns need."""
    known = set(one.columns.values())
    if personal := [one.columns[name] for name in one.judgement.pii if one.columns[name] in one.new]:
        settings["pii"] = _flow([*dict.fromkeys([*map(str, settings.get("pii", ())), *personal])])
    for setting in ("pii", "control_totals", "collated", "key"):
        if setting in settings:
            for name in [name for name in settings[setting] if name not in known]:
                settings[setting].remove(name)
            if not settings[setting]:
                del settings[setting]
    policies = settings.get("on_bad_value")
    if isinstance(policies, dict) and set(policies) != {"sentinel"}:
        for name in [name for name in policies if name not in known]:
            del policies[name]
        if not policies:
            del settings["on_bad_value"]
    if settings.get("cursor") not in (None, *known):
        settings["cursor"] = None
    settings.pop("columns", None)
    if renamed := _renamed(one.columns):
        settings["columns"] = renamed


def _renamed(columns: Mapping[str, str]) -> CommentedMap:
    """By the name in `ods`, what the source calls a column, where that is another name."""
    return CommentedMap({_text_of(plain): _text_of(name) for name, plain in columns.items() if plain != name})


def _text_of(name: str) -> str:
    """A name as YAML takes it for a text: `off`, `no` and `null` mean something else without quotes."""
    return name if yaml.safe_load(f"[{name}]" if name.isidentifier() else "") == [name] else _Quoted(name)


def _flow(names: list[str]) -> CommentedSeq:
    found = CommentedSeq(map(_text_of, names))
    found.fa.set_flow_style()
    return found


def dbml_name(source: str, engine: str) -> str:
    """The name of a source's DBML file."""
    return f"{source}_{engine}.dbml"


def pipeline(source: str) -> str:
    """The pipeline of one source."""
    return f"sources: [{source}]\n"


def connection(
    conn_id: str, engine: str, place: Mapping[str, Any], extra: Mapping[str, Any], password: str
) -> str:
    """An entry of `config/connections.yaml`, in which the password has a name and no value.

    Args:
        conn_id: What it is called.
        engine: `mysql` or `postgres`.
        place: `host`, `port`, `schema` (the database) and `login`.
        extra: Options of the connection.
        password: The name of the setting that holds the password.
    """
    more = {"client": "mysql-connector-python", **extra} if engine == "mysql" else dict(extra)
    entry: dict[str, Any] = {"conn_type": engine, **_literal(dict(place)), "password": f"${{{password}}}"}
    if more:
        entry["extra"] = _literal(more)
    text = yaml.safe_dump({conn_id: entry}, sort_keys=False, allow_unicode=True, width=110)
    return f"\n# Drafted by `make source`; {password} stands in .env or in the environment.\n{text}"


def _literal(node: Any) -> Any:
    """Texts in which a `$` is a `$`: the file's placeholders begin with one."""
    if isinstance(node, dict):
        return {key: _literal(value) for key, value in node.items()}
    return node.replace("$", "$$") if isinstance(node, str) else node


def dag(source: str, catalogue: Catalogue, tables: list[NamedTable]) -> str:
    """The DAG file."""
    count = f"{len(tables)} table{'s' if len(tables) != 1 else ''}"
    engine = _ENGINES[catalogue.engine]
    return f'''"""# {source.replace("_", " ").capitalize()}, every night

Takes the source {source} ({engine}) into `ods`, as `include/contracts/{source}.yaml` says. The run's ledger
must close.

**A re-run** takes the window since the last published run again, and changes nothing that is already there.

**Parameters**, for a run started by hand: `{{"tables": ["{tables[0].name}"]}}`, `{{"full_refresh": true}}`,
`{{"allow_deletes": true}}`.
"""

from airflow.sdk import DAG

from tallyhouse_airflow.task_groups.nightly import nightly, nightly_settings

with DAG(
    dag_id="{source}_nightly",
    doc_md=__doc__,
    description="{engine}, {count}, to ods",
    **nightly_settings("{source}"),
):
    nightly("{source}")
'''
