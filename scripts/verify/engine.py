"""A Docker engine: the one at hand, else a private one that leaves nothing behind."""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scripts.cache import made_whole
from scripts.stack import debian

ENGINE = ("docker.io", "containerd", "runc", "iptables")
COMPOSE, COMPOSE_SUITE = "2.26.1-4", "trixie"
"""Docker Compose where the machine has none: that of Debian's stable suite, which keeps its version."""
RANGE = "10.213.{}.0/24"
"""Of the private engine's networks; the first one is its bridge's."""
GROUP = "tallyhouse-verify"
"""Of the private engine's containers, among the machine's control groups."""
START_SECONDS = 60
GROUPS = Path("/sys/fs/cgroup")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
TABLES = {
    "filter": "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n",
    "nat": "*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\nCOMMIT\n",
}


class EngineError(Exception):
    """What is missing or failed, and what to do."""


class Docker:
    """Docker's command line, on one engine.

    Args:
        environment: Where the engine is and where the programs are.
        private: Whether it is an engine of our own, with nobody else's things in it.
    """

    def __init__(self, environment: Mapping[str, str], private: bool) -> None:
        self.environment, self.private = {**os.environ, **environment}, private

    def __call__(
        self, *words: str, check: bool = True, show: bool = False, env: Mapping[str, str] | None = None
    ) -> str:
        """Run `docker`.

        Args:
            words: Its arguments.
            check: Whether a failure is an error.
            show: Whether what it says goes to the terminal, and not back.
            env: Beside the engine's own environment.

        Returns:
            What it said on its standard output, stripped.

        Raises:
            EngineError: It failed.
        """
        done = subprocess.run(
            ["docker", *words],
            env=self.environment | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            text=True,
            check=False,
        )
        if check and done.returncode:
            said = "" if show else f": {(done.stderr or done.stdout).strip()[-600:]}"
            raise EngineError(f"docker {' '.join(words[:6])}: failed{said}")
        return "" if show else done.stdout.strip()


def at_hand() -> Docker | None:
    """The engine that the user's `docker` reaches, if it and Docker Compose answer."""
    if not shutil.which("docker"):
        return None
    docker = Docker({}, private=False)
    for words in (("info",), ("compose", "version")):
        done = subprocess.run(["docker", *words], capture_output=True, timeout=30, check=False)
        if done.returncode:
            return None
    return docker


def docker_compose(cache: Path) -> Path:
    """Debian's Docker Compose, unpacked once.

    Raises:
        OSError: It cannot be had.
    """
    folder = cache / "tools" / f"docker-compose-{COMPOSE}"
    if not folder.exists():
        with made_whole(folder) as making:
            apt = debian.Apt(COMPOSE_SUITE, making / ".apt")
            debian.unpack(apt.download_alone(f"docker-compose={COMPOSE}"), making)
            shutil.rmtree(apt.folder)
    return folder / "usr/libexec/docker/cli-plugins/docker-compose"


def programs(cache: Path) -> Path:
    """The engine's programs, out of the packages of this machine's Debian.

    Returns:
        The folder they are unpacked into, once.

    Raises:
        EngineError: They cannot be had.
    """
    if os.geteuid() != 0:
        raise EngineError("no Docker engine answers, and a private one needs root: start Docker")
    folder = cache / "tools" / f"docker-engine-{_suite()}"
    if not folder.exists():
        try:
            with made_whole(folder) as making:
                apt = debian.Apt(_suite(), making / ".apt", beside_installed=True)
                debian.unpack(apt.download(*ENGINE), making)
                shutil.rmtree(apt.folder)
                for name in ("iptables", "ip6tables"):  # as the package's own script has it
                    for end in ("", "-save", "-restore"):
                        (making / "usr/sbin" / f"{name}{end}").symlink_to("xtables-nft-multi")
        except OSError as error:
            raise EngineError(f"no Docker engine answers, and Debian's cannot be had: {error}") from error
    return folder


def _suite() -> str:
    """The name of this machine's Debian.

    Raises:
        EngineError: It is no Debian.
    """
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    if release.get("ID") != "debian":
        raise EngineError("no Docker engine answers, and a private one is made on Debian alone: start Docker")
    return release["VERSION_CODENAME"]


