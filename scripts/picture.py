"""Draws docs/architecture.svg from the contracts: what is read, the way of a row, what is published.

    python -m scripts.picture [--check]

The drawing is D2's (https://d2lang.com), which Go builds once into the cache.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.tools import go_tool
from tallyhouse.contracts import load_pipeline
from tallyhouse.contracts.load import PIPELINES
from tallyhouse.settings import ROOT

D2 = "v0.7.1"
PICTURE = ROOT / "docs" / "architecture.svg"
ENGINES = {"mysql": "MySQL", "postgres": "PostgreSQL", "objects": "S3"}
# What every run does, hop by hop; the names are those of the ledger and of the lake's folders.
WAY = """
raw: "raw\\nParquet in MinIO, manifest last" {shape: page}
gate: "check\\nGreat Expectations" {shape: diamond}
accepted: "accepted rows\\nand increments" {shape: page}
stop: "run failed,\\nnothing published" {style.stroke-dash: 3}
ledger: "etl.ledger\\none line per equation" {shape: document}
raw -> gate
gate -> accepted: "pass: transform (Spark)"
gate -> stop: "fail" {style.stroke-dash: 3}
accepted -> warehouse: "publish: COPY, then one transaction"
warehouse -> clickhouse: "staged, compared, swapped"
raw -> ledger: {style.stroke-dash: 3}
accepted -> ledger: {style.stroke-dash: 3}
warehouse -> ledger: {style.stroke-dash: 3}
clickhouse -> ledger: {style.stroke-dash: 3}
"""


def source() -> str:
    """The picture in D2's language."""
    lines = ["direction: down"]
    models: list[str] = []
    marts: list[str] = []
    tables = 0
    for path in sorted(PIPELINES.glob("*/pipeline.yaml")):
        pipeline = load_pipeline(path.parent.name)
        if not pipeline.models:  # it ends in the lake, not in the warehouse
            continue
        lines.append(f'{pipeline.name}: "pipeline {pipeline.name}"')
        for contract in pipeline.sources:
            count = len(contract.tables)
            tables += count
            noun = "table" if count == 1 else "tables"
            label = f"{contract.name}\\n{ENGINES[contract.engine]}, {count} {noun}"
            lines.append(f'{pipeline.name}.{contract.name}: "{label}" {{shape: cylinder}}')
        lines.append(f'{pipeline.name} -> raw: "extract: one snapshot per table"')
        models += pipeline.models
        marts += pipeline.marts
    facts = sum(model.startswith("fact_") for model in models)
    star = f"ods: {tables} tables\\n{len(models) - facts} dimensions, {facts} facts"
    lines.append(f'warehouse: "PostgreSQL\\n{star}" {{shape: cylinder}}')
    lines.append(f'clickhouse: "ClickHouse\\nstar schema, {len(marts)} marts" {{shape: cylinder}}')
    return "\n".join(lines) + WAY


def draw() -> str:
    """The picture as SVG."""
    d2 = go_tool(f"d2-{D2}", "install", f"oss.terrastruct.com/d2@{D2}")
    with tempfile.TemporaryDirectory() as folder:
        text, picture = Path(folder) / "architecture.d2", Path(folder) / "architecture.svg"
        text.write_text(source(), encoding="utf-8")
        subprocess.run(
            [d2, "--pad", "20", "--layout", "elk", "--dark-theme", "200", str(text), str(picture)],
            capture_output=True,
            text=True,
            check=True,
        )
        return picture.read_text(encoding="utf-8")


def main() -> int:
    """Draw the picture, or see that it is current.

    Returns:
        1 where ``--check`` finds it out of date.
    """
    drawn = draw()
    if "--check" in sys.argv:
        if not PICTURE.is_file() or PICTURE.read_text(encoding="utf-8") != drawn:
            print("docs/architecture.svg is out of date: run `make picture`")
            return 1
        return 0
    PICTURE.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
