"""Extraction is tested on MariaDB 11.4 and on MySQL 9.7, whichever of them the stack's stores run on."""

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from scripts.stack import fetch
from scripts.stack.accounts import confined
from scripts.stack.context import Stack
from scripts.stack.provision import patiently
from scripts.stack.stores import server
from tallyhouse.settings import Settings


@pytest.fixture(scope="session")
def other_engine(settings: Settings) -> Iterator[Settings]:
    """A server of the engine that the stack's stores do not run on, one for all tests."""
    stack, engine = Stack(), "mysql" if settings.stores_engine == "mariadb" else "mariadb"
    if engine == "mysql":
        fetch.ensure_mysql(stack)
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    service = server(stack, "mysql-tests", "orders", engine, port)
    service.prepare()
    log = stack.logs / "mysql-tests.log"
    process = subprocess.Popen(
        [*confined(stack, service.account, service.sees()), *shlex.split(service.command)],
        env=os.environ | service.environment,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
    )

    def runs() -> None:
        assert process.poll() is None, log.read_text(errors="replace")

    try:
        patiently(service.ready, 60, runs)
        yield settings.model_copy(
            update={"stores_engine": engine, "mysql_orders_host": "127.0.0.1", "mysql_orders_port": port}
        )
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(params=["mariadb", "mysql"])
def mysql_settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """The stack's orders server, or that of the other engine."""
    if request.param == settings.stores_engine:
        return settings
    other: Settings = request.getfixturevalue("other_engine")
    return other
