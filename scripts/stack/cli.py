"""The stack's command line; the Makefile calls it."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.stack import fetch, lifecycle, query
from scripts.stack import provision as provisioning
from scripts.stack import superset as superset_server
from scripts.stack.context import Stack, StackError, console
from scripts.stack.dag_runs import StackAirflow
from scripts.stack.demo import demo as run_demo
from scripts.stack.demo import follow
from scripts.stack.service import GROUPS
from scripts.stack.services import services
from scripts.stack.supervise import RUNNING, Supervisor
from scripts.stack.testing import run_tests, run_unit_tests, test_stack
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


def render(stack: Stack, _: argparse.Namespace) -> int:
    """Write the configuration that is made from the settings, as each pod of a cluster does at its start."""
    stack.render()
    return 0


def print_links(stack: Stack) -> None:
    """Where to look at what runs."""
    states = Supervisor(stack).states()
    for service in services(stack):
        if service.url.startswith("http") and states[service.name]["statename"] in RUNNING:
            console.print(f"  {service.name:<20} {service.url}", soft_wrap=True)
    console.print('  logins: make status ARGS="--logins"')


def stop(stack: Stack, _: argparse.Namespace) -> int:
    """Stop everything."""
    started = time.monotonic()
    if lifecycle.stop(stack):
        console.print(f"the stack is stopped, after {time.monotonic() - started:.1f} s")
    else:
        console.print("the stack does not run")
    return 0


def status(stack: Stack, args: argparse.Namespace) -> int:
    """Print what runs, and where; 0 if all that was asked for runs, 3 if not."""
    if args.logins:
        return logins(stack)
    states = Supervisor(stack).states()
    every = services(stack)
    asked = lifecycle.asked_for(stack)
    wanted = {service.name for service in lifecycle.chosen(every, provisioning.steps(stack), asked)[0]}
    table = Table("service", "state", "address", "pid", "memory", "up", box=None, header_style="bold")
    missing = []
    for service in every:
        row = states.get(service.name, {})
        state = row.get("statename", "STOPPED")
        if service.name not in wanted and state not in RUNNING:
            continue
        if service.name in wanted and state != "RUNNING":
            missing.append(service.name)
        pid = row.get("pid") or 0
        up = str(timedelta(seconds=row["now"] - row["start"])) if pid else ""
        table.add_row(
            service.name,
            f"[{'green' if state == 'RUNNING' else 'red'}]{state.lower()}[/]",
            service.url or " ".join(f"127.0.0.1:{port}" for port in service.ports.values()),
            str(pid or ""),
            f"{memory(pid) / 2**20:.0f} MB" if pid else "",
            up,
        )
    if not asked:
        console.print("nothing was started; 'make start' starts all of it, GROUPS=… a part")
        return 3
    # Addresses stay whole, to be clicked and copied; a pipe has no width.
    wide = Console(highlight=False, width=None if console.is_terminal else 160, soft_wrap=True)
    wide.print(table)
    idle = [group for group in GROUPS if group not in asked]
    console.print(f"asked for: {', '.join(group for group in GROUPS if group in asked)}", end="")
    console.print(f"; not started: {', '.join(idle)}" if idle else "")
    console.print('logins: make status ARGS="--logins"')
    if missing:
        console.print(f"[red]✗[/] not running: {', '.join(missing)}; see 'make logs S={missing[0]}'")
    return 3 if missing else 0


def logins(stack: Stack) -> int:
    """Print how to log in to what the stack serves; the passwords are of this checkout alone."""
    s = stack.settings
    table = Table("at", "address", "user", "password", box=None, header_style="bold")
    airflow_password = stack.secrets["AIRFLOW_ADMIN_PASSWORD"]
    table.add_row("Airflow", s.airflow_url, s.airflow_admin_user, airflow_password)
    console_url = f"http://{s.minio_host}:{s.minio_console_port}"
    table.add_row("MinIO's console", console_url, s.minio_root_user, s.minio_root_password)
    warehouse = f"{s.postgres_host}:{s.postgres_port}/{s.dwh_db}"
    table.add_row("the warehouse, to read", warehouse, s.dwh_reader_user, s.dwh_reader_password)
    clickhouse = f"http://{s.clickhouse_host}:{s.clickhouse_http_port}"
    table.add_row("ClickHouse", clickhouse, s.clickhouse_user, s.clickhouse_password or "(none)")
    table.add_row("Prometheus", s.prometheus_url, s.prometheus_user, s.prometheus_password)
    superset_password = stack.secrets["SUPERSET_ADMIN_PASSWORD"]
    table.add_row("Superset (make superset)", s.superset_url, s.superset_admin_user, superset_password)
    Console(highlight=False, width=None if console.is_terminal else 160, soft_wrap=True).print(table)
    return 0


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
    sys.stdout.write(stack.script())
    return 0


def shell(stack: Stack, _: argparse.Namespace) -> int:
    """A shell with the stack's environment."""
    program = os.environ.get("SHELL") or "/bin/bash"
    os.execvpe(program, [program], os.environ | stack.environment)  # noqa: S606


