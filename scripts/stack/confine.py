"""Becomes a program under an account of its own, without any capability: started by root, for one server.

python -I scripts/stack/confine.py --uid 1900000001 --passwd FILE --see FOLDER ... -- program argument ...

The account sees the machine as everybody does. Where a folder that it needs lies behind one that is closed to
others (a checkout, or its caches, under /root), a mount namespace of the process shows just the needed
folders in place of the closed one. The process stays the same one, so signals reach the program. Needs
nothing but Python, for it runs before anything can be imported.
"""

import argparse
import ctypes
import os
import shutil
import sys
from pathlib import Path

MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MS_NOSUID, MS_NODEV = 0x2, 0x4
USUAL = ("HOME", "USER", "LOGNAME", "PATH", "LANG", "LC_ALL", "TZ")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Do what the system call of that name does.

    Raises:
        OSError: it was refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    words = (source.encode(), target.encode(), kind and kind.encode(), flags, data and data.encode())
    if libc.mount(words[0], words[1], words[2], ctypes.c_ulong(words[3]), words[4]):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {target}: {os.strerror(number)}")


def closed_above(path: Path) -> Path | None:
    """The uppermost folder over a path that accounts other than its owner may not pass."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)


def outermost(folders: list[Path]) -> list[Path]:
    """The folders that lie in no other of them, by their real paths."""
    real = sorted({folder.resolve() for folder in folders if folder.exists()})
    return [one for one in real if not any(other in one.parents for other in real)]


def show(needed: dict[Path, list[Path]]) -> None:
    """Put in place of each closed folder an empty one that holds just what is needed."""
    for closed, folders in needed.items():
        seen = {folder: os.open(folder, os.O_PATH | os.O_DIRECTORY) for folder in folders}
        mount("tmpfs", str(closed), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
        for folder, handle in seen.items():
            folder.mkdir(parents=True, exist_ok=True)
            mount(f"/proc/self/fd/{handle}", str(folder), None, MS_BIND | MS_REC)
            os.close(handle)


def main() -> None:
    """Become the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uid", type=int, required=True, help="the account, which need not have a name")
    parser.add_argument("--passwd", type=Path, help="shown as /etc/passwd, for programs that want a name")
    parser.add_argument("--see", type=Path, action="append", default=[], help="a folder it has to reach")
    parser.add_argument(
        "--clean", action="store_true", help="pass on nothing of the environment but a few names"
    )
    parser.add_argument("--keep", action="append", default=[], help="a name that --clean passes on as well")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    if args.clean:
        for name in os.environ.keys() - {*USUAL, *args.keep}:
            del os.environ[name]
    os.umask(0o022)  # for the mount points
    needed: dict[Path, list[Path]] = {}
    for folder in outermost(args.see):
        if closed := closed_above(folder):
            needed.setdefault(closed, []).append(folder)
    if needed or args.passwd:
        place = Path.cwd()
        try:
            os.unshare(os.CLONE_NEWNS)
            mount("none", "/", None, MS_REC | MS_PRIVATE)
            passwd = args.passwd and os.open(args.passwd, os.O_PATH)
            show(needed)
            if passwd:
                mount(f"/proc/self/fd/{passwd}", "/etc/passwd", None, MS_BIND)
                os.close(passwd)
            os.chdir(place if place.exists() else "/")  # not the one behind what is shown
        except OSError as error:
            sys.exit(f"a private mount namespace could not be made: {error}")
    os.umask(0o077)
    setpriv = shutil.which("setpriv") or sys.exit("setpriv: not found; install util-linux")
    os.execv(  # noqa: S606
        setpriv,
        [
            *(setpriv, f"--reuid={args.uid}", f"--regid={args.uid}", "--clear-groups", "--no-new-privs"),
            *("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--", *args.command),
        ],
    )


if __name__ == "__main__":
    main()
