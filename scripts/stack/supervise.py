"""The process supervisor (supervisord): its configuration, its start, and talking to it."""

import os
import shlex
import subprocess
import sys
import threading
import time
from http.client import HTTPException
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import jinja2
from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

from scripts.stack.accounts import confined
from scripts.stack.context import Stack, StackError, write_private
from scripts.stack.service import Service

RUNNING = ("RUNNING", "STARTING", "STOPPING")


class Supervisor:
    """supervisord of one checkout, reached over a Unix socket that only its owner may open."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.socket = stack.sockets / "supervisor.sock"
        self.config = stack.run / "supervisord.conf"
        self._lock = threading.Lock()
        self._proxy: ServerProxy | None = None

    def _new_proxy(self) -> ServerProxy:
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        return ServerProxy("http://127.0.0.1", transport=transport)

    def _ask(self, method: str, *arguments: Any) -> Any:
        # All calls over one connection that stays open. Where one closes while a program is started,
        # the program's stdin may get its number, and supervisord polls it without a pause from then on.
        with self._lock:
            if self._proxy is None:
                self._proxy = self._new_proxy()
            try:
                return getattr(self._proxy.supervisor, method)(*arguments)
            except (OSError, HTTPException):
                self._proxy = None
                raise

    def alive(self) -> bool:
        """Whether supervisord answers."""
        try:
            return bool(self._ask("getState")["statename"] == "RUNNING")
        except (OSError, HTTPException, Fault):
            return False

    def pid(self) -> int:
        """The process that started all others."""
        return int(self._ask("getPID"))

    def states(self) -> dict[str, dict[str, Any]]:
        """State, pid and times of each program; empty when supervisord does not run."""
        if not self.alive():
            return {}
        return {row["name"]: row for row in self._ask("getAllProcessInfo")}

    def write_config(self, programs: list[Service]) -> None:
        """Write supervisord's configuration."""
        before = {
            program.name: shlex.join(confined(self.stack, program.account, program.sees()))
            for program in programs
            if program.account
        }
        template = jinja2.Template((self.stack.root / "config/supervisord.conf.j2").read_text())
        text = template.render(
            run=self.stack.run,
            logs=self.stack.logs,
            root=self.stack.root,
            socket=self.socket,
            user="root" if os.geteuid() == 0 else "",
            programs=programs,
            before=before,
        )
        write_private(self.config, text)

    def ensure(self, programs: list[Service]) -> None:
        """Start supervisord, or bring the running one up to the new configuration."""
        self.write_config(programs)
        if self.alive():
            added, changed, removed = self._ask("reloadConfig")[0]
            for name in [*removed, *changed]:
                self.stop(name)
                self._ask("removeProcessGroup", name)
            for name in [*changed, *added]:
                self._ask("addProcessGroup", name)
            return
        subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.config)],
            cwd=self.stack.root,
            env=os.environ | self.stack.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        deadline = time.monotonic() + 10
        while not self.alive():
            if time.monotonic() > deadline:
                raise StackError(f"supervisord: did not start; see {self.stack.logs / 'supervisord.log'}")
            time.sleep(0.05)

    def start(self, name: str) -> None:
        """Start one program."""
        self._ask("startProcess", name, False)

    def stop(self, name: str) -> None:
        """Stop one program and wait for its end."""
        try:
            # Several wait at the same time, each over a connection of its own; nothing is started then.
            self._new_proxy().supervisor.stopProcess(name, True)
        except Fault:  # it does not run
            return

    def shutdown(self) -> None:
        """Stop every program and supervisord itself, and wait for their end."""
        pid = self._ask("getPID")
        self._ask("shutdown")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if not _exists(pid):
                return
            time.sleep(0.05)
        raise StackError(f"supervisord: pid {pid} does not end; see {self.stack.logs / 'supervisord.log'}")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
