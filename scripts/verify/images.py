"""Images: pulled where a registry answers, else made here and put under the name they are asked for by."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from scripts.stack import debian
from scripts.stack.context import Stack, console
from scripts.verify.engine import Docker, EngineError, Private
from tallyhouse.settings import ROOT

STAND_INS = ROOT / "infrastructure/docker/stand-ins"
BASES = {"debian:bookworm-slim": "bookworm", "debian:sid-slim": "sid"}
"""Debian's minimal systems that stand-ins are built on, by their suite."""
DOCKERFILES = ("infrastructure/docker/*.Dockerfile", "services/*/Dockerfile", "jobs/*/Dockerfile")
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
NOT_RUN = re.compile(
    r"(^|/)(__pycache__|test|tests|idlelib|tkinter|turtledemo|site-packages|config-3[^/]*)(/|$)|\.a$"
)
"""What of a Python's folder an image has no use for."""


def dockerfiles() -> list[Path]:
    """Every Dockerfile whose image is this repository's own product."""
    return sorted(file for pattern in DOCKERFILES for file in ROOT.glob(pattern))


def image_name(dockerfile: Path) -> str:
    """The name that docker-compose.yaml and the charts have for what a Dockerfile builds."""
    own = dockerfile.parent.name if dockerfile.name == "Dockerfile" else dockerfile.stem
    return f"tallyhouse-{own.replace('_', '-')}"


def bases(files: Iterable[Path]) -> set[str]:
    """What Dockerfiles build upon."""
    return {
        found for file in files for found in re.findall(r"^FROM (\S+:\S+)", file.read_text(), re.MULTILINE)
    }


def foreign() -> list[str]:
    """What the Dockerfiles and docker-compose.yaml ask for by name and do not build."""
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"].values()
    return sorted(bases(dockerfiles()) | {service["image"] for service in services if "build" not in service})


def repository(reference: str) -> str:
    """`mysql` of `mysql:8.4.6@sha256:…`."""
    return reference.partition("@")[0].rpartition(":")[0]


def stand_in(reference: str) -> Path:
    """The Dockerfile of what stands in for an image.

    Raises:
        EngineError: There is none.
    """
    file = STAND_INS / f"{repository(reference).rpartition('/')[2]}.Dockerfile"
    if not file.exists():
        raise EngineError(f"{reference}: cannot be pulled, and {file.relative_to(ROOT)} is not there")
    return file


