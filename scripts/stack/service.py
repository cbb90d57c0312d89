"""What a service of the stack is, and what is needed to make one."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scripts.stack.context import Stack, StackError

HOST = "127.0.0.1"
GROUPS = ("nights", "events", "apps", "watch")
"""Parts of the stack that can be started by themselves, with what they need of the others."""


@dataclass(frozen=True)
class Service:
    """One supervised program."""

    name: str
    command: str
    ports: dict[str, int] = field(default_factory=dict)
    """Ports it listens on, by the setting that names each."""
    ready: Callable[[], None] = lambda: None
    """Raises until the service answers."""
    prepare: Callable[[], None] = lambda: None
    """Makes its data folder, if there is none."""
    environment: dict[str, str] = field(default_factory=dict)
    """What it runs with beside the stack's environment."""
    after: tuple[str, ...] = ()
    """Services, or steps of provisioning, that must be there first."""
    url: str = ""
    stop_signal: str = "TERM"
    stop_seconds: int = 20
    stop_group: bool = False
    start_seconds: int = 60
    group: str = "nights"
    """Which part of the stack it belongs to, of GROUPS."""


def make_data(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a data folder beside its place and move it there whole."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True, mode=0o700)
    fill(fresh)
    fresh.rename(folder)


def run_logged(
    stack: Stack, name: str, command: list[str], environment: dict[str, str] | None = None
) -> None:
    """Run a command to its end, its words in a log.

    Args:
        stack: whose environment and logs.
        name: of the log.
        command: what to run.
        environment: what it runs with beside the stack's.

    Raises:
        StackError: it failed; the message has its last line and where the rest is.
    """
    log = stack.logs / f"{name}.log"
    with log.open("w") as sink:
        done = subprocess.run(
            command,
            cwd=stack.root,
            env=os.environ | stack.environment | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise StackError(
            f"{name}: failed: {said[-1][:200] if said else 'without a word'} (all of it in {log})"
        )
