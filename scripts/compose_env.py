#!/usr/bin/env python3
"""Puts the passwords that docker-compose.yaml demands into `.env`, where Docker Compose reads them.

Each `${NAME:?…}` of the file that `.env` does not set is added: as the native stack of this checkout has it,
if there is one, else a new one. What `.env` sets stays, so that volumes and servers keep their passwords.
The file is for its owner alone, and Git ignores it. Needs nothing but Python: `make start COMPOSE=1` runs it.
"""

import json
import os
import re
import secrets
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def demanded(compose: str) -> list[str]:
    """Names of the variables without which Docker Compose refuses the file."""
    return sorted(set(re.findall(r"\$\{(\w+):\?", compose)))


def complete(dot_env: Path, names: list[str], known: dict[str, str]) -> list[str]:
    """Add to the file what it does not set.

    Args:
        dot_env: the file; made if it is not there.
        names: what it has to set.
        known: values to take where there are any.

    Returns:
        The names that were added.
    """
    text = dot_env.read_text() if dot_env.exists() else ""
    lacking = [name for name in names if not re.search(rf"^{name}=.", text, re.MULTILINE)]
    if lacking:
        lines = "".join(f"{name}={known.get(name) or secrets.token_hex(16)}\n" for name in lacking)
        aside = dot_env.with_name(f".env.{os.getpid()}")
        with os.fdopen(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as sink:
            sink.write(text + ("\n" if text and not text.endswith("\n") else "") + lines)
        aside.replace(dot_env)
    dot_env.chmod(0o600)
    return lacking


def main() -> None:
    """Complete this checkout's `.env`."""
    made = ROOT / os.environ.get("TALLYHOUSE_LOCAL", ".local") / "secrets.json"
    known = json.loads(made.read_text()) if made.exists() else {}
    added = complete(ROOT / ".env", demanded((ROOT / "docker-compose.yaml").read_text()), known)
    if added:
        print(f".env: made {', '.join(added)}")


if __name__ == "__main__":
    main()
