"""docker-compose.yaml run for real: every image built, everything up, a run, events, a kill and the way back.

    python -m scripts.verify.compose [--keep] [--scale 0.02] [service ...]

It starts a Docker engine of its own where none is at hand, pulls what can be pulled, and puts stand-ins
(infrastructure/docker/stand-ins) under the names that cannot. Its Compose project is `tallyhouse-verify`, on
other ports, so that it does not meet a running one.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.compose_env import complete, demanded
from scripts.stack.context import Stack, StackError, console
from scripts.verify.engine import Docker, EngineError, Private, engine
from scripts.verify.images import Images, bases, dockerfiles, foreign, image_name
from tallyhouse.settings import ROOT, STACK_ENV

PROJECT = "tallyhouse-verify"
PORT_OFFSET = 22000
"""Beside the native stack's ports and those of its tests."""
UP_SECONDS = 900
RECOVERY_SECONDS = 300
COMPOSE_FILE = ROOT / "docker-compose.yaml"
AIRFLOW = ROOT / "infrastructure/docker/airflow.Dockerfile"


@dataclass(frozen=True)
class Container:
    """One container as the engine and its own kernel describe it."""

    service: str
    identity: str
    pid: int
    user: str
    """Account of its first process, as the kernel has it."""
    capabilities: int
    """What that process may do beyond other accounts."""
    read_only: bool
    restarts: int
    health: str


class Platform:
    """The Compose project.

    Args:
        docker: The engine.
        folder: Where its environment file is.
    """

    def __init__(self, docker: Docker, folder: Path) -> None:
        self.docker, self.env_file = docker, folder / "compose.env"
        self.environment = write_environment(self.env_file)

    def compose(self, *words: str, check: bool = True, show: bool = False) -> str:
        """Run Docker Compose on the project, every profile."""
        project = ("--project-name", PROJECT, "--env-file", str(self.env_file), "--profile", "*")
        return self.docker("compose", *project, *words, check=check, show=show)

    def inside(self, service: str, *command: str, show: bool = False) -> str:
        """Run a command in a service's container."""
        return self.compose("exec", "--no-TTY", service, *command, show=show)

    def outside(self, *command: str) -> str:
        """Run one of this repository's commands on this machine, told where the published ports are.

        Raises:
            EngineError: It failed; with what it said.
        """
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise EngineError(f"{' '.join(command)}: {(done.stdout + done.stderr).strip()[-1500:]}")
        return done.stdout.strip()

    def containers(self) -> list[Container]:
        """Every running container."""
        identities = self.compose("ps", "--quiet").split()
        described = json.loads(self.docker("inspect", *identities))
        return sorted((self._container(one) for one in described), key=lambda one: one.service)

    def _container(self, one: dict[str, Any]) -> Container:
        status = self.docker("exec", one["Id"], "cat", "/proc/1/status")
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return Container(
            service=one["Config"]["Labels"]["com.docker.compose.service"],
            identity=one["Id"],
            pid=one["State"]["Pid"],
            user=fields["Uid"].split()[0],
            capabilities=int(fields["CapEff"], 16),
            read_only=one["HostConfig"]["ReadonlyRootfs"],
            restarts=one["RestartCount"],
            health=one["State"].get("Health", {}).get("Status", ""),
        )


def write_environment(file: Path) -> dict[str, str]:
    """What the project is told: passwords of its own, and ports of its own.

    Returns:
        The same, with what tools outside the containers are told beside.
    """
    offset = int(os.environ.get("PORT_OFFSET", PORT_OFFSET))
    settings = dict(
        line.split("=", 1) for line in STACK_ENV.read_text().splitlines() if line and not line.startswith("#")
    )
    ports = {name: int(value) + offset for name, value in settings.items() if name.endswith("_PORT")}
    file.write_text("".join(f"{name}={port}\n" for name, port in ports.items()))
    complete(file, demanded(COMPOSE_FILE.read_text()), {})
    own = dict(line.split("=", 1) for line in file.read_text().splitlines())
    # Ports have the offset already.
    return own | {"PORT_OFFSET": "0", "TALLYHOUSE_LOCAL": str(file.parent / "local")}


@contextmanager
def said(what: str) -> Iterator[None]:
    """Say what is done and how long it took."""
    started = time.monotonic()
    console.print(f"[dim]… {what}[/]")
    yield
    console.print(f"[green]✓[/] {what} [dim]{time.monotonic() - started:.0f} s[/]")


# -- images ----------------------------------------------------------------------------------------


