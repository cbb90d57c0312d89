"""Shuts the process in, by Linux's Landlock: the engine can then reach no more than its work needs.

Landlock needs no privilege, holds for every thread that is started afterwards, and cannot be taken back.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_PATH_BENEATH, _NET_PORT = 1, 2
_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_ONLY = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14
_CONNECT = 1 << 1

# Rights on files that each version of Landlock knows: the first 13, REFER, TRUNCATE, IOCTL_DEV.
_KNOWN = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_WITH_PORTS = 4

SYSTEM = (
    *("/usr", "/lib", "/lib64", "/bin", "/proc", "/sys", "/dev/null", "/dev/urandom", "/dev/random"),
    *("/etc/ssl", "/etc/ca-certificates", "/etc/localtime", "/etc/timezone", "/etc/ld.so.cache"),
    *("/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/gai.conf"),
)
"""What every program reads."""


def shut_in(*, reads: Iterable[Path], writes: Iterable[Path], connects: Iterable[int]) -> bool:
    """Let this process, and the threads that it starts, reach only some files and ports.

    Args:
        reads: Folders and files that may be read, beside those of the system.
        writes: Folders in which everything may be done.
        connects: TCP ports that may be connected to.

    Returns:
        Whether it is shut in; False where the kernel has no Landlock.

    Raises:
        OSError: The kernel has it and refuses.
    """
    version = _call(_CREATE, None, 0, 1, allowed=(errno.ENOSYS, errno.EOPNOTSUPP))
    if version < 1:
        return False
    rights = _KNOWN[max(known for known in _KNOWN if known <= version)]
    ports = _CONNECT if version >= _WITH_PORTS else 0
    attributes = struct.pack("QQ", rights, ports)
    rules = _call(_CREATE, attributes, 16 if ports else 8, 0)
    try:
        for path in (*map(Path, SYSTEM), *reads):
            _allow(rules, path, _READ & rights)
        _allow(rules, Path("/dev/null"), (_READ_FILE | _WRITE_FILE) & rights)
        for path in writes:
            _allow(rules, path, rights)
        for port in connects if ports else ():
            _call(_ADD, rules, _NET_PORT, struct.pack("QQ", _CONNECT, port), 0)
        if ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        _call(_RESTRICT, rules, 0)
    finally:
        os.close(rules)
    return True


def _allow(rules: int, path: Path, rights: int) -> None:
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not path.is_dir():
            rights &= _FILE_ONLY
        _call(_ADD, rules, _PATH_BENEATH, struct.pack("=Qi", rights, folder), 0)
    finally:
        os.close(folder)


def _call(number: int, *arguments: int | bytes | None, allowed: tuple[int, ...] = ()) -> int:
    """A system call that the C library has no name for."""
    result: int = ctypes.CDLL(None, use_errno=True).syscall(
        ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    )
    code = ctypes.get_errno()
    if result < 0 and code not in allowed:
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return result
