"""Starting and stopping the whole stack, as much at once as the order of things allows."""

import json
import re
import shutil
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from scripts.stack import fetch, readiness
from scripts.stack.accounts import give
from scripts.stack.context import Stack, StackError, console
from scripts.stack.provision import Step, patiently, steps
from scripts.stack.service import GROUPS, HOST, STORES, Service
from scripts.stack.services import services
from scripts.stack.supervise import RUNNING, Supervisor

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def start(stack: Stack, groups: Collection[str] = GROUPS) -> dict[str, float]:
    """Start what does not run yet, and return when all of it answers.

    Args:
        stack: what to start.
        groups: parts of it, which bring with them what they need of the others.

    Returns:
        Seconds by service and step.

    Raises:
        StackError: a line for each thing that stands in the way.
    """
    fetch.setup(stack, quiet=True)
    stack.render()
    every = services(stack)
    wanted, to_do = chosen(every, steps(stack), groups)
    supervisor = Supervisor(stack)
    running = {name for name, row in supervisor.states().items() if row["statename"] in RUNNING}
    check_ports([service for service in wanted if service.name not in running])
    asked = set(groups) | (asked_for(stack) if running else set())
    (stack.run / "groups.json").write_text(json.dumps(sorted(asked)))
    supervisor.ensure(every)

    took: dict[str, float] = {}
    problems: list[str] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    jobs: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
        service.name: (lambda service=service: bring_up(stack, supervisor, service), service.after)  # type: ignore[misc]
        for service in wanted
    }
    jobs |= {step.name: (step.run, step.after) for step in to_do}
    futures: dict[str, Future[bool]] = {}
    with (
        Progress(*columns, console=console, transient=True) as progress,
        ThreadPoolExecutor(len(jobs)) as pool,
    ):

        def work(name: str) -> bool:
            run, after = jobs[name]
            before = [futures[other].result() for other in after]  # wait for all, also after a failed one
            if not all(before):
                return False
            row = progress.add_task(name, total=None)
            started = time.monotonic()
            try:
                run()
            except Exception as error:
                problems.append(str(error) if isinstance(error, StackError) else f"{name}: {error!r}"[:300])
                return False
            finally:
                progress.remove_task(row)
            took[name] = time.monotonic() - started
            if name not in running:
                progress.console.print(f"  [green]✓[/] {name} [dim]{took[name]:.1f} s[/]")
            return True

        # Those that wait for nothing first, so that nobody looks for a future that is not there yet.
        for name in sorted(jobs, key=lambda name: _depth(name, jobs)):
            futures[name] = pool.submit(work, name)
    if problems:
        raise StackError("\n".join(problems))
    return took


def asked_for(stack: Stack) -> set[str]:
    """The groups that `start` was asked for since the last stop."""
    file = stack.run / "groups.json"
    return set(json.loads(file.read_text())) & set(GROUPS) if file.exists() else set()


def chosen(
    every: list[Service], all_steps: list[Step], groups: Collection[str]
) -> tuple[list[Service], list[Step]]:
    """The services and the steps of some groups, with those that they come after.

    Raises:
        StackError: there is no such group.
    """
    known = (*GROUPS, STORES)
    if unknown := sorted(set(groups) - set(known)):
        raise StackError(f"groups: none is called {', '.join(unknown)}; there are {', '.join(known)}")
    after = {service.name: service.after for service in every}
    after |= {step.name: step.after for step in all_steps}
    names = [service.name for service in every if service.group in groups]
    if {"nightly", STORES} & set(groups):
        names += [step.name for step in all_steps]
    kept: set[str] = set()
    while names:
        name = names.pop()
        if name not in kept:
            kept.add(name)
            names += after[name]
    return [s for s in every if s.name in kept], [step for step in all_steps if step.name in kept]


def slowest(took: dict[str, float], most: int) -> str:
    """The services and steps that took longest, for a line of text."""
    return ", ".join(f"{name} {s:.0f} s" for name, s in sorted(took.items(), key=lambda i: -i[1])[:most])


def _depth(name: str, jobs: dict[str, tuple[Callable[[], None], tuple[str, ...]]]) -> int:
    return 1 + max((_depth(other, jobs) for other in jobs[name][1]), default=0)


def check_ports(wanted: list[Service]) -> None:
    """See that nobody else holds a port.

    Raises:
        StackError: a line for each busy port: which, who holds it, what to do.
    """
    busy = [
        f"{service.name}: port {port} is taken by {readiness.holder(port)}; stop it, or set {setting} in .env"
        for service in wanted
        for setting, port in service.ports.items()
        if not readiness.port_free(HOST, port)
    ]
    if busy:
        raise StackError("\n".join(busy))


def bring_up(stack: Stack, supervisor: Supervisor, service: Service) -> None:
    """Make, start and wait for one service.

    Raises:
        StackError: it ended or does not answer; the message has its last words and its log.
    """
    log = stack.logs / f"{service.name}.log"

    def last_words() -> str:
        lines = log.read_text(errors="replace").splitlines()[-40:] if log.exists() else []
        said = [ANSI.sub("", line).strip() for line in lines if line.strip()]
        return f"{said[-1][:200] if said else 'without a word'} (its log: {log})"

    def still() -> None:
        state = supervisor.states().get(service.name, {}).get("statename", "gone")
        if state in ("FATAL", "EXITED", "STOPPED", "gone"):
            raise StackError(f"{service.name}: ended instead of starting: {last_words()}")

    give(stack, service.account, [folder for folder in service.owns if folder.exists()])
    service.prepare()
    give(stack, service.account, service.owns)
    if supervisor.states().get(service.name, {}).get("statename") not in RUNNING:
        supervisor.start(service.name)
    try:
        patiently(service.ready, service.start_seconds, still)
    except TimeoutError as error:
        raise StackError(
            f"{service.name}: no answer in {service.start_seconds} s ({error}); last words: {last_words()}"
        ) from error


def stop(stack: Stack) -> bool:
    """Stop everything, what depends on others first.

    Returns:
        Whether anything ran.
    """
    supervisor = Supervisor(stack)
    states = supervisor.states()
    (stack.run / "groups.json").unlink(missing_ok=True)
    if not states:
        return False
    up = [name for name, row in states.items() if row["statename"] in RUNNING]
    # Airflow before its database, so that nothing dies with a traceback; each round all at once.
    clients = [service.name for service in services(stack) if service.after and service.name in up]
    for together in (clients, [name for name in up if name not in clients]):
        with ThreadPoolExecutor(max(len(together), 1)) as pool:
            list(pool.map(supervisor.stop, together))
    supervisor.shutdown()
    return True


def clean(stack: Stack) -> None:
    """Remove data, logs and generated configuration.

    Raises:
        StackError: the stack runs.
    """
    if Supervisor(stack).alive():
        raise StackError("stack: it runs; 'make stop' first")
    for folder in (stack.data, stack.logs, stack.run, stack.airflow_home):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (stack.connections_file, stack.local / "secrets.json"):
        file.unlink(missing_ok=True)