def prepare_images(images: Images, private: Private | None, services: list[str]) -> None:
    """Pull, or stand in for, what others make; build what this repository makes.

    Args:
        images: Of the engine.
        private: The engine, if it is our own.
        services: Of docker-compose.yaml, those whose images are needed; none for all.

    Raises:
        EngineError: An image is lacking.
    """
    own, others = needed(services)
    lacking = images.bring(others)
    if lacking and private is None:
        raise EngineError(
            f"this engine cannot pull {', '.join(lacking)}: let it reach a registry, or stop it and run this "
            "as root, for an engine of its own with stand-ins"
        )
    late = [name for name in lacking if "clickhouse" in name]  # made of our own image of Airflow
    if late and AIRFLOW not in own:
        own.insert(0, AIRFLOW)
    _stand_in(images, private, [name for name in lacking if name not in late])
    for file in own:
        with said(f"image {image_name(file)}, {file.relative_to(ROOT)} unchanged"):
            images.build(file, image_name(file))
    _stand_in(images, private, late)
    base = next(name for name in foreign() if name.startswith("python:"))
    console.print(f"\n{'image':28}{'MB':>7}{'ours':>7}  (base {images.size(base) / 1e6:.0f} MB)")
    for file in own:
        size = images.size(image_name(file))
        console.print(f"{image_name(file):28}{size / 1e6:7.0f}{(size - images.size(base)) / 1e6:7.0f}")
    if images.stand_ins:
        console.print(f"\nstand-ins: {', '.join(name.partition('@')[0] for name in images.stand_ins)}\n")


def _stand_in(images: Images, private: Private | None, names: list[str]) -> None:
    """Build stand-ins, each under its original's name and digest."""
    for name in names:
        with said(f"stand-in for {name.partition('@')[0]}"):
            images.stand_in_for(name)
    if private and names:
        images.alias(private)


def needed(services: list[str]) -> tuple[list[Path], list[str]]:
    """Which images some services need, with those that they wait for.

    Args:
        services: Their names; none for every image there is.

    Returns:
        Dockerfiles of this repository, and images of others.
    """
    every = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    wanted, found = list(services), set[str]()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += every[name].get("depends_on", ())
    named = {every[name]["image"] for name in found}
    own = [file for file in dockerfiles() if not services or image_name(file) in named]
    return own, sorted(bases(own) | (named & set(foreign()))) if services else foreign()


# -- what is checked -------------------------------------------------------------------------------


def confinement(platform: Platform) -> None:
    """Nobody runs as root with root's rights; nobody can change the system he runs on.

    Raises:
        EngineError: Naming each service that can.
    """
    found = platform.containers()
    console.print(f"{'service':24}{'account':>8}  {'capabilities':14}{'root file system':18}{'health'}")
    for one in found:
        console.print(
            f"{one.service:24}{one.user:>8}  {one.capabilities or 'none':<14}"
            f"{'read only' if one.read_only else 'WRITABLE':18}{one.health or '-'}"
        )
    used = platform.docker("stats", "--no-stream", "--format", "{{.MemUsage}}")
    console.print(f"memory in all: {sum(map(gigabytes, used.splitlines())):.1f} GB")
    wrong = [one.service for one in found if one.capabilities or not one.read_only]
    wrong += [one.service for one in found if one.user == "0" and one.service != "minio"]
    unhealthy = [one.service for one in found if one.health not in ("healthy", "")]
    if wrong or unhealthy:
        raise EngineError(f"not confined: {wrong}; not healthy: {unhealthy}")
    for one in found:
        done = platform.docker("exec", one.identity, "sh", "-c", "touch /probe 2>&1 || true")
        if "ead-only" not in done:
            raise EngineError(f"{one.service}: could write to its root file system: {done}")


UNITS = {"B": 1e-9, "kB": 1e-6, "KiB": 2**10 / 1e9, "MiB": 2**20 / 1e9, "GiB": 2**30 / 1e9}


def gigabytes(usage: str) -> float:
    """Of `54.2MiB / 512MiB`, what is used."""
    found = re.match(r"([\d.]+)\s*([A-Za-z]+)", usage)
    if found is None:
        raise EngineError(f"docker stats says {usage!r}")
    return float(found[1]) * UNITS[found[2]]


