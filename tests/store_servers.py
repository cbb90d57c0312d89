"""Servers of either engine of the stores, started by tests."""

import os
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from scripts.stack import fetch
from scripts.stack.accounts import confined
from scripts.stack.context import Stack, open_log
from scripts.stack.provision import patiently
from scripts.stack.stores import server
from tallyhouse.settings import Settings


@contextmanager
def running(name: str, settings: Settings, engine: str) -> Iterator[tuple[Settings, Callable[[], None]]]:
    """A server of our own while the block runs: the settings that lead to it, and what restarts it."""
    stack = Stack()
    if engine == "mysql":
        fetch.ensure_mysql(stack)
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    service = server(stack, name, "orders", engine, port)
    service.prepare()
    log = stack.logs / f"{name}.log"
    process: subprocess.Popen[bytes] | None = None

    def stop() -> None:
        if process is not None:
            process.terminate()
            process.wait(60)

    def start() -> None:
        nonlocal process
        stop()
        process = subprocess.Popen(
            [*confined(stack, service.account, service.sees()), *shlex.split(service.command)],
            env=os.environ | service.environment,
            stdout=open_log(log),
            stderr=subprocess.STDOUT,
        )
        patiently(service.ready, 60, runs)

    def runs() -> None:
        assert process is not None
        assert process.poll() is None, log.read_text(errors="replace")

    try:
        start()
        yield (
            settings.model_copy(
                update={"stores_engine": engine, "mysql_orders_host": "127.0.0.1", "mysql_orders_port": port}
            ),
            start,
        )
    finally:
        stop()


@pytest.fixture(scope="session")
def other_engine(settings: Settings) -> Iterator[Settings]:
    """A server of the engine that the stack's stores do not run on, one for all tests."""
    engine = "mysql" if settings.stores_engine == "mariadb" else "mariadb"
    with running("mysql-tests", settings, engine) as (other, _):
        yield other
