"""Moves lines that are no runs away: `python -m services.pipeline_info.compact`, at any time."""

from __future__ import annotations

import sys

from services.pipeline_info.backends.jsonl import JsonlPipelineRepository
from services.pipeline_info.settings import Settings


def main() -> int:
    """Compact the files of the settings."""
    settings = Settings()
    if settings.backend != "jsonl":
        sys.stderr.write(f"the backend is {settings.backend}: only jsonl has files to compact\n")
        return 2
    store = JsonlPipelineRepository(settings.file, rotate_bytes=settings.rotate_bytes)
    left_out = store.compact(progress=print)
    sys.stdout.write(f"{left_out} lines were put aside\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