def recovers(platform: Platform, service: str) -> None:
    """Kill a service's first process; the engine has to start it anew, and it has to be healthy again.

    Raises:
        EngineError: It is not.
    """
    before = next(one for one in platform.containers() if one.service == service)
    if platform.docker.private:
        os.kill(before.pid, signal.SIGKILL)
    else:  # its processes may be another machine's
        platform.inside(service, "sh", "-c", "kill -TERM 1")
    deadline = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < deadline:
        state = json.loads(platform.docker("inspect", before.identity))[0]
        if state["RestartCount"] > before.restarts and state["State"]["Health"]["Status"] == "healthy":
            return
        time.sleep(1)
    raise EngineError(f"{service}: not healthy {RECOVERY_SECONDS} s after it was killed")


EVENTS = {"ingest", "ingest-relay", "consumer"}
"""What an event passes through, with what they wait for."""
ENTRYPOINT = "/opt/tallyhouse/infrastructure/docker/entrypoint.sh"


def runs(platform: Platform, scale: str) -> None:
    """One TechMarket run, started and watched through Airflow, with its ledger closed."""
    python = sys.executable
    with said(f"data, SCALE={scale}"):
        platform.outside(python, "-m", "techmarket", "data", "--scale", scale)
    with said("a run of techmarket_nightly"):
        command = (ENTRYPOINT, "python", "-m", "scripts.stack", "run", "techmarket_nightly")
        platform.inside("airflow-scheduler", *command, show=True)
    ledger = platform.inside(
        "airflow-scheduler", ENTRYPOINT, "python", "-m", "tallyhouse.ledger", "print", "--last", "1"
    )
    console.print(ledger.splitlines()[-1], markup=False)
    if "0 unexplained" not in ledger:
        raise EngineError(f"the ledger is not closed:\n{ledger[-1500:]}")


def follow_an_event(platform: Platform) -> None:
    """Send an event from outside and find it in ClickHouse, as `make ingest` does."""
    with said("an event followed: tools/ingest_test.py"):
        console.print(platform.outside(sys.executable, "tools/ingest_test.py"), markup=False)


def events(platform: Platform) -> None:
    """The smoke test, and the events' run."""
    with said("ci/smoke_test.py"):
        console.print(platform.outside(sys.executable, "ci/smoke_test.py"), markup=False)
    with said("run-etl: airflow dags test events_curated"):
        done = platform.inside("airflow-scheduler", ENTRYPOINT, "airflow", "dags", "test", "events_curated")
        console.print("\n".join(line for line in done.splitlines() if "ledger" in line)[-600:], markup=False)


def verify(
    docker: Docker, private: Private | None, stack: Stack, folder: Path, options: argparse.Namespace
) -> None:
    """All of it, or some services by themselves, and down again.

    Raises:
        EngineError: What failed.
    """
    services: list[str] = options.services
    prepare_images(Images(docker, stack), private, services)
    platform = Platform(docker, folder)
    platform.compose("down", "--volumes", check=False)  # left by one that was killed
    try:
        with said("up, every health check waited for"):
            patience = ("--wait", "--wait-timeout", str(UP_SECONDS))
            platform.compose("up", "--detach", "--no-build", *patience, *services)
        confinement(platform)
        if not services:
            runs(platform, options.scale)
        if not services or set(services) >= EVENTS:
            follow_an_event(platform)
        if not services:
            events(platform)
        for service in services or ("redpanda", "postgres"):
            with said(f"{service} killed, and healthy again"):
                recovers(platform, service)
        if not services or set(services) >= EVENTS:
            follow_an_event(platform)
    except EngineError:
        console.print(platform.compose("ps", "--all", check=False), markup=False)
        log = stack.logs / "compose.log"
        log.write_text(platform.compose("logs", "--no-color", check=False))
        console.print(f"what every container said: {log}")
        raise
    finally:
        with said("down, with its volumes"):
            platform.compose("down", "--volumes", "--timeout", "20", check=False)


def main() -> int:
    """Run it; what a person has to fix is said without a traceback."""
    parser = argparse.ArgumentParser(prog="compose-verify", description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="keep the images for the next time")
    parser.add_argument("--scale", default="0.02", help="of the data (%(default)s)")
    parser.add_argument("services", nargs="*", metavar="service", help="only these, with what they need")
    args = parser.parse_args()
    # Either ends it in order, also where a shell in the background has it ignore them.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    stack = Stack()
    stack.make_folders()
    folder = stack.cache / "verify"
    try:
        with engine(stack.cache, folder, keep=args.keep) as (docker, private):
            verify(docker, private, stack, folder, args)
        console.print("[green]compose-verify: all of it holds[/]")
    except (EngineError, StackError) as error:
        console.print(f"✗ {error}", style="red", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