class Images:
    """The images of one engine.

    Args:
        docker: The engine.
        stack: Whose cache has the servers that stand-ins are made of.
    """

    def __init__(self, docker: Docker, stack: Stack) -> None:
        self.docker, self.stack = docker, stack
        self.stand_ins: list[str] = []
        self._contexts: dict[str, Callable[[Path], object]] = {
            "python": self._python,
            "postgres": lambda into: shutil.copytree(stack.postgres, into / "server", symlinks=True),
            "minio": lambda into: shutil.copy2(stack.minio, into),
            "redpanda": lambda into: shutil.copytree(stack.kafka_jars, into / "jars"),
        }

    def bring(self, references: Iterable[str]) -> list[str]:
        """Pull images.

        Returns:
            Those that cannot be pulled, and are not there.
        """
        lacking = [name for name in references if not self._there(name)]
        for number, name in enumerate(lacking):
            try:
                self.docker("pull", "--quiet", name)
            except EngineError:
                if number == 0 and not self.docker("pull", "--quiet", "hello-world", check=False):
                    return lacking  # no registry answers
        return [name for name in lacking if not self._there(name)]

    def stand_in_for(self, reference: str) -> None:
        """Build a stand-in under the tag of its original; `alias` gives it the digest."""
        for base in re.findall(r"^FROM (debian:\S+)", stand_in(reference).read_text(), re.MULTILINE):
            if not self._there(base):
                self._base(base)
        with tempfile.TemporaryDirectory(dir=self.stack.cache) as folder:
            context = Path(folder)
            for file in STAND_INS.glob("*.sh"):
                shutil.copy2(file, context)
            name = stand_in(reference).stem
            if name in self._contexts:
                self._contexts[name](context)
            self.build(stand_in(reference), reference.partition("@")[0], context)
        self.stand_ins.append(reference)

    def build(self, dockerfile: Path, name: str, context: Path = ROOT) -> None:
        """Build an image, with what the builder says in a log.

        Raises:
            EngineError: It does not build; the message has the end of what the builder said.
        """
        log = self.stack.logs / f"image-{name.replace('/', '-').partition(':')[0]}.log"
        with log.open("w") as sink:
            done = subprocess.run(
                ["docker", "build", "--tag", name, "--file", str(dockerfile), str(context)],
                env=self.docker.environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            said = log.read_text(errors="replace").strip()[-1500:]
            raise EngineError(f"{dockerfile}: does not build; all of it in {log}\n{said}")

    def alias(self, private: Private) -> None:
        """Give each stand-in the digest that its original is pinned by.

        The engine keeps a table of names; no command of it writes a digest that no registry gave. So the
        private engine is halted, its table written, and started again.
        """
        private.halt()
        table = private.data / "docker/image/overlay2/repositories.json"
        names = json.loads(table.read_text())
        for reference in foreign():
            tagged, _, digest = reference.partition("@")
            found = names["Repositories"].get(repository(reference), {})
            if digest and tagged in found:
                found[f"{repository(reference)}@{digest}"] = found[tagged]
        table.write_text(json.dumps(names))
        private.start()

    def size(self, name: str) -> int:
        """Bytes of an image, its bases included."""
        return int(self.docker("image", "inspect", "--format", "{{.Size}}", name))

    def _there(self, name: str) -> bool:
        return bool(self.docker("image", "inspect", "--format", "{{.Id}}", name, check=False))

    def _base(self, name: str) -> None:
        """Import Debian's minimal system, made by debootstrap once and kept in the cache."""
        archive = self.stack.cache / f"debian-{BASES[name]}.tar"
        if not archive.exists():
            console.print(f"  [dim]{name}: debootstrap[/]")
            with tempfile.TemporaryDirectory(prefix=".debian-", dir=self.stack.cache) as folder:
                root, made = Path(folder) / "root", Path(folder) / "made.tar"
                debootstrap(BASES[name], root, Path(folder) / "tools")
                subprocess.run(
                    [
                        "tar",
                        "--create",
                        "--one-file-system",
                        "--numeric-owner",
                        "--file",
                        made,
                        "-C",
                        root,
                        ".",
                    ],
                    check=True,
                )
                made.rename(archive)
        self.docker("import", "--change", 'CMD ["bash"]', str(archive), name)

    @staticmethod
    def _python(into: Path) -> None:
        """The Python that runs this, without what a program has no use for."""
        home = Path(sys.base_prefix)
        with tarfile.open(into / "python.tar", "w") as archive:
            for path in [*home.glob("bin/python3*"), *home.glob("lib/libpython3*"), home / "lib/python3.12"]:
                archive.add(
                    path,
                    str(path.relative_to(home)),
                    filter=lambda entry: None if NOT_RUN.search(entry.name) else entry,
                )


def debootstrap(suite: str, root: Path, tools: Path) -> None:
    """Debian's minimal system in a folder, which trusts the authorities that this machine trusts.

    Raises:
        EngineError: It cannot be made.
    """
    try:
        apt = debian.Apt(suite, tools / "apt")
        debian.unpack(apt.download_alone("debootstrap"), tools)
    except OSError as error:
        raise EngineError(f"debootstrap: {error}") from error
    mirror = debian.mirror()
    # As Debian's own images have it: what is interrupted is made anew.
    settings = root / "etc/dpkg/dpkg.cfg.d"
    settings.mkdir(parents=True)
    (settings / "unsafe-io").write_text("force-unsafe-io\n")
    settings = root / "etc/apt/apt.conf.d"
    settings.mkdir(parents=True)
    (settings / "no-languages").write_text('Acquire::Languages "none";\n')
    (settings / "as-the-machine").write_text(_validity())
    variant = ["--variant=minbase", "--include=ca-certificates"]
    done = subprocess.run(
        # What it mounts in the folder goes with it, whatever happens.
        ["unshare", "--mount", "sh", str(tools / "usr/sbin/debootstrap"), *variant, suite, str(root), mirror],
        env={
            "PATH": PATH,
            "DEBOOTSTRAP_DIR": str(tools / "usr/share/debootstrap"),
            "LC_ALL": "C",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise EngineError(f"debootstrap {suite}: {(done.stdout + done.stderr).strip()[-600:]}")
    known = "".join(file.read_text() for file in root.glob("usr/share/ca-certificates/**/*.crt"))
    certificates = re.findall(
        r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", BUNDLE.read_text(), re.DOTALL
    )
    for number, certificate in enumerate(certificates):
        if certificate not in known:
            (root / f"usr/local/share/ca-certificates/machine-{number}.crt").write_text(certificate)
    chroot = ["chroot", str(root), "sh", "-c"]
    tidy = "update-ca-certificates >/dev/null 2>&1; apt-get clean; rm -rf /var/lib/apt/lists/* /var/log/*.log"
    subprocess.run([*chroot, tidy], env={"PATH": PATH}, check=True)


def _validity() -> str:
    """Whether apt takes a mirror that is behind, as this machine's apt does."""
    command = ["apt-config", "dump", "Acquire::Check-Valid-Until"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
