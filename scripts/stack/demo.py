"""The whole main job from nothing: servers, data, two runs of each pipeline, and their ledgers."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.table import Table

from scripts.stack import fetch, lifecycle, readiness
from scripts.stack.context import Stack, StackError, console
from scripts.stack.dag_runs import DagRuns, StackAirflow, run_dags

NIGHTLY = ["techmarket_nightly", "pancake_nightly"]
MONITOR = "monitor_pipelines"


class Clock:
    """Where the time of the demo went."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, float, str]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time one phase under a headline."""
        console.rule(f"[bold]{name}[/]", align="left", style="dim")
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases.append((name, time.monotonic() - began, ""))

    def note(self, text: str) -> None:
        """Say something of the phase that has just ended."""
        name, seconds, _ = self.phases[-1]
        self.phases[-1] = (name, seconds, text)

    def show(self) -> None:
        """Print the table."""
        table = Table("where the time went", box=None, header_style="bold", pad_edge=False)
        table.add_column("seconds", justify="right")
        table.add_column("")
        for name, seconds, text in self.phases:
            table.add_row(name, f"{seconds:.1f}", f"[dim]{text}[/]")
        table.add_row("[bold]all of it[/]", f"[bold]{sum(s for _, s, _ in self.phases):.1f}[/]", "")
        console.print(table)


def demo(stack: Stack) -> int:
    """Set up, start, generate data, run the pipelines before and after a business day, print the ledgers.

    Repeated, it goes on with the next business day.

    Returns:
        0 when all runs succeeded and their ledgers close.
    """
    clock, api = Clock(), StackAirflow(stack)
    with clock.phase("set-up"):
        fetch.setup(stack)
    with clock.phase("servers and Airflow"):
        took = lifecycle.start(stack, ["nightly"])
    clock.note("at the same time: " + lifecycle.slowest(took, 3))
    with clock.phase("data: 18 months of business"):
        tool(stack, "techmarket", "data", "--scale", "0.1", "--if-empty")
    all_runs = [nightly_run(stack, api, clock, "first run")]
    with clock.phase("one more business day"):
        tool(stack, "techmarket", "day")
    all_runs.append(nightly_run(stack, api, clock, "second run, incremental"))
    api.unpause(MONITOR)  # from now on it reports every finished run

    console.rule("[bold]where to look[/]", align="left", style="dim")
    links(stack)
    console.print()
    clock.show()
    console.rule("[bold]the ledgers[/]", align="left", style="dim")
    return tool(stack, "tallyhouse.ledger", "print", *ledger_options(stack, all_runs), check=False)


def nightly_run(stack: Stack, api: StackAirflow, clock: Clock, name: str) -> DagRuns:
    """Run the nightly DAGs at the same time, and stop here if one fails.

    Raises:
        StackError: a line for each task that failed: what it said, and where its log is.
    """
    with clock.phase(name):
        api.wait_for_dags([*NIGHTLY, MONITOR])
        runs = run_dags(api, NIGHTLY)
    slow = sorted(runs.tasks, key=lambda task: -task.seconds)[:3]
    tasks = ", ".join(f"{task.name} {task.seconds:.0f} s" for task in slow)
    clock.note(f"{tasks}; {runs.waiting():.0f} s between tasks")
    if not runs.succeeded:
        raise StackError("\n".join(failures(stack, api, runs)) or f"{name}: {runs.states}")
    return runs


def follow(stack: Stack, dag_ids: list[str], conf: dict[str, Any] | None = None) -> int:
    """Run DAGs once, now, and print the ledgers of their runs.

    Args:
        stack: it runs.
        dag_ids: the DAGs.
        conf: parameters of their runs.

    Returns:
        0 when they succeeded and their ledgers close.

    Raises:
        StackError: Airflow does not answer, or a line for each task that failed.
    """
    api = StackAirflow(stack)
    api.wait_for_dags(dag_ids, seconds=30)
    runs = run_dags(api, dag_ids, conf)
    if not runs.succeeded:
        raise StackError("\n".join(failures(stack, api, runs)) or f"{dag_ids}: {runs.states}")
    options = ledger_options(stack, [runs])
    if not options:
        console.print("done; it takes no rows, so it has no ledger")
        return 0
    return tool(stack, "tallyhouse.ledger", "print", *options, check=False)


def failures(stack: Stack, api: StackAirflow, runs: DagRuns) -> Iterator[str]:
    """A line for each failed task."""
    for task in runs.tasks:
        if task.state == "failed":
            folder = stack.logs / "airflow" / f"dag_id={task.dag_id}" / f"run_id={task.dag_run_id}"
            yield f"{task.name}: {api.last_error(task)} (its log: {folder / f'task_id={task.task_id}'})"


def ledger_options(stack: Stack, all_runs: list[DagRuns]) -> list[str]:
    """Name the runs by the ids that the ledger knows them by."""
    made = [dag_run_id for runs in all_runs for dag_run_id in runs.dag_run_ids.values()]
    with readiness.warehouse_connection(stack.settings) as connection:
        found = connection.execute("SELECT run_id FROM etl.run WHERE dag_run_id = ANY(%s)", [made]).fetchall()
    return [part for (run_id,) in found for part in ("--run", run_id)]


def tool(stack: Stack, module: str, *arguments: str, check: bool = True) -> int:
    """Run one of the package's own commands, as a person would type it.

    Raises:
        StackError: it failed; it has said why itself.
    """
    code = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=stack.root,
        env=os.environ | stack.environment,
        stdin=subprocess.DEVNULL,
        check=False,
    ).returncode
    if code and check:
        raise StackError(f"{module} {' '.join(arguments)}: failed with {code}; what it said is above")
    return code


def links(stack: Stack) -> None:
    """Where to click, and what to ask in SQL."""
    s = stack.settings
    password = stack.secrets["AIRFLOW_ADMIN_PASSWORD"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("Airflow", s.airflow_url, f"user {s.airflow_admin_user}, password {password}")
    table.add_row("Data Docs", s.data_docs_url, "what the checks of each run said")
    table.add_row(
        "the lake",
        f"http://{s.minio_host}:{s.minio_console_port}",
        f"user {s.minio_root_user}, password {s.minio_root_password}; bucket {s.lake_bucket}",
    )
    table.add_row("pipeline-info", s.pipeline_info_url, "every finished run, a minute or ten later")
    console.print(table)
    for command in (
        "make sql Q='SELECT pipeline, status, started_at, published_at FROM etl.run ORDER BY started_at'",
        "make sql Q='SELECT status, count(*), sum(total) FROM orders GROUP BY status' ON=orders",
        "make sql Q='SELECT * FROM mart_revenue_daily ORDER BY 1 DESC LIMIT 5' ON=clickhouse",
    ):
        console.print(f"  {command}", soft_wrap=True, markup=False)
