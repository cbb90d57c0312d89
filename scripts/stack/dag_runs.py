"""DAG runs as an operator sees them: started and watched through Airflow's REST API."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import requests
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from scripts.stack.context import Stack, StackError, console
from tallyhouse.airflow_api import AirflowApi

FINISHED = ("success", "failed", "upstream_failed", "skipped", "removed")
SIGNS = {"success": "[green]✓[/]", "failed": "[red]✗[/]", "upstream_failed": "[yellow]·[/]"}
POLL_SECONDS = 1.0
HELP = "; see 'make status' and 'make logs S=airflow-api-server'"


class StackAirflow(AirflowApi):
    """Airflow of the stack, with the web UI's account."""

    def __init__(self, stack: Stack) -> None:
        settings = stack.settings
        password = stack.secrets["AIRFLOW_ADMIN_PASSWORD"]
        super().__init__(settings.airflow_url, settings.airflow_admin_user, password)

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """See `AirflowApi`.

        Raises:
            StackError: Airflow does not answer, or refuses.
        """
        try:
            return super().ask(method, path, **more)
        except requests.RequestException as error:
            look = "" if error.response is not None and error.response.status_code < 500 else HELP
            raise StackError(f"airflow: {method} {path}: {error}{look}") from error

    def wait_for_dags(self, dag_ids: list[str], seconds: float = 120) -> None:
        """Wait until the DAG processor has read the DAG files.

        Raises:
            StackError: a DAG cannot be imported, or does not appear.
        """
        deadline = time.monotonic() + seconds
        while True:
            known = {dag["dag_id"] for dag in self.ask("GET", "dags", params={"limit": 100})["dags"]}
            if known.issuperset(dag_ids):
                return
            for problem in self.ask("GET", "importErrors")["import_errors"]:
                raise StackError(f"{problem['filename']}: {problem['stack_trace'].strip().splitlines()[-1]}")
            if time.monotonic() > deadline:
                missing = ", ".join(sorted(set(dag_ids) - known))
                there = ", ".join(sorted(known)) or "none"
                raise StackError(
                    f"airflow: no DAG {missing}; there are {there}. A new one takes half a minute to appear, "
                    "see 'make logs S=airflow-dag-processor'"
                )
            time.sleep(POLL_SECONDS)

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Start a run, in place of the scheduled one where that is due already.

        A run that is due would otherwise be started by the scheduler as soon as the DAG is not paused,
        and ours would wait for it: a second run that nobody asked for.

        Returns:
            The run's id.
        """
        due = self.ask("GET", f"dags/{dag_id}")["next_dagrun_logical_date"]
        if due is not None:
            # What is due stays so for a while after a run of ours has taken its date.
            same = {"logical_date_gte": due, "logical_date_lte": due, "limit": 1}
            taken = self.ask("GET", f"dags/{dag_id}/dagRuns", params=same)["total_entries"]
            if taken or datetime.fromisoformat(due) > datetime.now(UTC):
                due = None
        run = self.ask("POST", f"dags/{dag_id}/dagRuns", json={"logical_date": due, "conf": conf or {}})
        return str(run["dag_run_id"])

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler start the DAG's runs."""
        self.ask("PATCH", f"dags/{dag_id}", json={"is_paused": False})

    @contextmanager
    def paused(self, dag_id: str) -> Iterator[None]:
        """Keep the scheduler away from a DAG for as long as the block runs.

        A run of ``airflow dags test`` stands in the same database as the scheduler's own. In a DAG that is
        not paused the scheduler would run its tasks as well, or time it out: it starts on its logical date.
        """
        was_paused = self.ask("GET", f"dags/{dag_id}")["is_paused"]
        if not was_paused:
            self.ask("PATCH", f"dags/{dag_id}", json={"is_paused": True})
        try:
            yield
        finally:
            if not was_paused:
                self.unpause(dag_id)

    def log(self, task: "Task") -> list[dict[str, Any]]:
        """The log of a task's last attempt, event by event."""
        path = (
            f"dags/{task.dag_id}/dagRuns/{task.dag_run_id}/taskInstances/{task.task_id}/logs/{task.attempt}"
        )
        answer = self.ask("GET", path, params={"map_index": task.map_index, "full_content": True})
        return [event for event in answer["content"] if isinstance(event, dict)]

    def last_error(self, task: "Task") -> str:
        """The last error line in the log of a task's last attempt."""
        said = "no error line in its log"
        for event in self.log(task):
            if event.get("level") in ("error", "critical"):
                raised = [f"{e['exc_type']}: {e['exc_value']}" for e in event.get("error_detail") or []]
                said = raised[0] if raised else str(event["event"])
        return said.strip().splitlines()[0][:400]


