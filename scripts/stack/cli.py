"""The stack's command line; the Makefile calls it."""

import argparse
import os
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import mysql.connector
import psycopg
from rich.markup import escape
from rich.table import Table

from scripts.stack import fetch, lifecycle, readiness
from scripts.stack import provision as provisioning
from scripts.stack import superset as superset_server
from scripts.stack.context import MYSQL_STORES, Stack, StackError, console
from scripts.stack.demo import demo as run_demo
from scripts.stack.demo import nights
from scripts.stack.night import AirflowApi
from scripts.stack.service import GROUPS
from scripts.stack.services import services
from scripts.stack.supervise import RUNNING, Supervisor
from scripts.stack.testing import run_tests, test_stack
from tallyhouse.settings import SettingsError


def setup(stack: Stack, args: argparse.Namespace) -> int:
    """Fetch the servers into the cache."""
    started = time.monotonic()
    took = fetch.setup(stack, quiet=args.quiet)
    stack.render()
    if args.quiet and not took:
        return 0
    slowest = f" (at the same time: {lifecycle.slowest(took, 3)})" if took else ""
    console.print(f"set up in {time.monotonic() - started:.1f} s{slowest}")
    return 0


def start(stack: Stack, args: argparse.Namespace) -> int:
    """Start what does not run."""
    started = time.monotonic()
    took = lifecycle.start(stack, args.groups.split(",") if args.groups else GROUPS)
    slowest = f" (at the same time: {lifecycle.slowest(took, 4)})" if took else ""
    console.print(f"[green]the stack runs[/], after {time.monotonic() - started:.1f} s{slowest}")
    print_links(stack)
    return 0


def provision(stack: Stack, _: argparse.Namespace) -> int:
    """Give running servers, such as docker-compose.yaml's, their databases, bucket and migrations."""
    provisioning.provision(stack)
    password = stack.secrets["AIRFLOW_ADMIN_PASSWORD"]
    console.print(f"Airflow: user {stack.settings.airflow_admin_user}, password {password}")
    return 0


def print_links(stack: Stack) -> None:
    """Where to look at what runs, and, once, how to log in."""
    s = stack.settings
    shown = stack.local / "run" / ".login-shown"
    password = f"password {stack.secrets['AIRFLOW_ADMIN_PASSWORD']}"
    if shown.exists():
        password = f"password in {stack.airflow_home / 'passwords.json'}"
    shown.touch()
    notes = {
        "airflow-api-server": f"user {s.airflow_admin_user}, {password}",
        "minio": f"user {s.minio_root_user}",
    }
    states = Supervisor(stack).states()
    for service in services(stack):
        if service.url.startswith("http") and states[service.name]["statename"] in RUNNING:
            console.print(f"  {service.name:<20} {service.url}  {notes.get(service.name, '')}".rstrip())


def stop(stack: Stack, _: argparse.Namespace) -> int:
    """Stop everything."""
    started = time.monotonic()
    if lifecycle.stop(stack):
        console.print(f"the stack is stopped, after {time.monotonic() - started:.1f} s")
    else:
        console.print("the stack does not run")
    return 0


def status(stack: Stack, _: argparse.Namespace) -> int:
    """Print what runs; 0 if every group of which something runs does so wholly, 3 if not."""
    states = Supervisor(stack).states()
    every = services(stack)
    started = {s.group for s in every if states.get(s.name, {}).get("statename") in RUNNING}
    table = Table("service", "state", "port", "pid", "memory", "up", box=None, header_style="bold")
    whole = bool(started)
    for service in every:
        row = states.get(service.name, {})
        state = row.get("statename", "STOPPED")
        whole &= state == "RUNNING" or service.group not in started
        pid = row.get("pid") or 0
        up = str(timedelta(seconds=row["now"] - row["start"])) if pid else ""
        table.add_row(
            service.name,
            f"[{'green' if state == 'RUNNING' else 'red'}]{state.lower()}[/]",
            " ".join(map(str, service.ports.values())),
            str(pid or ""),
            f"{memory(pid) / 2**20:.0f} MB" if pid else "",
            up,
        )
    console.print(table)
    return 0 if whole else 3


def memory(pid: int) -> int:
    """Memory of a process and its children in bytes, shared pages split among those who share them."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(memory(int(child)) for child in (task / "children").read_text().split())
    except OSError:
        return total
    return total


def logs(stack: Stack, args: argparse.Namespace) -> int:
    """Follow the log of a service, or of all."""
    names = [service.name for service in services(stack)]
    if args.service and args.service not in names:
        raise StackError(f"logs: no service is called {args.service}; there are {', '.join(names)}")
    files = [stack.logs / f"{name}.log" for name in ([args.service] if args.service else names)]
    there = [str(file) for file in files if file.exists()]
    if not there:
        raise StackError(f"logs: nothing in {stack.logs} yet; 'make start' first")
    os.execvp("tail", ["tail", "-n", "40", "-F", *there])  # noqa: S606


def env(stack: Stack, _: argparse.Namespace) -> int:
    """Print the environment as shell commands: eval "$(python -m scripts.stack env)"."""
    stack.render()
    sys.stdout.write((stack.run / "env.sh").read_text())
    return 0


def shell(stack: Stack, _: argparse.Namespace) -> int:
    """A shell with the stack's environment."""
    stack.render()
    program = os.environ.get("SHELL") or "/bin/bash"
    os.execvpe(program, [program], os.environ | stack.environment)  # noqa: S606


