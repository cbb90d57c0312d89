"""Definitions of the warehouse's models (`include/pipelines/`), and all that is derived from them."""

from tallyhouse.models.definition import Definition, Join, ModelColumn, ModelKind
from tallyhouse.models.load import all_definitions, column_origins, definition, definitions

__all__ = [
    "Definition",
    "Join",
    "ModelColumn",
    "ModelKind",
    "all_definitions",
    "column_origins",
    "definition",
    "definitions",
]
