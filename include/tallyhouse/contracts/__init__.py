"""Table contracts: columns and types from DBML, policies from the overlays in `include/contracts/`."""

from tallyhouse.contracts.load import load_source, load_subject
from tallyhouse.contracts.model import Column, SourceContract, SubjectContract, TableContract
from tallyhouse.contracts.types import ColumnType, Kind

__all__ = [
    "Column",
    "ColumnType",
    "Kind",
    "SourceContract",
    "SubjectContract",
    "TableContract",
    "load_source",
    "load_subject",
]