@dataclass
class Task:
    """A task instance: its state, and where its time went."""

    dag_id: str
    dag_run_id: str
    task_id: str
    map_index: int
    state: str | None
    attempt: int
    began: datetime | None
    ended: datetime | None

    @classmethod
    def of(cls, found: dict[str, Any]) -> "Task":
        """From the API's description."""
        began, ended = (
            datetime.fromisoformat(found[key]) if found[key] else None for key in ("start_date", "end_date")
        )
        return cls(
            found["dag_id"],
            found["dag_run_id"],
            found["task_id"],
            found["map_index"],
            found["state"],
            found["try_number"],
            began,
            ended,
        )

    @property
    def name(self) -> str:
        """Pipeline and task, for a line of progress."""
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id.removesuffix('_nightly')} {self.task_id}{mapped}"

    @property
    def seconds(self) -> float:
        """Time from start to end."""
        return (self.ended - self.began).total_seconds() if self.began and self.ended else 0.0


@dataclass
class DagRuns:
    """DAG runs that were started together, and their tasks, when all have ended."""

    dag_run_ids: dict[str, str] = field(default_factory=dict)
    """By DAG, the id of its run."""
    states: dict[str, str] = field(default_factory=dict)
    """By DAG, how its run ended."""
    tasks: list[Task] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        """Whether every run did."""
        return all(state == "success" for state in self.states.values())

    def waiting(self) -> float:
        """Seconds in which no task ran: Airflow between the tasks."""
        spans = sorted((t.began, t.ended) for t in self.tasks if t.began and t.ended)
        idle, reached = 0.0, spans[0][0] if spans else None
        for began, ended in spans:
            if reached and began > reached:
                idle += (began - reached).total_seconds()
            reached = max(reached or ended, ended)
        return idle


def run_dags(api: StackAirflow, dag_ids: list[str], conf: dict[str, Any] | None = None) -> DagRuns:
    """Run DAGs at the same time, a line of progress for each task, and wait for their end.

    Args:
        api: Airflow's.
        dag_ids: the DAGs.
        conf: parameters of their runs.

    Returns:
        The runs, when all have ended.

    Raises:
        StackError: Airflow does not answer.
    """
    runs = DagRuns()
    for dag_id in dag_ids:
        runs.dag_run_ids[dag_id] = api.trigger(dag_id, conf)
        api.unpause(dag_id)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        rows: dict[tuple[str, str, int], TaskID] = {}
        told: set[tuple[str, str, int]] = set()
        waiting = progress.add_task("waiting for the scheduler", total=None)
        while len(runs.states) < len(runs.dag_run_ids):
            time.sleep(POLL_SECONDS)
            ended = list(_ended(api, runs))  # before its tasks are read, so that none is missed
            runs.tasks = [
                task
                for dag_id, dag_run_id in runs.dag_run_ids.items()
                for task in _tasks(api, dag_id, dag_run_id)
            ]
            for task in runs.tasks:
                key = (task.dag_id, task.task_id, task.map_index)
                if task.state == "running" and key not in rows:
                    rows[key] = progress.add_task(task.name, total=None)
                elif task.state != "running" and key in rows:
                    progress.remove_task(rows.pop(key))
                if task.state in FINISHED and key not in told:
                    told.add(key)
                    sign = SIGNS.get(task.state or "", "[dim]·[/]")
                    progress.console.print(f"  {sign} {task.name} [dim]{_took(task)}[/]")
            progress.update(waiting, visible=not rows)
            runs.states |= dict(ended)
    return runs


def _took(task: Task) -> str:
    return f"{task.seconds:.1f} s" if task.began else (task.state or "").replace("_", " ")


def _ended(api: StackAirflow, runs: DagRuns) -> Iterator[tuple[str, str]]:
    for dag_id, dag_run_id in runs.dag_run_ids.items():
        state = api.ask("GET", f"dags/{dag_id}/dagRuns/{dag_run_id}")["state"]
        if state in ("success", "failed"):
            yield dag_id, state


def _tasks(api: StackAirflow, dag_id: str, dag_run_id: str) -> list[Task]:
    path = f"dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances"
    found = api.ask("GET", path, params={"limit": 1000})["task_instances"]
    return sorted(map(Task.of, found), key=lambda task: task.ended or datetime.max.replace(tzinfo=UTC))
