"""The command line, and an environment without the secrets of others."""

import argparse
import os
import sys
from pathlib import Path

KEPT = ("CLICKHOUSE_PASSWORD", "HOME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "TZ")
"""Variables that the process keeps; those of the stack hold every other service's secrets."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m services.embedded_clickhouse",
        description="Embedded ClickHouse behind ClickHouse's HTTP protocol. "
        "The password comes from CLICKHOUSE_PASSWORD.",
    )
    parser.add_argument("--path", type=Path, required=True, help="data folder, owned by this process alone")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8123, help="port to listen on (%(default)s)")
    parser.add_argument("--user", default="default", help="name of the account (%(default)s)")
    parser.add_argument(
        "--lake",
        action="append",
        default=[],
        help="an S3 server that s3() may name, such as http://127.0.0.1:9000; none unless given",
    )
    parser.add_argument("--allow-host", action="append", default=[], help="one more name in the Host header")
    return parser.parse_args(arguments)


def main() -> None:
    """Serve one data folder until told to stop."""
    options = parse(sys.argv[1:])
    password = os.environ.get("CLICKHOUSE_PASSWORD")
    if not password:
        raise SystemExit(
            "CLICKHOUSE_PASSWORD is not set: this server answers nobody without a password; "
            "the stack makes one for each checkout"
        )
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    if not set(os.environ) <= {*kept, "LC_CTYPE"}:
        # Anew, before anything is loaded: what a process was started with stays readable in /proc.
        again = [sys.executable, "-m", "services.embedded_clickhouse", *sys.argv[1:]]
        os.execve(sys.executable, again, kept)  # noqa: S606 - there is no shell to want

    # Loaded after that, for it takes seconds.
    from services.embedded_clickhouse.limits import Limits  # noqa: PLC0415
    from services.embedded_clickhouse.serve import serve  # noqa: PLC0415

    serve(options, password, Limits())


if __name__ == "__main__":
    main()
