"""Table contracts: columns and types from DBML, policies from the overlays in `include/contracts/`."""

from tallyhouse.contracts.load import load_pipeline, load_source
from tallyhouse.contracts.model import Column, PipelineContract, Policy, SourceContract, TableContract
from tallyhouse.contracts.types import ColumnType, Kind

__all__ = [
    "Column",
    "ColumnType",
    "Kind",
    "PipelineContract",
    "Policy",
    "SourceContract",
    "TableContract",
    "load_pipeline",
    "load_source",
]
