"""Packages of another Debian suite, unpacked into a folder: nothing of the machine changes."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path


class Apt:
    """apt with lists, a cache and a table of installed packages of its own; it need not be root.

    Args:
        suite: Such as `trixie`; it comes from where the machine's own packages come from.
        folder: Where it keeps all that; made here.
        beside_installed: Whether the machine's own packages count as there: for its own suite.

    Raises:
        OSError: There is no apt, or it has no source.
    """

    def __init__(self, suite: str, folder: Path, *, beside_installed: bool = False) -> None:
        if not shutil.which("apt-get"):
            raise OSError("this machine has no apt-get")
        self.suite, self.folder = suite, folder
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(f"deb {mirror()} {suite} main\n")
        settings = {
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State": folder,
            "Dir::State::Lists": folder / "lists",
            "Dir::State::status": "/var/lib/dpkg/status" if beside_installed else folder / "status",
            "Dir::Cache": folder,
            "Dir::Cache::Archives": folder / "archives",
            "Debug::NoLocking": "1",
            "APT::Sandbox::User": "root",  # else it becomes another user, who may not write here
            "APT::Install-Recommends": "0",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        }
        self._options = [f"-o{key}={value}" for key, value in settings.items()]
        self._run("apt-get", "-qq", "update")

    def versions(self, package: str) -> list[str]:
        """The versions of a package that the suite has, the newest first."""
        listed = self._run("apt-cache", "madison", package)
        return [line.split("|")[1].strip() for line in listed.splitlines() if line.count("|") > 1]

    def download(self, *packages: str) -> list[Path]:
        """Downloads packages, each as `name` or `name=version`, and all that they depend on.

        Raises:
            OSError: One cannot be had.
        """
        self._run("apt-get", "-qq", "-y", "--download-only", "install", *packages)
        return sorted((self.folder / "archives").glob("*.deb"))

    def download_alone(self, *packages: str) -> list[Path]:
        """Downloads packages and nothing that they depend on.

        Raises:
            OSError: One cannot be had.
        """
        self._run("apt-get", "-qq", "download", *packages)
        return sorted(self.folder.glob("*.deb"))

    def _run(self, program: str, *words: str) -> str:
        done = subprocess.run(
            [program, *self._options, *words],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise OSError(f"{' '.join(words)}, of Debian {self.suite}: {said}")
        return done.stdout


def mirror() -> str:
    """Where the machine's own packages come from."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    for uri, _, component in (line.partition(" ") for line in listed):
        if component == "main" and "security" not in uri:
            return uri
    raise OSError("apt names no place that packages come from; see /etc/apt/sources.list")


def unpack(packages: Iterable[Path], into: Path) -> None:
    """Unpacks packages into a folder.

    Raises:
        OSError: One of them is none.
    """
    for package in packages:
        done = subprocess.run(
            ["dpkg-deb", "-x", str(package), str(into)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OSError(f"{package.name}: {done.stderr.strip()[-300:]}")
