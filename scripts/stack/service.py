"""What a service of the stack is, and what is needed to make one."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scripts.stack.accounts import confined, give
from scripts.stack.context import Stack, StackError, open_log

HOST = "127.0.0.1"
GROUPS = ("nightly", "events", "apps", "watch")
"""Parts of the stack that can be started by themselves, with what they need of the others."""
STORES = "stores"
"""One more: every store with its schema, and nothing that uses it. A backup is restored into it."""


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
    account: str = ""
    """The account that it runs as when root starts the stack; services may share one. Empty: root's."""
    owns: tuple[Path, ...] = ()
    """Folders that belong to its account alone."""
    told: tuple[str, ...] | None = None
    """What of the stack's environment its account may see: a server that runs statements, or programs, of
    others needs no other server's password. None: all of it."""
    group: str = "nightly"
    """Which part of the stack it belongs to, of GROUPS."""

    def sees(self) -> tuple[str, ...] | None:
        """Names in its environment, if not all of the stack's."""
        return None if self.told is None else (*self.told, *self.environment)


def make_data(stack: Stack, account: str, folder: Path, fill: Callable[[Path], None]) -> None:
    """Make an account's data folder beside its place and move it there whole."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    give(stack, account, [fresh])
    fill(fresh)
    fresh.rename(folder)


def run_logged(
    stack: Stack,
    name: str,
    command: list[str],
    environment: dict[str, str] | None = None,
    said: str = "",
    account: str = "",
) -> None:
    """Run a command to its end, its words in a log.

    Args:
        stack: whose environment and logs.
        name: of the log.
        command: what to run.
        environment: what it runs with beside the stack's.
        said: what it reads from its standard input.
        account: of the server that the command prepares, if it is one's.

    Raises:
        StackError: it failed; the message has its last line and where the rest is.
    """
    log = stack.logs / f"{name}.log"
    with open_log(log) as sink:
        done = subprocess.run(
            [*(confined(stack, account) if account else []), *command],
            cwd=stack.root,
            env=os.environ | stack.environment | (environment or {}),
            input=said.encode(),
            stdout=sink,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise StackError(
            f"{name}: failed: {lines[-1][:200] if lines else 'without a word'} (all of it in {log})"
        )
