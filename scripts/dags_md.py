"""Writes docs/DAGS.md from the DAG files' own docstrings; `--check` fails when it is out of date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from airflow.dag_processing.dagbag import DagBag

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "DAGS.md"
HEAD = """# The DAGs

Made from the files' docstrings by `make dags-md`; do not edit.

| DAG | when (Europe/Kyiv) | what |
| --- | --- | --- |
"""


def page() -> str:
    """The page's text.

    Raises:
        SystemExit: A DAG file cannot be imported.
    """
    bag = DagBag(REPOSITORY / "dags")
    if bag.import_errors:
        sys.exit(f"dags: {bag.import_errors}")
    dags = sorted(bag.dags.values(), key=lambda dag: dag.dag_id)
    rows = [f"| [{dag.dag_id}](../{_file(dag.fileloc)}) | {_when(dag)} | {dag.description} |" for dag in dags]
    texts = [f"## {dag.dag_id}\n\n{_body(dag.doc_md)}\n\nTasks: {_tasks(dag)}\n" for dag in dags]
    return HEAD + "\n".join(rows) + "\n\n" + "\n".join(texts)


def _file(location: str) -> Path:
    return Path(location).relative_to(REPOSITORY)


def _when(dag: Any) -> str:
    return f"`{dag.schedule}`" if dag.schedule else "by hand"


def _body(doc: str | None) -> str:
    return "\n".join((doc or "").strip().splitlines()[1:]).strip()


def _tasks(dag: Any) -> str:
    """Tasks in the order of their dependencies; those that run side by side share a step."""
    depth: dict[str, int] = {}
    for task in dag.topological_sort():
        depth[task.task_id] = 1 + max((depth[up] for up in task.upstream_task_ids), default=-1)
    steps = sorted(set(depth.values()))
    return " → ".join(
        ", ".join(f"`{name}`" for name in sorted(depth) if depth[name] == step) for step in steps
    )


def main() -> int:
    """Writes the page, or checks it.

    Returns:
        1 when `--check` finds it out of date.
    """
    text = page()
    if "--check" in sys.argv:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
            sys.stderr.write("docs/DAGS.md is out of date: run `make dags-md`\n")
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
