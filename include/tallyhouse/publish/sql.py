"""Statements from `sql/`: identifiers by template, values bound."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tallyhouse.contracts.load import REPOSITORY

FOLDER = REPOSITORY / "sql"


@cache
def _environment() -> Environment:
    # The result is SQL, not HTML, and only validated identifiers are ever put in.
    return Environment(  # noqa: S701
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def render(path: str, **identifiers: Any) -> str:
    """A statement with its identifiers filled in.

    Args:
        path: Below `sql/`, such as `dwh/ods/apply.sql`.
        **identifiers: Names of tables and columns; never values.
    """
    return _environment().get_template(path).render(**identifiers)


def exists(path: str) -> bool:
    """Whether there is such a statement."""
    return (FOLDER / path).is_file()
