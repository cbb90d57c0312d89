"""`make superset`: Superset in an environment of its own, its data in the stack's PostgreSQL."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg

from scripts.stack import environments, readiness
from scripts.stack.context import Stack, StackError, console
from scripts.stack.fetch import ensure_chromium
from scripts.stack.provision import login, own_database, patiently
from scripts.stack.service import run_logged


def home(stack: Stack) -> Path:
    """The environment's folder in the cache; made if it is not there."""
    return environments.environment(
        stack, "Superset", stack.root / "scripts/superset/requirements.txt", "0.7 GB, once"
    )


def environment(stack: Stack) -> dict[str, str]:
    """What Superset runs with beside the stack's environment."""
    s = stack.settings
    return {
        "SUPERSET_METADATA_URI": (
            f"postgresql+psycopg2://{s.superset_db_user}:{s.superset_db_password}"
            f"@{s.postgres_host}:{s.postgres_port}/{s.superset_db}"
        ),
        "SUPERSET_SECRET_KEY": stack.secrets["SUPERSET_SECRET_KEY"],
        "SUPERSET_ADMIN_PASSWORD": stack.secrets["SUPERSET_ADMIN_PASSWORD"],
        "SUPERSET_CONFIG_PATH": str(stack.root / "scripts/superset/superset_config.py"),
        "SUPERSET_HOME": str(stack.data / "superset"),
        "SUPERSET_ASSETS": str(stack.root / "dashboards/superset"),
        "FLASK_APP": "superset.app:create_app()",
        "SCARF_ANALYTICS": "false",
        # Its packages are older than ours.
        "PYTHONPATH": "",
    }


def database(stack: Stack) -> None:
    """Superset's role and database."""
    s = stack.settings
    with readiness.postgres_connection(s) as connection:
        login(connection, s.superset_db_user, s.superset_db_password)
        own_database(connection, s.superset_db, s.superset_db_user)


def prepare(stack: Stack) -> None:
    """Install, make the metadata, import the assets.

    Raises:
        StackError: the stack does not run, the port is taken, or a step failed.
    """
    s = stack.settings
    stack.make_folders()
    try:
        database(stack)
    except psycopg.OperationalError as error:
        where = f"{s.postgres_host}:{s.postgres_port}"
        raise StackError(f"superset: PostgreSQL does not answer at {where}; 'make start' first") from error
    if not readiness.port_free(s.superset_host, s.superset_port):
        holder = readiness.holder(s.superset_port)
        raise StackError(
            f"superset: port {s.superset_port} is taken by {holder}; stop it, or set SUPERSET_PORT in .env"
        )
    (stack.data / "superset").mkdir(parents=True, exist_ok=True)
    # Its own migrations take half a minute even when there is nothing to do.
    stamp = stack.data / f"{home(stack).name}.migrated"
    began = time.monotonic()
    with console.status("Superset: metadata and dashboards"):
        step = "import" if stamp.exists() else "upgrade"
        command = [str(home(stack) / "bin/python"), "-m", "scripts.superset.prepare", step]
        run_logged(stack, "superset-prepare", command, environment(stack))
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.touch()
    console.print(f"  [green]✓[/] dashboards imported [dim]{time.monotonic() - began:.0f} s[/]")


def server(stack: Stack) -> list[str]:
    """The command of Superset's server."""
    s = stack.settings
    return [
        *(str(home(stack) / "bin/python"), "-m", "gunicorn", "superset.app:create_app()"),
        *("--bind", f"{s.superset_host}:{s.superset_port}", "--workers", "1"),
        *("--worker-class", "gthread", "--threads", "8", "--timeout", "120", "--log-level", "warning"),
    ]


def serve(stack: Stack) -> None:
    """Become Superset's server, until it is interrupted."""
    s = stack.settings
    console.print(f"  Superset       {s.superset_url}   user {s.superset_admin_user},", end=" ")
    console.print(f"password {stack.secrets['SUPERSET_ADMIN_PASSWORD']}   (Ctrl-C ends it)")
    command = server(stack)
    os.chdir(stack.root)
    os.execve(command[0], command, os.environ | stack.environment | environment(stack))  # noqa: S606


def check(stack: Stack, arguments: list[str]) -> int:
    """Open every dashboard in a browser and see that each of its charts gets rows.

    Args:
        stack: it runs, and has data.
        arguments: for pytest.

    Returns:
        What pytest returned.
    """
    s = stack.settings
    chromium = ensure_chromium(stack)
    log = stack.logs / "superset.log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            server(stack),
            cwd=stack.root,
            env=os.environ | stack.environment | environment(stack),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        try:

            def still() -> None:
                if process.poll() is not None:
                    raise StackError(f"superset: ended instead of starting (its log: {log})")

            patiently(lambda: readiness.http(f"{s.superset_url}/health"), 180, still)
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "tests/dashboards", *arguments],
                cwd=stack.root,
                env=os.environ
                | stack.environment
                | {
                    "SUPERSET_CHECK": s.superset_url,
                    "SUPERSET_ADMIN_PASSWORD": stack.secrets["SUPERSET_ADMIN_PASSWORD"],
                    "TALLYHOUSE_CHROMIUM": chromium,
                },
                check=False,
            )
        finally:
            process.terminate()
            process.wait(30)
    return done.returncode