@contextmanager
def engine(cache: Path, data: Path, *, keep: bool) -> Iterator[tuple[Docker, "Private | None"]]:
    """A Docker engine for as long as the block lasts.

    Args:
        cache: Where the programs of a private one are kept.
        data: Folder of a private one, and of what the block keeps there; made here.
        keep: Whether the folder stays, with its images for the next time.

    Yields:
        Its command line; with an engine of our own, that engine too.

    Raises:
        EngineError: There is none, a private one does not start, or another one uses the folder.
    """
    data.mkdir(parents=True, exist_ok=True)
    with (data.parent / f".{data.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise EngineError(f"another one uses {data}; wait for its end") from error
        docker, private = at_hand(), None
        if docker is None:
            private = Private(programs(cache), data, docker_compose(cache))
            private.start()
            docker = private.docker
        try:
            yield docker, private
        finally:
            if private:
                private.stop()
            if not keep:
                shutil.rmtree(data)


class Rules:
    """The machine's packet rules and its forwarding, which an engine or a node changes.

    Args:
        root: Folder of the engine's programs, iptables among them.
    """

    def __init__(self, root: Path) -> None:
        libraries = root / "usr/lib/x86_64-linux-gnu"
        self.environment = {
            "PATH": f"{root}/usr/bin:{root}/usr/sbin:{root}/sbin:{os.environ['PATH']}:/usr/sbin:/sbin",
            "LD_LIBRARY_PATH": f"{libraries}:{root}/lib/x86_64-linux-gnu",
            "XTABLES_LIBDIR": f"{libraries}/xtables",
        }
        self._before: tuple[str, str] | None = None

    def remember(self) -> None:
        """Keep what they are now, unless something is kept already."""
        if self._before is None:
            self._before = (self._iptables("iptables-save"), FORWARDING.read_text())

    def put_back(self) -> None:
        """Make them what they were."""
        if self._before:
            rules, forwarding = self._before
            self._iptables("iptables-restore", restoring(rules))
            FORWARDING.write_text(forwarding)
            self._before = None

    def _iptables(self, program: str, rules: str = "") -> str:
        """What iptables-save or iptables-restore says."""
        done = subprocess.run(
            [program],
            env=os.environ | self.environment,
            input=rules,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise EngineError(f"{program}: {done.stderr.strip()[-300:]}")
        return done.stdout


class Private:
    """An engine with a socket, a data folder and networks of its own.

    Args:
        root: Folder of its programs.
        data: Folder of everything it keeps.
        compose: Docker Compose.
    """

    def __init__(self, root: Path, data: Path, compose: Path) -> None:
        self.data, self.compose = data, compose
        self.run = data / "run"
        self.rules = Rules(root)
        self.environment = {
            **self.rules.environment,
            "DOCKER_HOST": f"unix://{self.run}/docker.sock",
            "DOCKER_CONFIG": str(data / "client"),
            "DOCKER_BUILDKIT": "0",
        }
        self.docker = Docker(self.environment, private=True)
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            EngineError: It ended, or does not answer.
        """
        plugins = self.data / "client/cli-plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(exist_ok=True)
        plugin = plugins / "docker-compose"
        plugin.unlink(missing_ok=True)
        plugin.symlink_to(self.compose)
        self.rules.remember()
        with (self.data / "dockerd.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [
                    "dockerd",
                    f"--data-root={self.data / 'docker'}",
                    f"--exec-root={self.run}",
                    f"--pidfile={self.run / 'docker.pid'}",
                    f"--host={self.environment['DOCKER_HOST']}",
                    f"--bip={RANGE.format(0).replace('.0/', '.1/')}",
                    f"--default-address-pool=base={RANGE.format(0).replace('/24', '/16')},size=24",
                    "--storage-driver=overlay2",
                    f"--cgroup-parent=/{GROUP}",
                ],
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that an interrupt reaches us first
            )
        deadline = time.monotonic() + START_SECONDS
        while self._daemon.poll() is None and time.monotonic() < deadline:
            if self.docker("info", "--format", "{{.ID}}", check=False):
                return
            time.sleep(0.5)
        self.stop()
        last = (self.data / "dockerd.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise EngineError(f"dockerd: did not start: {' '.join(last)} (all of it in {self.data}/dockerd.log)")

    def halt(self) -> None:
        """End the daemon, and the containers with it; its networks stay."""
        if self._daemon and self._daemon.poll() is None:
            self._daemon.send_signal(signal.SIGTERM)
            try:
                self._daemon.wait(60)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()

    def stop(self) -> None:
        """End the daemon, and put the machine's rules, bridges and forwarding back as they were."""
        self.halt()
        for link in _links():
            if link == "docker0" or link.startswith("br-"):
                subprocess.run(["ip", "link", "delete", link], capture_output=True, check=False)
        self.rules.put_back()
        remove_groups(GROUP)
        shutil.rmtree(self.run, ignore_errors=True)


def remove_groups(name: str) -> None:
    """Remove a control group that has no process any more, in every hierarchy."""
    for top in (GROUPS, *GROUPS.iterdir()):
        if (top / name).is_dir():
            for folder in sorted((path for path in (top / name).rglob("*") if path.is_dir()), reverse=True):
                folder.rmdir()
            (top / name).rmdir()


def restoring(rules: str) -> str:
    """What puts the machine's rules back: those it had; a table that had none is emptied."""
    return rules + "".join(text for table, text in TABLES.items() if f"*{table}\n" not in rules)


def _links() -> list[str]:
    """The network interfaces of this machine."""
    return [path.name for path in Path("/sys/class/net").iterdir()]
