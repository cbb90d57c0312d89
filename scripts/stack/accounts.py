"""The accounts that servers run as when root starts the stack: one for each, without any capability.

Who is not root runs everything as himself.
"""

import hashlib
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from scripts.stack.confine import closed_above
from scripts.stack.context import Stack, StackError

# Numbers that Linux distributions and systemd leave to nobody; the second ones for containers that have but
# 65,536 of them.
FREE = range(1_879_048_192, 2_147_483_647)
FREE_IN_CONTAINERS = range(60_706, 61_184)


def account(stack: Stack, name: str) -> int:
    """The number of the account that a server runs as: this checkout's, and that server's alone.

    Where mount namespaces may not be made, all run as `nobody`: PostgreSQL and Java want a name.
    """
    if os.geteuid() != 0:
        return os.geteuid()
    if not can_mount():
        return pwd.getpwnam("nobody").pw_uid
    free = FREE if _mapped(FREE.stop) else FREE_IN_CONTAINERS
    digest = hashlib.sha256(f"{stack.local}\0{name}".encode()).digest()
    return free[int.from_bytes(digest[:8]) % len(free)]


@cache
def can_mount() -> bool:
    """Whether this process may make a mount namespace: not in every container."""
    unshare = shutil.which("unshare")
    command = [str(unshare), "--mount", "--propagation", "private", "true"]
    return unshare is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


def _mapped(number: int) -> bool:
    """Whether this user namespace has an account of that number."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= number < first + count:
            return True
    return False


def confined(stack: Stack, name: str, keeps: Iterable[str] | None = None) -> list[str]:
    """What to put before a command so that it runs as a server's account; nothing if root did not start us.

    Args:
        stack: whose server.
        name: of the account.
        keeps: names in the environment that it may see beside the usual ones; None: all of it.

    Raises:
        StackError: the account could not reach the checkout or the cache; in one line, what to do.
    """
    if os.geteuid() != 0:
        return []
    uid, home = account(stack, name), stack.data / name
    folders = _needed(stack)
    for folder in folders:
        if folder.stat().st_mode & 0o005 != 0o005 and folder != stack.local:
            raise StackError(
                f"{folder}: closed to other accounts, and servers do not run as root: "
                f"chmod go+rx it, with what is in it (or clone again under 'umask 022')"
            )
    command = [
        *("env", f"HOME={home}", f"USER=tallyhouse-{uid}", f"LOGNAME=tallyhouse-{uid}"),
        *(sys.executable, "-I", str(stack.root / "scripts/stack/confine.py"), f"--uid={uid}"),
        *(() if keeps is None else ("--clean", *(f"--keep={one}" for one in keeps))),
    ]
    if can_mount():
        passwd = stack.run / f"{name}.passwd"
        line = f"tallyhouse-{uid}:x:{uid}:{uid}:{name} of Tallyhouse:{home}:/usr/sbin/nologin\n"
        passwd.write_text(Path("/etc/passwd").read_text().rstrip("\n") + "\n" + line)
        passwd.chmod(0o644)
        return [*command, f"--passwd={passwd}", *(f"--see={folder}" for folder in folders), "--"]
    if closed := next(filter(None, (closed_above(folder.resolve()) for folder in folders)), None):
        raise StackError(
            f"{closed}: closed to other accounts, servers do not run as root, and no mount namespace may be "
            "made here: put the checkout and TALLYHOUSE_CACHE elsewhere, or use another user than root"
        )
    return [*command, "--"]


def of_service(name: str) -> str:
    """The account of an HTTP service; none if the environment tells it of a file of the user's own."""
    prefix = name.upper().replace("-", "_")
    files = (f"{prefix}_API_KEYS_FILE", f"{prefix}_AUDIT_FILE")
    return "" if any(os.environ.get(file) for file in files) else name


def _needed(stack: Stack) -> list[Path]:
    """What every server has to reach: code, packages, interpreter, programs, Java, and the local folder."""
    java = [stack.java_home] if stack.java_home else []
    return [stack.root, stack.local, stack.cache, Path(sys.prefix), Path(sys.base_prefix), *java]


def give(stack: Stack, name: str, folders: Iterable[Path]) -> None:
    """Make folders of a server, its account's alone; what another one owned is given to it."""
    uid = account(stack, name)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid != uid:
            for where, _, files in os.walk(folder):
                for path in (Path(where), *(Path(where, file) for file in files)):
                    os.chown(path, uid, uid if os.geteuid() == 0 else -1, follow_symlinks=False)
        folder.chmod(0o700)