def sql(stack: Stack, args: argparse.Namespace) -> int:
    """Ask the warehouse, as its reading role, or a store as the account that extracts."""
    if args.on == "dwh":
        connection: Any = readiness.warehouse_connection(stack.settings)
    elif args.on in MYSQL_STORES:
        connection = readiness.mysql_connection(stack.environment, args.on, reader=True)
    else:
        raise StackError(f"sql: no database is called {args.on}; there are dwh, {', '.join(MYSQL_STORES)}")
    with connection, connection.cursor() as cursor:
        try:
            cursor.execute(args.query)
            rows = cursor.fetchall() if cursor.description else []
        except (psycopg.Error, mysql.connector.Error) as error:
            raise StackError(f"sql: {str(error).splitlines()[0]}") from error
        table = Table(*[str(column[0]) for column in cursor.description or ()], header_style="bold")
    for row in rows:
        table.add_row(*["[dim]NULL[/]" if value is None else escape(str(value)) for value in row])
    console.print(table)
    return 0


def demo(stack: Stack, _: argparse.Namespace) -> int:
    """Set up, start, generate data, run two nights, print their ledgers."""
    return run_demo(stack)


def night(stack: Stack, args: argparse.Namespace) -> int:
    """Run DAGs on the running stack, task by task, and print their ledgers."""
    return nights(stack, args.dags)


def test(_: Stack, args: argparse.Namespace) -> int:
    """Run all tests on a fresh stack of their own."""
    return run_tests(test_stack(), args.arguments)


def airflow(stack: Stack, args: argparse.Namespace) -> int:
    """Airflow's command line with the stack's environment; `dags test` keeps the scheduler away."""
    command = [str(Path(sys.executable).parent / "airflow"), *args.arguments]
    dag_id = next((word for word in args.arguments[2:] if not word.startswith("-")), None)
    guard: AbstractContextManager[None] = nullcontext()
    if args.arguments[:2] == ["dags", "test"] and dag_id and Supervisor(stack).alive():
        guard = AirflowApi(stack).paused(dag_id)
    with guard:
        return subprocess.run(command, env=stack.environment, cwd=stack.root, check=False).returncode


def clean(stack: Stack, _: argparse.Namespace) -> int:
    """Remove all data of a stopped stack."""
    lifecycle.clean(stack)
    console.print(f"{stack.local}: data, logs and generated configuration are gone")
    return 0


def superset(stack: Stack, args: argparse.Namespace) -> int:
    """Superset over the running stack, until it is interrupted; `check` opens every dashboard instead."""
    superset_server.prepare(stack)
    if args.arguments[:1] == ["check"]:
        return superset_server.check(stack, args.arguments[1:])
    superset_server.serve(stack)
    return 0


COMMANDS = (
    demo,
    night,
    test,
    setup,
    provision,
    start,
    stop,
    status,
    logs,
    env,
    shell,
    airflow,
    sql,
    superset,
    clean,
)


def main() -> None:
    """Run one command; what a person has to mend is said in a line each, without a traceback."""
    parser = argparse.ArgumentParser(prog="stack", description="The native stack.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        said = (command.__doc__ or "").strip()
        sub = commands.add_parser(command.__name__, help=said.splitlines()[0], description=said)
        sub.set_defaults(run=command)
        if command is start:
            sub.add_argument("--groups", default="", help=f"of {', '.join(GROUPS)}; all by default")
        if command is logs:
            sub.add_argument("service", nargs="?")
        if command is setup:
            sub.add_argument("--quiet", action="store_true", help="say nothing when nothing was missing")
        if command is night:
            sub.add_argument("dags", nargs="+", metavar="dag")
        if command in (airflow, superset):
            sub.add_argument("arguments", nargs=argparse.REMAINDER)
        if command is sql:
            sub.add_argument("query")
            sub.add_argument("--on", default="dwh")
    args, unknown = parser.parse_known_args()
    if unknown and args.run is not test:
        parser.error(f"unknown: {' '.join(unknown)}")
    if args.run is test:
        args.arguments = unknown  # pytest's
    try:
        code = args.run(Stack(), args)
    except (StackError, SettingsError) as error:
        for line in str(error).splitlines():
            console.print(f"[red]✗[/] {line}", soft_wrap=True, markup=True, highlight=False)
        code = 1
    except KeyboardInterrupt:
        code = 130
    raise SystemExit(code)
