"""The file that benchmarks write their measurements to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def keep(file: Path, measured: list[dict[str, Any]]) -> None:
    """Writes measurements, in the place of what the file has of the same cases."""
    cases = {row["case"] for row in measured}
    before = json.loads(file.read_text()) if file.exists() else []
    kept = [row for row in before if row["case"] not in cases]
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps([*kept, *measured], indent=1) + "\n")
