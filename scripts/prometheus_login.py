"""Prometheus' login: what its server, its scrape of itself and promtool read of it.

    PROMETHEUS_USER=… PROMETHEUS_PASSWORD=… python -m scripts.prometheus_login FOLDER

Natively the stack writes these files at each start (scripts/stack/watch.py); in Compose the
service `prometheus-login` runs this, because Prometheus' image has no program that makes the hash.
"""

import argparse
import os
from pathlib import Path

import bcrypt
import yaml

from scripts.stack.context import StackError, write_private

COST = 10
"""Of the hash. A guess costs a twentieth of a second; Prometheus remembers which logins were right."""
IMAGE_ACCOUNT = 65534
"""The account that Prometheus' image runs it as."""


def write_login(folder: Path, user: str, password: str, owner: int) -> None:
    """Write the login's files, for Prometheus' account alone.

    Args:
        folder: where: `web.yml` (whom the server lets in; the password's hash), `password` (what the server
            needs to scrape itself) and `promtool.yml` (`promtool … --http.config.file`).
        user: the only one.
        password: the user's.
        owner: Prometheus' account.

    Raises:
        StackError: a password that bcrypt cannot hash.
    """
    secret = password.encode()
    if not secret or len(secret) > 72 or b"\0" in secret:
        raise StackError(
            "PROMETHEUS_PASSWORD: 1 to 72 bytes without a zero byte; set it in .env, or remove it there"
        )
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(folder, owner, owner)
    hashed = bcrypt.hashpw(secret, bcrypt.gensalt(COST)).decode()
    client = {"basic_auth": {"username": user, "password_file": str(folder / "password")}}
    write_private(folder / "web.yml", yaml.safe_dump({"basic_auth_users": {user: hashed}}), owner)
    write_private(folder / "password", password, owner)
    write_private(folder / "promtool.yml", yaml.safe_dump(client), owner)


def main() -> None:
    """Write the files for the account of Prometheus' image."""
    parser = argparse.ArgumentParser(description="Prometheus' login, from the environment.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    write_login(folder, os.environ["PROMETHEUS_USER"], os.environ["PROMETHEUS_PASSWORD"], IMAGE_ACCOUNT)


if __name__ == "__main__":
    main()
