"""Single packages of another Debian suite, unpacked into a folder: nothing of the machine changes."""

import shutil
import subprocess
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"


def unpack(package: str, version: str, suite: str, into: Path) -> None:
    """Download a package, without what it depends on, and unpack it.

    apt asks with lists and a cache of its own, and need not be root; it checks signatures as always.

    Args:
        package: Its name.
        version: Its version; a stable suite keeps one, another one drops old ones.
        suite: Such as `trixie`.
        into: The folder; made if it is not there.

    Raises:
        OSError: There is no apt, or it cannot get the package.
    """
    if not shutil.which("apt-get"):
        raise OSError(f"{package}: this machine has no apt-get; install {package} from your system")
    apt = into / ".apt"
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb {MIRROR} {suite} main\n")
    settings = {
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": apt,
        "Dir::State::Lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "Dir::Cache::Archives": apt / "archives",
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "root",  # else it becomes another user, who may not write here
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
    }
    options = [f"-o{key}={value}" for key, value in settings.items()]
    for command in (
        ["apt-get", *options, "-qq", "update"],
        ["apt-get", *options, "-qq", "download", f"{package}={version}"],
    ):
        done = subprocess.run(
            command, cwd=apt, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise OSError(f"{package} {version} of Debian {suite}: {said}")
    (archive,) = apt.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(archive), str(into)], check=True, capture_output=True)
    shutil.rmtree(apt)
