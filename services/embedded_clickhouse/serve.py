"""Opens the data folder, shuts the process in, and listens."""

import argparse
import logging
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from services.common.serve import configuration
from services.embedded_clickhouse.app import application
from services.embedded_clickhouse.engine import HERE, Engine
from services.embedded_clickhouse.limits import Limits
from services.embedded_clickhouse.login import Login
from services.embedded_clickhouse.sandbox import shut_in

log = logging.getLogger("embedded_clickhouse")


def port_of(address: str) -> int:
    """The port of an S3 server."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise SystemExit(f"--lake {address}: give scheme, host and port, such as http://127.0.0.1:9000")
    return parts.port or (443 if parts.scheme == "https" else 80)


def serve(options: argparse.Namespace, password: str, limits: Limits) -> None:
    """Serve one data folder until told to stop.

    Args:
        options: The command line.
        password: The account's.
        limits: How much a request may cost.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    os.umask(0o077)
    options.path.mkdir(parents=True, exist_ok=True)
    # Of the checkout only this package: beside it are other services' secrets.
    reads = [HERE, Path(sys.prefix), Path(sys.base_prefix)]
    if not shut_in(reads=reads, writes=[options.path], connects=map(port_of, options.lake)):
        log.warning("this kernel has no Landlock: the engine is held by its access rights alone")
    login = Login(options.user, password, options.allow_host)
    try:
        engine = Engine(options.path.resolve(), tuple(options.lake), limits)
    except RuntimeError as error:
        raise SystemExit(
            f"{options.path}: cannot be opened: {error} Another process may hold its lock; one at a time can."
        ) from error
    configured = configuration(
        application(engine, login, limits),
        options.host,
        options.port,
        log_level="warning",
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(configured).run()
