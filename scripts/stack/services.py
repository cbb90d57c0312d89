"""The services of the stack: how each is made, started, and known to be ready."""

import shlex
import sys
from pathlib import Path
from urllib.parse import quote

from psycopg import sql

from scripts.stack import readiness
from scripts.stack.accounts import account, of_service
from scripts.stack.context import MYSQL_STORES, Stack, write_private
from scripts.stack.events import event_services
from scripts.stack.service import HOST, Service, make_data, run_logged
from scripts.stack.stores import store_server
from scripts.stack.watch import watchers
from tallyhouse.settings import Settings


def services(stack: Stack) -> list[Service]:
    """Every service of the stack, in the order it is shown."""
    s = stack.settings
    python = shlex.quote(sys.executable)
    airflow = shlex.quote(str(Path(sys.executable).parent / "airflow"))

    found = [store_server(stack, store) for store in MYSQL_STORES]
    found += [
        postgres(stack),
        Service(
            "minio",
            shlex.join(
                [
                    *(str(stack.minio), "server", "--quiet"),
                    *("--address", f"{s.minio_host}:{s.minio_port}"),
                    *(
                        "--console-address",
                        f"{s.minio_host}:{s.minio_console_port}",
                        str(stack.data / "minio"),
                    ),
                ]
            ),
            {"MINIO_PORT": s.minio_port, "MINIO_CONSOLE_PORT": s.minio_console_port},
            ready=lambda: readiness.http(f"{s.minio_url}/minio/health/ready"),
            account="minio",
            told=("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
            owns=(stack.data / "minio",),
            # Its metrics to whoever reaches it, which is this machine. Its scanner, which nothing here waits
            # for, takes an eighth of a processor at a million objects unless it is told to take its time.
            environment={"MINIO_PROMETHEUS_AUTH_TYPE": "public", "MINIO_SCANNER_SPEED": "slowest"},
            url=f"http://{s.minio_host}:{s.minio_console_port}",
        ),
        Service(
            "clickhouse",
            f"{python} -m services.embedded_clickhouse --path {shlex.quote(str(stack.data / 'clickhouse'))} "
            f"--host {s.clickhouse_host} --port {s.clickhouse_http_port} --user {s.clickhouse_user} "
            f"--lake {s.minio_url}",
            {"CLICKHOUSE_HTTP_PORT": s.clickhouse_http_port},
            ready=lambda: readiness.http(f"http://{s.clickhouse_host}:{s.clickhouse_http_port}/ping"),
            account="clickhouse",
            told=("CLICKHOUSE_PASSWORD", "PYTHONPATH"),
            owns=(stack.data / "clickhouse",),
            url=f"http://{s.clickhouse_host}:{s.clickhouse_http_port}",
        ),
        Service(
            "data-docs",
            f"{python} -m services.data_docs",
            {"DATA_DOCS_PORT": s.data_docs_port},
            ready=lambda: readiness.http(f"{s.data_docs_url}/health"),
            account="data-docs",
            url=s.data_docs_url,
        ),
        Service(
            "pipeline-info",
            f"{python} -m services.pipeline_info --host {s.pipeline_info_host} --port {s.pipeline_info_port}",
            {"PIPELINE_INFO_PORT": s.pipeline_info_port},
            ready=lambda: readiness.http(f"{s.pipeline_info_url}/health"),
            after=("databases",),
            account=of_service("pipeline-info"),
            url=s.pipeline_info_url,
        ),
    ]

    def part(name: str, command: str, **more: object) -> Service:
        return Service(
            f"airflow-{name}",
            f"{airflow} {command}",
            ready=more.pop("ready", None) or (lambda: readiness.airflow_part(s, name.replace("-", "_"))),  # type: ignore[arg-type]
            after=("airflow-db",),
            stop_group=True,
            start_seconds=180,
            **more,  # type: ignore[arg-type]
        )

    found += [
        part(
            "api-server",
            "api-server",
            ports={"AIRFLOW_PORT": s.airflow_port},
            ready=lambda: readiness.http(f"{s.airflow_url}/api/v2/version"),
            url=s.airflow_url,
        ),
        # Logs are read from the folder they share; the log servers would listen on every address.
        part("scheduler", "scheduler --skip-serve-logs"),
        part("dag-processor", "dag-processor"),
        part("triggerer", "triggerer --skip-serve-logs"),
    ]
    return [*found, *event_services(stack), pancake(stack), kaggle_data_api(stack), *watchers(stack)]


# -- the pancake shop -----------------------------------------------------------------------------


def pancake(stack: Stack) -> Service:
    """The pancake application, told of its database by the names that its document has."""
    s = stack.settings
    environment = {
        "DB_HOST": s.pancake_db_host,
        "DB_PORT": str(s.pancake_db_port),
        "DB_NAME": s.pancake_db,
        "DB_USER": s.pancake_user,
        "DB_PASSWORD": s.pancake_password,
    }
    migrate = [sys.executable, "-m", "services.pancake.migrate"]
    return Service(
        "pancake",
        f"{shlex.quote(sys.executable)} -m services.pancake --host {s.pancake_host} --port {s.pancake_port}",
        {"PANCAKE_PORT": s.pancake_port},
        ready=lambda: readiness.http(f"{s.pancake_url}/ready"),
        prepare=lambda: run_logged(stack, "pancake-migrations", migrate, environment),
        environment=environment,
        after=("databases",),
        account=of_service("pancake"),
        url=s.pancake_url,
        group="apps",
    )


# -- the Kaggle data API --------------------------------------------------------------------------


def kaggle_data_api(stack: Stack) -> Service:
    """The catalogue of Kaggle datasets, told of its database by the name that its document has."""
    s = stack.settings
    environment = {"DATABASE_URL": kaggle_data_address(s)}
    migrate = [sys.executable, "-m", "services.kaggle_data_api.migrate", "up"]
    python, address = shlex.quote(sys.executable), f"--host {s.kaggle_data_host} --port {s.kaggle_data_port}"
    return Service(
        "kaggle-data-api",
        f"{python} -m services.kaggle_data_api {address}",
        {"KAGGLE_DATA_PORT": s.kaggle_data_port},
        ready=lambda: readiness.http(f"{s.kaggle_data_url}/ready"),
        prepare=lambda: run_logged(stack, "kaggle-data-migrations", migrate, environment),
        environment=environment,
        after=("databases",),
        account=of_service("kaggle-data-api"),
        url=s.kaggle_data_url,
        group="apps",
    )


def kaggle_data_address(settings: Settings) -> str:
    """The address of the Kaggle data API's database, password and all."""
    s = settings
    login = f"{quote(s.kaggle_data_user)}:{quote(s.kaggle_data_password)}"
    return f"postgresql://{login}@{s.postgres_host}:{s.postgres_port}/{s.kaggle_data_db}"


# -- PostgreSQL -----------------------------------------------------------------------------------


def postgres(stack: Stack) -> Service:
    """The warehouse, the pancake shop and Airflow's metadata, in one server."""
    s = stack.settings
    data = stack.data / "postgres"

    def initdb(fresh: Path) -> None:
        password = stack.run / "postgres.initial"
        write_private(password, s.postgres_password, account(stack, "postgres"))
        run_logged(
            stack,
            "postgres-init",
            [
                *(str(stack.postgres / "bin/initdb"), "-D", str(fresh), "-U", s.postgres_user),
                *("--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", "--auth=scram-sha-256"),
                *(f"--pwfile={password}", "--no-sync", "--no-instructions"),
            ],
            account="postgres",
        )
        password.unlink()

    def prepare() -> None:
        if not data.exists():
            make_data(stack, "postgres", data, initdb)
        elif readiness.port_free(HOST, s.postgres_port):  # it does not run
            set_superuser_password()

    def set_superuser_password() -> None:
        """Nobody else could change it in data made with another one: the server by itself, without a port."""
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(
            sql.Identifier(s.postgres_user), sql.Literal(s.postgres_password)
        )
        command = [str(stack.postgres / "bin/postgres"), "--single", "-D", str(data), "postgres"]
        run_logged(stack, "postgres-password", command, said=statement.as_string() + "\n", account="postgres")

    options = {
        "listen_addresses": HOST,
        "port": s.postgres_port,
        "unix_socket_directories": "",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "max_connections": 120,
        "shared_buffers": "512MB",
        "maintenance_work_mem": "256MB",
        "max_wal_size": "4GB",
        # Nothing replicates it: what a transaction itself makes (the indexes of a first load) needs no log.
        "wal_level": "minimal",
        "max_wal_senders": 0,
        # Applications that commit in two phases need some; the pancake store is a source like any other.
        "max_prepared_transactions": 8,
        "log_min_messages": "warning",
    }
    return Service(
        "postgres",
        shlex.join(
            [
                *(str(stack.postgres / "bin/postgres"), "-D", str(data)),
                *(part for key, value in options.items() for part in ("-c", f"{key}={value}")),
            ]
        ),
        {"POSTGRES_PORT": s.postgres_port},
        ready=lambda: readiness.postgres(s),
        prepare=prepare,
        url=f"{HOST}:{s.postgres_port}",
        account="postgres",
        told=(),
        owns=(data,),
        stop_signal="INT",  # fast: ends sessions instead of waiting for them
    )