def sql(stack: Stack, args: argparse.Namespace) -> int:
    """Ask the warehouse as its reading role, a store as the account that extracts, or ClickHouse."""
    if not args.query.strip():
        console.print(query.USAGE, markup=False, highlight=False, soft_wrap=True)
        return 2
    query.show(*query.ask(stack, args.on, args.query), form=args.format)
    return 0


def demo(stack: Stack, _: argparse.Namespace) -> int:
    """Set up, start, generate data, run the pipelines twice, print their ledgers."""
    return run_demo(stack)


def run(stack: Stack, args: argparse.Namespace) -> int:
    """Start a run of each DAG as the scheduler does, follow it task by task, and print its ledger."""
    if not args.dags:
        console.print(USAGE_OF_RUN, markup=False, highlight=False, soft_wrap=True)
        return 2
    return follow(stack, args.dags, conf(args))


USAGE_OF_RUN = """\
make run DAG=techmarket_nightly                                     a run as the scheduler starts one
make run DAG="techmarket_nightly pancake_nightly"                   two at the same time
make run DAG=techmarket_nightly ARGS="--full-refresh"               whole tables
make run DAG=techmarket_nightly ARGS="--tables orders,order_items"  only these tables
make run DAG=events_curated ARGS="--limit 1000"                     at most so many objects
make run DAG=techmarket_nightly ARGS="--conf '{\\"full_refresh\\": true}'"   any parameter, as JSON"""


def conf(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters of a run, from the options of `run`.

    Raises:
        StackError: ``--conf`` is no JSON object.
    """
    try:
        found = json.loads(args.conf or "{}")
    except ValueError as error:
        raise StackError(f"run: --conf is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise StackError("run: --conf is not a JSON object")
    if args.full_refresh:
        found["full_refresh"] = True
    if args.allow_deletes:
        found["allow_deletes"] = True
    if args.tables:
        found["tables"] = [name for name in args.tables.replace(",", " ").split() if name]
    if args.limit is not None:
        found["limit"] = args.limit
    return found


def test(_: Stack, args: argparse.Namespace) -> int:
    """Run all tests on a fresh stack of their own."""
    return run_tests(test_stack(), args.arguments)


def unit(stack: Stack, args: argparse.Namespace) -> int:
    """Run the tests of the package that need no server."""
    return run_unit_tests(stack, args.arguments)


def airflow(stack: Stack, args: argparse.Namespace) -> int:
    """Airflow's command line with the stack's environment; `dags test` keeps the scheduler away."""
    command = [str(Path(sys.executable).parent / "airflow"), *args.arguments]
    dag_id = next((word for word in args.arguments[2:] if not word.startswith("-")), None)
    guard: AbstractContextManager[None] = nullcontext()
    if args.arguments[:2] == ["dags", "test"] and dag_id and Supervisor(stack).alive():
        api = StackAirflow(stack)
        if any((stack.root / "dags").rglob(f"{dag_id}.py")):
            api.wait_for_dags([dag_id])  # it may be new
        guard = api.paused(dag_id)
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
    run,
    test,
    unit,
    setup,
    provision,
    render,
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


def options(command: Callable[..., int], sub: argparse.ArgumentParser) -> None:
    """Give a command its own options."""
    if command is start:
        sub.add_argument("--groups", default="", help=f"of {', '.join(GROUPS)}; all by default")
    if command is logs:
        sub.add_argument("service", nargs="?")
    if command is setup:
        sub.add_argument("--quiet", action="store_true", help="say nothing when nothing was missing")
    if command is run:
        sub.add_argument("dags", nargs="*", metavar="dag")
        sub.add_argument("--full-refresh", action="store_true", help="take whole tables")
        sub.add_argument(
            "--allow-deletes", action="store_true", help="delete more rows than a contract's limit"
        )
        sub.add_argument("--tables", help="take only these tables, such as orders,order_items")
        sub.add_argument("--limit", type=int, help="of events_curated: the most objects to take")
        sub.add_argument("--conf", help="parameters as JSON, as the web form would send them")
    if command in (airflow, superset):
        sub.add_argument("arguments", nargs=argparse.REMAINDER)
    if command is sql:
        sub.add_argument("query", nargs="?", default="")
        sub.add_argument("--on", default="dwh", help=f"of {', '.join(query.PLACES)}")
        sub.add_argument("--format", default="", help=f"of {', '.join(query.FORMATS)}")
    if command is status:
        sub.add_argument("--logins", action="store_true", help="print users and passwords instead")


def main() -> None:
    """Run one command; what a person has to fix is said in a line each, without a traceback."""
    parser = argparse.ArgumentParser(prog="stack", description="The native stack.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        said = (command.__doc__ or "").strip()
        sub = commands.add_parser(command.__name__, help=said.splitlines()[0], description=said)
        sub.set_defaults(run=command)
        options(command, sub)
    os.umask(0o077)  # whatever the stack makes is for one account
    args, unknown = parser.parse_known_args()
    if unknown and args.run not in (test, unit):
        parser.error(f"unknown: {' '.join(unknown)}")
    if args.run in (test, unit):
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
