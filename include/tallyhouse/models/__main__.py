"""Commands about the models' definitions.

python -m tallyhouse.models check            are they right, and is what is written from them current
python -m tallyhouse.models write            write the JSON Schema, the DBML and the reference page
python -m tallyhouse.models drift            compare them with the running databases
python -m tallyhouse.models draft --name X   draft the next migrations from that comparison
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import psycopg
import sqlparse

from tallyhouse import servers
from tallyhouse.contracts.load import REPOSITORY
from tallyhouse.lake import Lake
from tallyhouse.models import drift, pages
from tallyhouse.models.load import all_definitions
from tallyhouse.publish.target import LakeAccess, Place, errors, known, load
from tallyhouse.settings import Settings, SettingsError, load_settings

REVISION = '''"""{title}."""

from tallyhouse.migrate import run_sql_beside

revision = "{number}"
down_revision = "{before}"


def upgrade() -> None:
    """Run the SQL file beside this one."""
    run_sql_beside(__file__)
'''


def changes(settings: Settings) -> dict[str, list[drift.Change]]:
    """How each database differs from the definitions, by the folder of its migrations below `sql/`."""
    with servers.warehouse(settings).connect() as connection:
        dwh = drift.postgres_changes(connection)
    found = {"dwh": dwh}
    nowhere = Lake.local(""), LakeAccess("", "", "")
    for name in known():
        if (target := load(name)).migrations:
            with closing(target.open(Place.of(settings, name), *nowhere)) as opened:
                found[name] = opened.changes()
    return found


def draft(folder: Path, name: str, found: Sequence[drift.Change]) -> list[Path]:
    """Writes the next numbered migration of a folder.

    Args:
        folder: With the migrations that there are.
        name: For the file; also the title, its `_` as spaces.
        found: What it has to change.

    Returns:
        The SQL file and the revision beside it.
    """
    before = max((path.stem[:4] for path in folder.glob("[0-9][0-9][0-9][0-9]_*.py")), default="0000")
    number = f"{int(before) + 1:04d}"
    title = name.replace("_", " ").capitalize()
    body = "\n\n".join(
        "-- "
        + change.what
        + (". DATA IS LOST HERE: is that meant?" if change.loses else "")
        + "\n"
        + "\n".join(f"{statement};" for statement in change.statements)
        for change in found
    )
    script = folder / f"{number}_{name}.sql"
    script.write_text(f"-- {title}.\n{body}\n", encoding="utf-8")
    revision = script.with_suffix(".py")
    revision.write_text(REVISION.format(title=title, number=number, before=before), encoding="utf-8")
    assert sqlparse.split(script.read_text(encoding="utf-8"))  # noqa: S101 - it holds a statement
    return [script, revision]


def check() -> list[str]:
    """What is wrong: files that are not what is written from the definitions."""
    problems = []
    for path, text in pages.files().items():
        there = path.read_text(encoding="utf-8") if path.is_file() else ""
        if there != text:
            lines = list(difflib.unified_diff(there.splitlines(), text.splitlines(), "is", "should be", n=0))
            problems.append("\n".join([f"{path.relative_to(REPOSITORY)} is out of date", *lines[2:8]]))
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        0, or 1 when something is wrong or differs; what, and what to do, is on standard error.
    """
    parser = argparse.ArgumentParser(prog="tallyhouse.models", description="The models' definitions.")
    parser.add_argument("command", choices=("check", "write", "drift", "draft"))
    parser.add_argument("--name", default="drafted", help="draft: what the migration is called")
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", options.name):
        parser.error(f"--name {options.name!r}: use lower-case letters, digits and _")
    told: tuple[type[Exception], ...] = (ValueError, SettingsError, psycopg.Error, *errors())
    try:
        all_definitions()
        return _run(options.command, options.name)
    except told as error:
        print(f"models: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _run(command: str, name: str) -> int:
    if command == "write":
        for path, text in pages.files().items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(REPOSITORY))
        return 0
    if command == "check":
        problems = check()
        for problem in problems:
            print(f"models: {problem}; run `python -m tallyhouse.models write`", file=sys.stderr)
        return int(bool(problems))
    found = changes(load_settings())
    for folder, differences in found.items():
        for change in differences:
            print(f"{folder}: {change.what}")
        if command == "draft" and differences:
            for path in draft(REPOSITORY / "sql" / folder / "migrations", name, differences):
                print(f"wrote {path.relative_to(REPOSITORY)}: read it, then `python -m tallyhouse.migrate`")
        elif not differences:
            print(f"{folder}: as the definitions say")
    return int(command == "drift" and any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
