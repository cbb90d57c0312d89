"""Measures whole runs on this machine, task by task, and writes what they took and held.

    python -m benchmarks.run.run            # both, full, day
    python -m benchmarks.run.run --scale 10 # full10, day10

on a stack of its own in `.local/bench/run`. The cases:

- `both`: TechMarket and pancake side by side at SCALE=0.1, the first run of each;
- `full`: TechMarket at SCALE=1, all of it; `full10` at SCALE=10;
- `day`: a business day later, what changed; `day10` likewise.

`build/bench-run.json` is a list of `{case, part, seconds, peak_mb}`: a part is a task, or a phase of a
publishing task as its log has it, such as `publish.warehouse: checks`, and `total` is the whole run, the
waiting between its tasks included. `peak_mb` is the most that all processes of the stack held
at one time while the part ran, a page that several share counted once. A run that fails, or whose
ledger does not close, is no measurement: the benchmark ends with it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.results import keep
from scripts.stack import lifecycle
from scripts.stack.context import Stack, StackError, console
from scripts.stack.dag_runs import DagRuns, StackAirflow, run_dags
from scripts.stack.demo import failures, ledger_options, tool
from scripts.stack.supervise import Supervisor

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "build" / "bench-run.json"
PORT_OFFSET = "21000"
FOLDER = ".local/bench/run"
TECHMARKET, PANCAKE = "techmarket_nightly", "pancake_nightly"
SAMPLE_SECONDS = 2.0
_PHASE = re.compile(r"[:,] ([a-z ]+) (\d+\.\d\d) s")
_PHASES = re.compile(rf"\S+(?:{_PHASE.pattern})+")

type Row = dict[str, Any]


class Memory:
    """What the stack's processes hold, sampled in a thread.

    Attributes:
        samples: When, and how many MB.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.samples: list[tuple[datetime, float]] = []
        self._ended = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Samples for as long as the block runs."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def peak(self, began: datetime | None, ended: datetime | None) -> int:
        """The most MB between two times; of the sample nearest where none lies between."""
        if began is None or ended is None or not self.samples:
            return 0
        within = [mb for at, mb in self.samples if began <= at <= ended]
        nearest = min(self.samples, key=lambda sample: abs(sample[0] - began))
        return round(max(within, default=nearest[1]))

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.samples.append((datetime.now(UTC), sum(map(held, family(self.root)))))


def family(root: int) -> list[int]:
    """A process and all that it has started, and those again."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(") ", 1)[1].split()[1])
        except (OSError, IndexError):  # it has ended meanwhile
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def held(pid: int) -> float:
    """MB that a process holds, of shared pages its share; 0 once it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), "Pss: 0")
    return int(line.split()[1]) / 1024


def measure(stack: Stack, case: str, dag_ids: list[str]) -> list[Row]:
    """Runs DAGs once, side by side, and says what each task took.

    Raises:
        StackError: A run failed, or its ledger does not close.
    """
    console.rule(f"[bold]{case}[/]", align="left", style="dim")
    api = StackAirflow(stack)
    api.wait_for_dags(dag_ids)
    memory = Memory(Supervisor(stack).pid())
    with memory.watched():
        runs = run_dags(api, dag_ids)
    if not runs.succeeded:
        raise StackError("\n".join(failures(stack, api, runs)) or f"{case}: {runs.states}")
    if tool(stack, "tallyhouse.ledger", "print", *ledger_options(stack, [runs]), check=False):
        raise StackError(f"{case}: the ledger does not close; what it said is above")
    return rows(api, case, runs, memory)


def rows(api: StackAirflow, case: str, runs: DagRuns, memory: Memory) -> list[Row]:
    """One row per task, in the order in which they began, after it its phases, and the total."""
    found = []
    for task in sorted(runs.tasks, key=lambda task: task.began or datetime.max.replace(tzinfo=UTC)):
        part = (
            task.task_id
            if len(runs.dag_run_ids) == 1
            else f"{task.dag_id.removesuffix('_nightly')}.{task.task_id}"
        )
        peak = memory.peak(task.began, task.ended)
        found.append({"case": case, "part": part, "seconds": round(task.seconds, 1), "peak_mb": peak})
        if task.task_id.startswith("publish."):
            for phase, seconds in phases(api.log(task)).items():
                found.append({"case": case, "part": f"{part}: {phase}", "seconds": seconds, "peak_mb": peak})
    spans = [
        api.ask("GET", f"dags/{dag_id}/dagRuns/{dag_run_id}")
        for dag_id, dag_run_id in runs.dag_run_ids.items()
    ]
    began = min(datetime.fromisoformat(run["start_date"]) for run in spans)
    ended = max(datetime.fromisoformat(run["end_date"]) for run in spans)
    total = {"case": case, "part": "total", "seconds": round((ended - began).total_seconds(), 1)}
    return [*found, total | {"peak_mb": memory.peak(began, ended)}]


def phases(log: list[dict[str, Any]]) -> dict[str, float]:
    """What a publish says of its phases: `<run>: stage 1.23 s, ods 0.80 s, rest 0.10 s`."""
    said = [str(event["event"]) for event in log if _PHASES.fullmatch(str(event.get("event", "")))]
    return {name: float(seconds) for name, seconds in _PHASE.findall(said[-1])} if said else {}


def start_anew(stack: Stack) -> None:
    """Starts the stack from nothing."""
    if Supervisor(stack).alive():  # left by a benchmark that was killed
        lifecycle.stop(stack)
    lifecycle.clean(stack)
    lifecycle.start(stack, ["nightly"])


def fresh(stack: Stack, scale: str) -> None:
    """Starts the stack from nothing and fills its stores."""
    start_anew(stack)
    began = time.monotonic()
    tool(stack, "techmarket", "data", "--scale", scale)
    console.print(f"  data at SCALE={scale} in {time.monotonic() - began:.0f} s")


def show(measured: list[Row]) -> None:
    """Writes the rows, and prints them."""
    keep(RESULT, measured)
    table = Table("case", "part", box=None, header_style="bold", pad_edge=False)
    table.add_column("seconds", justify="right")
    table.add_column("peak MB", justify="right")
    for row in measured:
        table.add_row(row["case"], row["part"], f"{row['seconds']:.1f}", f"{row['peak_mb']:,}")
    console.print(table)


def main() -> int:
    """Runs the cases.

    Returns:
        0 when every run succeeded and every ledger closed.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scale", default="1", help="of full and day; 1 brings the case both too")
    parser.add_argument("--keep", action="store_true", help="leave the stack running, to look around")
    arguments = parser.parse_args()
    os.environ["PORT_OFFSET"] = os.environ.get("BENCH_PORT_OFFSET", PORT_OFFSET)
    os.environ["TALLYHOUSE_LOCAL"] = os.environ.get("BENCH_LOCAL", FOLDER)
    stack = Stack()
    suffix = "" if arguments.scale == "1" else arguments.scale
    try:
        if not suffix:
            fresh(stack, "0.1")
            show(measure(stack, "both", [TECHMARKET, PANCAKE]))
        fresh(stack, arguments.scale)
        show(measure(stack, f"full{suffix}", [TECHMARKET]))
        tool(stack, "techmarket", "day")
        show(measure(stack, f"day{suffix}", [TECHMARKET]))
    except StackError as error:
        console.print(f"[red]bench-run[/]: {error}", soft_wrap=True)
        return 1
    finally:
        if not arguments.keep:
            lifecycle.stop(stack)
    console.print(f"written to {RESULT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
