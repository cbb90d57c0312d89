"""The lake: an S3 bucket with immutable raw batches, accepted rows and increments."""

from tallyhouse.lake.manifest import (
    MANIFEST,
    Manifest,
    Part,
    batch_prefix,
    check_parts,
    commit,
    committed_batches,
    find_manifests,
    sweep,
)
from tallyhouse.lake.store import Lake

__all__ = [
    "MANIFEST",
    "Lake",
    "Manifest",
    "Part",
    "batch_prefix",
    "check_parts",
    "commit",
    "committed_batches",
    "find_manifests",
    "sweep",
]
