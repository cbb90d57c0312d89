"""Where this checkout's stack lives, and the environment everything in it runs with."""

import base64
import fcntl
import hashlib
import json
import os
import secrets
import shlex
import shutil
import stat
import string
import sys
import tempfile
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from dotenv import dotenv_values
from psycopg.conninfo import make_conninfo
from rich.console import Console

from tallyhouse.settings import (
    DOT_ENV,
    ROOT,
    LocalFolder,
    Settings,
    load_settings,
    remembered_tools,
)

console = Console(highlight=False)

MARIADB_VERSION = "11.4.5"
MYSQL_SERIES = "9.7"
POSTGRES_VERSION = "17.5.0"
MINIO_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"  # of 12 February 2026, the last before its archiving

MYSQL_STORES = ("auth", "catalog", "orders", "payments")

SIMPLE_AUTH = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager"

# Longest path that fits a Unix socket's address, less room for MariaDB's temporary suffix.
SPARK_LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{yy/MM/dd HH:mm:ss} %p %c{1}: %m%n%ex
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
"""

SOCKET_LIMIT = 100


class StackError(Exception):
    """Something the person at the keyboard has to fix; the message is one line and says how."""


def digest_of(*files: Path) -> str:
    """A short name for the content of some files, used to key what is made from them."""
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]


def open_log(path: Path) -> BinaryIO:
    """A log, empty, that only its owner may read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(handle, 0o600)
    return os.fdopen(handle, "wb")


