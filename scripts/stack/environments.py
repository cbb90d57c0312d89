"""Python environments of their own in the cache, for what cannot be installed beside the product."""

import shutil
import sys
from pathlib import Path

from scripts.stack.context import Stack, StackError, console, digest_of
from scripts.stack.fetch import Artifact, Fetcher, make


def environment(stack: Stack, name: str, requirements: Path, told: str) -> Path:
    """The folder of an environment, which is made if it is not there.

    Args:
        stack: whose cache.
        name: what the folder and the log begin with.
        requirements: the packages, pinned with their hashes.
        told: what is said of it while it is made.

    Raises:
        StackError: it could not be made.
    """
    folder = stack.cache / f"{name.lower()}-{digest_of(requirements)}"

    def fill(into: Path) -> None:
        uv = shutil.which("uv") or next(iter(stack.cache.glob("tools/uv-*/bin/uv")), None)
        if uv is None:
            raise StackError("uv: not found; scripts/bootstrap.sh installs it")
        fetcher = Fetcher(stack)
        # Its programs are run as modules, so that it may be moved to its place when it is whole.
        fetcher.run(name.lower(), [str(uv), "venv", "--clear", "--python", sys.executable, str(into)])
        python = str(into / "bin/python")
        packages = ["pip", "install", "--python", python, "--no-deps", "--require-hashes"]
        fetcher.run(name.lower(), [str(uv), *packages, "-r", str(requirements)])

    if not folder.exists():
        with console.status(f"{name}: {told}"):
            took = make(Artifact(name, folder, fill))
        console.print(f"  [green]✓[/] {name} installed [dim]{took:.0f} s[/]")
    return folder