def write_private(path: Path, text: str, owner: int = 0) -> None:
    """Write a file that holds secrets: for its owner alone, and never half.

    Args:
        path: where.
        text: what.
        owner: a server's account whose file it is, if it is not that of who runs this.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name that nobody can foresee and a file that was not there: the folder may be a server account's.
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "w") as sink:
        if os.geteuid() == 0 and owner:
            os.fchown(handle, owner, owner)
        sink.write(text)
    Path(aside).replace(path)


def shut(folder: Path) -> None:
    """Take from everybody but its owner what a folder holds."""
    for where, _, files in os.walk(folder):
        for path in (Path(where), *(Path(where, name) for name in files)):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode) and mode & 0o077:
                path.chmod(stat.S_IMODE(mode) & 0o700)


def make_secrets(path: Path) -> dict[str, str]:
    """The secrets of a checkout: those in the file, and new ones for all that it lacks.

    Args:
        path: the file; made if it is not there.

    Returns:
        Each secret by its name: keys, the passwords of web UIs and every server's passwords. In a cluster,
        where each pod makes its configuration for itself (TALLYHOUSE_RENDER), those in the environment win.
    """
    made = {
        "FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "JWT_SECRET": secrets.token_hex(32),
        "API_SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW_ADMIN_PASSWORD": secrets.token_urlsafe(12),
        "SUPERSET_SECRET_KEY": secrets.token_urlsafe(42),
        "SUPERSET_ADMIN_PASSWORD": secrets.token_urlsafe(12),
        "GRAFANA_ADMIN_PASSWORD": secrets.token_urlsafe(12),
        # Hexadecimal: these also stand in addresses and connection strings.
        **{name: secrets.token_hex(16) for name in Settings.generated()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path.with_name(".secrets.lock"), os.O_CREAT | os.O_RDWR, 0o600)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two first commands at once agree
        kept = dict(json.loads(path.read_text())) if path.exists() else {}
        if not made.keys() <= kept.keys():  # made by an older version, or not at all
            write_private(path, json.dumps(made | kept, indent=2))
    in_cluster = bool(os.environ.get("TALLYHOUSE_RENDER"))
    return made | kept | {name: os.environ[name] for name in made if in_cluster and os.environ.get(name)}


class Stack:
    """Folders, generated secrets and environment of one checkout's stack."""

    def __init__(self, settings: Settings | None = None) -> None:
        if settings is None:
            make_secrets(LocalFolder().secrets_file)
        self.settings = settings or load_settings()
        self.root = ROOT
        self.local = self.settings.local
        self.cache = self.settings.cache
        self.data = self.local / "data"
        self.logs = self.local / "log"
        self.run = self.local / "run"
        self.airflow_home = self.local / "airflow"
        self.connections_file = self.local / "connections.yaml"

    # -- what set-up has put into the cache -------------------------------------------------------

    @property
    def mariadb(self) -> Path:
        """Base folder of the MariaDB server."""
        return self.cache / f"mariadb-{MARIADB_VERSION}"

    @property
    def mysql(self) -> Path:
        """Root of the packages of the MySQL server, which only STORES_ENGINE=mysql and the tests need."""
        return self.cache / f"mysql-{MYSQL_SERIES}"

    @property
    def postgres(self) -> Path:
        """Base folder of the PostgreSQL server."""
        return self.cache / f"postgres-{POSTGRES_VERSION}"

    @property
    def minio(self) -> Path:
        """The MinIO server's program."""
        return self.cache / f"minio-{MINIO_VERSION}" / "minio"

    @cached_property
    def spark_jars(self) -> Path:
        """Folder of Spark's jars and of those that it needs beside them; its class path begins with it."""
        jars = digest_of(self.root / "scripts/stack/maven/pom.xml")
        return self.cache / f"spark-{version('pyspark')}-jars-{jars}"

    @property
    def spark_classes(self) -> Path:
        """The archive of Spark's classes, ready to be mapped into a JVM: of these jars and of this Java."""
        java = self.java_home / "release" if self.java_home else None
        told = java.read_bytes() if java and java.exists() else b""
        name = hashlib.sha256(told).hexdigest()[:8]
        return self.spark_jars.with_name(f"{self.spark_jars.name}-classes-{name}") / "classes.jsa"

    @cached_property
    def kafka_jars(self) -> Path:
        """Folder of the Kafka broker's jars."""
        return self.cache / f"kafka-{digest_of(self.root / 'scripts/stack/maven/kafka.xml')}"

    @cached_property
    def dbml(self) -> Path:
        """Folder of @dbml/cli and what it depends on."""
        return self.cache / f"dbml-{digest_of(self.root / 'scripts/dbml/package-lock.json')}"

    # -- folders ----------------------------------------------------------------------------------

    def make_folders(self) -> None:
        """Make the folders of data, logs and generated configuration.

        Others may pass them, as the servers' accounts must, but read nothing: each file and each folder below
        belongs to one account alone.
        """
        for folder in (self.local, self.data, self.logs, self.run, self.airflow_home, self.sockets):
            folder.mkdir(parents=True, exist_ok=True)
        if self.local.stat().st_mode & 0o066:  # made by an older version, under another umask
            shut(self.local)
        above = [folder for folder in self.local.parents if self.root in folder.parents]
        for folder in (*above, self.local, self.data, self.logs, self.run):
            folder.chmod(0o711)

    @cached_property
    def sockets(self) -> Path:
        """Folder of Unix sockets: in the run folder, or in the temporary folder if that is too deep."""
        if len(str(self.run / "mysql_payments.sock")) <= SOCKET_LIMIT:
            return self.run
        name = hashlib.sha256(str(self.local).encode()).hexdigest()[:10]
        folder = Path(tempfile.gettempdir()) / f"tallyhouse-{os.getuid()}-{name}"
        folder.mkdir(mode=0o700, exist_ok=True)
        mine = folder.lstat()
        if not stat.S_ISDIR(mine.st_mode) or mine.st_uid != os.getuid():
            raise StackError(f"{folder}: belongs to somebody else; remove it, or clone into a shorter path")
        return folder

    # -- secrets, made once -----------------------------------------------------------------------

    @cached_property
    def secrets(self) -> dict[str, str]:
        """Keys and passwords, made at the first start and kept in the local folder."""
        return make_secrets(self.local / "secrets.json")

    # -- environment ------------------------------------------------------------------------------

    @cached_property
    def java_home(self) -> Path | None:
        """The Java that Spark runs on: JAVA_HOME, else the one of the last start, else the one on PATH."""
        for home in (os.environ.get("JAVA_HOME"), remembered_tools(self.local).get("java_home")):
            if home and (Path(home) / "bin/java").exists():
                return Path(home)
        found = shutil.which("java")
        return Path(found).resolve().parent.parent if found else None

    @property
    def spark_is_local(self) -> bool:
        """Whether Spark runs in the driver alone; a cluster's executors must be able to reach the driver."""
        return self.settings.spark_master.startswith("local")

    @cached_property
    def environment(self) -> dict[str, str]:
        """What every process of the stack runs with, beside what the machine gives."""
        s, secret = self.settings, self.secrets
        site_packages = Path(yaml.__file__).parents[1]
        env = s.environment() | {
            "TALLYHOUSE_LOCAL": str(self.local),
            "TALLYHOUSE_CACHE": str(self.cache),
            "TALLYHOUSE_SPARK_JARS": str(self.spark_jars),
            "TALLYHOUSE_SPARK_CLASSES": str(self.spark_classes),
            "AIRFLOW_ADMIN_PASSWORD": secret["AIRFLOW_ADMIN_PASSWORD"],
            # Beside the warehouse, in a schema of its own that the service makes and migrates itself.
            "PIPELINE_INFO_BACKEND": "postgres",
            "PIPELINE_INFO_DSN": make_conninfo(
                host=s.postgres_host,
                port=s.postgres_port,
                user=s.pipeline_info_db_user,
                password=s.pipeline_info_db_password,
                dbname=s.dwh_db,
            ),
            "PIPELINE_INFO_AIRFLOW_URL": s.airflow_url,
            "DATA_DOCS_URL": s.data_docs_url,
            "DBML2SQL": str(self.dbml / "node_modules/.bin/dbml2sql"),
            "PYTHONPATH": ":".join(
                str(self.root / part) for part in ("include", "plugins", ".")
            ).removesuffix("/."),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TZ": "UTC",
            "PYTHONUNBUFFERED": "1",
            # Nothing calls home.
            "DO_NOT_TRACK": "1",
            "SCARF_NO_ANALYTICS": "true",
            "GX_ANALYTICS_ENABLED": "false",
            # Spark.
            "SPARK_HOME": str(site_packages / "pyspark"),
            "SPARK_CONF_DIR": str(self.run / "spark"),
            "PYSPARK_PYTHON": sys.executable,
        }
        if self.spark_is_local:
            env["SPARK_LOCAL_IP"] = "127.0.0.1"
        if self.java_home:
            env["JAVA_HOME"] = str(self.java_home)
        return env | self._airflow()

    def _airflow(self) -> dict[str, str]:
        s, secret = self.settings, self.secrets
        metadata = (
            f"{s.airflow_db_user}:{s.airflow_db_password}@{s.postgres_host}:{s.postgres_port}/{s.airflow_db}"
        )
        values: dict[str, dict[str, Any]] = {
            "core": {
                "dags_folder": self.root / "dags",
                "plugins_folder": self.root / "plugins",
                "executor": "LocalExecutor",
                "parallelism": 4,  # a laptop, beside eight servers
                "load_examples": False,
                "fernet_key": secret["FERNET_KEY"],
                "auth_manager": f"{SIMPLE_AUTH}.SimpleAuthManager",
                "simple_auth_manager_users": f"{s.airflow_admin_user}:admin",
                "simple_auth_manager_passwords_file": self.airflow_home / "passwords.json",
                "execution_api_server_url": f"{s.airflow_url}/execution/",
                "min_serialized_dag_update_interval": 5,
                # On a busy laptop the 30 seconds that Airflow gives a file end in "Dag not found".
                "dagbag_import_timeout": 180,
            },
            "database": {
                "sql_alchemy_conn": f"postgresql+psycopg2://{metadata}",
                "sql_alchemy_conn_async": f"postgresql+asyncpg://{metadata}",
                "sql_alchemy_pool_size": 5,
            },
            "api": {
                "host": s.airflow_host,  # it listens on all addresses unless told
                "port": s.airflow_port,
                "base_url": s.airflow_url,
                "workers": 1,
                "secret_key": secret["API_SECRET_KEY"],
                "expose_config": False,
            },
            "api_auth": {"jwt_secret": secret["JWT_SECRET"]},
            "secrets": {
                "backend": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
                "backend_kwargs": json.dumps({"connections_file_path": str(self.connections_file)}),
            },
            "logging": {"base_log_folder": self.logs / "airflow"},
            # A developer who saves a DAG wants to see it now.
            "dag_processor": {
                "refresh_interval": 10,
                "min_file_process_interval": 30,
                "parsing_processes": 1,
            },
            # The scheduler's nap when it finds nothing to do stands between any two tasks.
            "scheduler": {"enable_health_check": False, "scheduler_idle_sleep_time": 0.25},
            "metrics": {"statsd_on": False},
            # A service that is down must not hold up the runs: one more try, then lineage waits for
            # the next run.
            "openlineage": {
                "namespace": "tallyhouse",
                "transport": json.dumps(
                    {
                        "type": "http",
                        "url": s.pipeline_info_url,
                        "endpoint": "api/v1/lineage",
                        "timeout": 5,
                        "retry": {"total": 1, "allowed_methods": ["POST"]},
                    }
                ),
                "disable_source_code": True,
            },
        }
        # The environment that lineage is of: the one that the runs are posted as.
        named = {"AIRFLOW_HOME": str(self.airflow_home), "OPENLINEAGE__TAGS__RUN__ENVIRONMENT": "dev"}
        for section, options in values.items():
            for option, value in options.items():
                named[f"AIRFLOW__{section}__{option}".upper()] = str(value)
        return named

    # -- generated configuration ------------------------------------------------------------------

    def render(self) -> None:
        """Write what is generated from the settings: connections, login, Spark's defaults, env.sh.

        For set-up and start alone. A command that asks something must not write: it may be run with
        another home or PATH than the servers that run.
        """
        self.make_folders()
        tools = {"cache": str(self.cache)} | ({"java_home": str(self.java_home)} if self.java_home else {})
        write_private(self.local / "tools.json", json.dumps(tools, indent=2))
        # What no setting of the stack is called, such as the password of a database that somebody added.
        values = {key: value for key, value in dotenv_values(DOT_ENV).items() if value is not None}
        values |= os.environ | self.environment
        write_private(
            self.connections_file, render_connections(self.root / "config/connections.yaml", values)
        )
        login = {self.settings.airflow_admin_user: self.secrets["AIRFLOW_ADMIN_PASSWORD"]}
        write_private(self.airflow_home / "passwords.json", json.dumps(login))
        (self.run / "spark").mkdir(exist_ok=True)
        defaults = {
            "spark.driver.extraClassPath": f"{self.spark_jars}/*",
            "spark.executor.extraClassPath": f"{self.spark_jars}/*",
            "spark.ui.enabled": "false",
            "spark.sql.session.timeZone": "UTC",
        }
        if self.spark_is_local:
            defaults |= {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
        (self.run / "spark" / "spark-defaults.conf").write_text(
            "".join(f"{k} {v}\n" for k, v in defaults.items())
        )
        # A task's log should show what the job says, not two hundred lines of a session that starts.
        (self.run / "spark" / "log4j2.properties").write_text(SPARK_LOGGING)
        write_private(self.run / "env.sh", self.script())

    def script(self) -> str:
        """The environment as shell commands."""
        exports = {k: v for k, v in self.environment.items() if k != "PATH"}
        lines = [f"export {key}={shlex.quote(value)}\n" for key, value in sorted(exports.items())]
        # Sourced in any shell: that shell's PATH stays, with ours in front.
        lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"\n')
        # By hand, too, `airflow dags test` keeps the scheduler away (scripts/airflow).
        lines.append(f'airflow() {{ {shlex.quote(str(self.root / "scripts" / "airflow"))} "$@"; }}\n')
        return "".join(lines)


def render_connections(template: Path, values: dict[str, str]) -> str:
    """Fill the ``${KEY}`` placeholders of the connections file.

    Each string is filled by itself, so that a value with YAML's signs in it stays one value.

    Args:
        template: the committed YAML file.
        values: the settings as environment variables.

    Raises:
        StackError: a placeholder that no setting fills.
    """

    def fill(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: fill(value) for key, value in node.items()}
        if isinstance(node, list):
            return [fill(value) for value in node]
        return string.Template(node).substitute(values) if isinstance(node, str) else node

    try:
        filled = fill(yaml.safe_load(template.read_text()))
    except KeyError as error:
        raise StackError(
            f"{template.name}: no setting is called {error.args[0]}; add it to config/stack.env, "
            "or, if it is a password, to .env"
        ) from error
    for connection in filled.values():
        if "port" in connection:
            connection["port"] = int(connection["port"])
    return yaml.safe_dump(filled, sort_keys=True)
