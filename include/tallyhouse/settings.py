"""Settings of the stack: ports, names and credentials, from one file and its overrides.

Read in this order, the later one winning: the passwords made for this checkout (``secrets.json`` in its
local folder), ``config/stack.env`` (committed defaults), ``.env`` (this checkout's overrides), the process
environment.
"""

import json
import os
from pathlib import Path
from typing import Any, Literal, Self

from dotenv import dotenv_values
from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

STACK_ENV = ROOT / "config" / "stack.env"
DOT_ENV = ROOT / ".env"
# The account of a server may not read it, and has been told all of it by its environment.
_FILES = (STACK_ENV, DOT_ENV) if os.access(DOT_ENV, os.R_OK) else (STACK_ENV,)


class SettingsError(ValueError):
    """A setting is missing or wrong; the message is one line and names it."""


def remembered_tools(local: Path) -> dict[str, str]:
    """Where the tools of a stack are, as its set-up or last start wrote it down.

    A command that is run as somebody else, with another home or another PATH, finds the same ones.

    Args:
        local: the stack's folder.

    Returns:
        ``cache`` and ``java_home``; empty before the first set-up.
    """
    try:
        return dict(json.loads((local / "tools.json").read_text()))
    except (FileNotFoundError, PermissionError):  # no set-up yet, or asked by a server's account
        return {}


class LocalFolder(BaseSettings):
    """The one setting that tells where the others' passwords are."""

    model_config = SettingsConfigDict(env_file=_FILES, env_file_encoding="utf-8", extra="ignore")

    tallyhouse_local: Path = Path(".local")
    """Folder of all data, logs and generated configuration; relative to the checkout."""

    @property
    def secrets_file(self) -> Path:
        """Where the checkout's generated secrets are."""
        return ROOT / self.tallyhouse_local / "secrets.json"


class TargetsSetting(BaseSettings):
    """The one setting that contracts read: it says which targets there are, for those that have no other."""

    model_config = SettingsConfigDict(env_file=_FILES, env_file_encoding="utf-8", extra="ignore")

    targets: str = ""
    """Names, with commas between them."""

    @property
    def names(self) -> tuple[str, ...]:
        """The targets, each once, in order."""
        return tuple(dict.fromkeys(name.strip() for name in self.targets.split(",") if name.strip()))


class LakeUpkeep(BaseSettings):
    """How long the lake keeps what; `maintain_lake` reads these alone."""

    model_config = SettingsConfigDict(env_file=_FILES, env_file_encoding="utf-8", extra="ignore")

    lake_raw_days: int = Field(ge=0)
    """Raw batches of a published run that a checkpoint holds; 0 keeps them for good."""
    lake_accepted_days: int = Field(ge=1)
    """Accepted rows of a published run."""
    lake_increment_days: int = Field(ge=1)
    """Increments of a published run that every target shows."""
    lake_failed_days: int = Field(ge=1)
    """Everything of a run that was never published and that a later one replaced."""
    lake_grace_hours: int = Field(ge=24)
    """Nothing younger goes; longer than any task may run."""
    lake_budget_gb: float = Field(ge=0)
    """What the lake may take, in 10^9 bytes; 0 is no budget."""


class GeneratedPasswords(PydanticBaseSettingsSource):
    """The passwords that the stack made for this checkout."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not asked: `__call__` gives all fields at once."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        """Every field whose name in upper case is in the file."""
        file = LocalFolder().secrets_file
        try:
            kept = json.loads(file.read_text())
        except (FileNotFoundError, PermissionError):  # none made yet, or another account's
            return {}
        return {
            name: kept[name.upper()]
            for name in self.settings_cls.model_fields
            if name.endswith("_password") and name.upper() in kept
        }


class Settings(LakeUpkeep, LocalFolder):
    """Where every server of the stack is, and who may enter it.

    Each field is the key of ``config/stack.env`` in lower case. ``port_offset`` has already been
    added to every port, and is 0 in what ``environment()`` returns, so that a child process that
    reads it back sees the same ports.
    """

    stores_engine: Literal["mariadb", "mysql"]
    """What the native stores run on."""
    mysql_auth_host: str
    mysql_auth_port: int
    mysql_auth_db: str
    mysql_auth_user: str
    mysql_auth_password: str
    mysql_catalog_host: str
    mysql_catalog_port: int
    mysql_catalog_db: str
    mysql_catalog_user: str
    mysql_catalog_password: str
    mysql_orders_host: str
    mysql_orders_port: int
    mysql_orders_db: str
    mysql_orders_user: str
    mysql_orders_password: str
    mysql_payments_host: str
    mysql_payments_port: int
    mysql_payments_db: str
    mysql_payments_user: str
    mysql_payments_password: str
    mysql_root_password: str

    etl_reader_user: str
    etl_reader_password: str

    postgres_host: str
    postgres_port: int
    postgres_user: str
    postgres_password: str
    dwh_db: str
    dwh_rebuild_db: str
    dwh_user: str
    dwh_password: str
    dwh_reader_user: str
    dwh_reader_password: str
    dwh_documented_user: str
    dwh_documented_password: str
    # The server of its own that it has in a cluster; PostgreSQL's if they are not set.
    pancake_db_host: str = ""
    pancake_db_port: int = 0
    pancake_db: str
    pancake_user: str
    pancake_password: str
    pancake_host: str
    pancake_port: int
    kaggle_data_db: str
    kaggle_data_user: str
    kaggle_data_password: str
    kaggle_data_host: str
    kaggle_data_port: int
    kaggle_api_token: str
    kaggle_endpoint: str
    kaggle_data_root: Path | None = None
    airflow_db: str
    airflow_db_user: str
    airflow_db_password: str

    minio_host: str
    minio_port: int
    minio_console_port: int
    minio_root_user: str
    minio_root_password: str
    lake_bucket: str
    lake_region: str

    targets: str
    duckdb_file: Path

    clickhouse_host: str
    clickhouse_http_port: int
    clickhouse_db: str
    clickhouse_user: str
    clickhouse_password: str

    kafka_host: str
    kafka_port: int
    kafka_controller_port: int
    kafka_topic: str
    ingest_host: str
    ingest_port: int
    ingest_relay_port: int
    ingest_db: str
    ingest_user: str
    ingest_password: str
    consumer_port: int
    events_bucket: str
    events_clickhouse_db: str

    spark_master: str
    gate_engine: str

    airflow_host: str
    airflow_port: int
    airflow_admin_user: str
    pipeline_info_host: str
    pipeline_info_port: int
    pipeline_info_db_user: str
    pipeline_info_db_password: str
    data_docs_host: str
    data_docs_port: int
    superset_host: str
    superset_port: int
    superset_db: str
    superset_db_user: str
    superset_db_password: str
    superset_admin_user: str

    run_metrics_host: str
    run_metrics_port: int
    prometheus_host: str
    prometheus_port: int
    prometheus_user: str
    prometheus_password: str

    port_offset: int = 0

    tallyhouse_cache: Path | None = None
    xdg_cache_home: Path | None = Field(default=None, exclude=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment and the files first, then what was made."""
        return init_settings, env_settings, dotenv_settings, GeneratedPasswords(settings_cls)

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        self.pancake_db_host = self.pancake_db_host or self.postgres_host
        self.pancake_db_port = self.pancake_db_port or self.postgres_port
        offset = self.port_offset
        for name in self.ports():
            port = getattr(self, name) + offset
            if not 1 <= port <= 65535:
                raise ValueError(f"{name.upper()}: {port} is not a port (1 to 65535)")
            setattr(self, name, port)
        self.port_offset = 0
        self.tallyhouse_local = ROOT / self.tallyhouse_local
        self.duckdb_file = self.tallyhouse_local / self.duckdb_file
        self.kaggle_data_root = ROOT / (self.kaggle_data_root or self.tallyhouse_local / "data" / "kaggle")
        if self.tallyhouse_cache is None:
            by_default = (self.xdg_cache_home or Path.home() / ".cache") / "tallyhouse"
            kept = Path(remembered_tools(self.tallyhouse_local).get("cache", ""))
            self.tallyhouse_cache = kept if kept.is_absolute() and kept.is_dir() else by_default
        self.tallyhouse_cache = ROOT / self.tallyhouse_cache
        return self

    @classmethod
    def ports(cls) -> list[str]:
        """Names of the fields that hold a port."""
        return [name for name in cls.model_fields if name.endswith("_port")]

    @classmethod
    def generated(cls) -> list[str]:
        """Names of the passwords that ``config/stack.env`` does not fix: made for each checkout."""
        fixed = dotenv_values(STACK_ENV)
        names = (name.upper() for name in cls.model_fields if name.endswith("_password"))
        return [name for name in names if name not in fixed]

    @property
    def local(self) -> Path:
        """Absolute folder of data, logs and generated configuration."""
        return self.tallyhouse_local

    @property
    def cache(self) -> Path:
        """Absolute folder of downloads and server binaries, shared by checkouts."""
        assert self.tallyhouse_cache is not None  # noqa: S101 - set by the validator
        return self.tallyhouse_cache

    @property
    def minio_url(self) -> str:
        """Endpoint of the lake's S3 server."""
        return f"http://{self.minio_host}:{self.minio_port}"

    @property
    def airflow_url(self) -> str:
        """Airflow's web UI and API."""
        return f"http://{self.airflow_host}:{self.airflow_port}"

    @property
    def pipeline_info_url(self) -> str:
        """The pipeline-info service."""
        return f"http://{self.pipeline_info_host}:{self.pipeline_info_port}"

    @property
    def kafka_bootstrap(self) -> str:
        """Address of the Kafka broker."""
        return f"{self.kafka_host}:{self.kafka_port}"

    @property
    def ingest_url(self) -> str:
        """The service that takes events in."""
        return f"http://{self.ingest_host}:{self.ingest_port}"

    @property
    def pancake_url(self) -> str:
        """The pancake application."""
        return f"http://{self.pancake_host}:{self.pancake_port}"

    @property
    def kaggle_data_url(self) -> str:
        """The Kaggle data API."""
        return f"http://{self.kaggle_data_host}:{self.kaggle_data_port}"

    @property
    def data_docs_url(self) -> str:
        """Great Expectations' Data Docs."""
        return f"http://{self.data_docs_host}:{self.data_docs_port}"

    @property
    def superset_url(self) -> str:
        """Superset's web UI and API."""
        return f"http://{self.superset_host}:{self.superset_port}"

    @property
    def prometheus_url(self) -> str:
        """Prometheus."""
        return f"http://{self.prometheus_host}:{self.prometheus_port}"

    def environment(self) -> dict[str, str]:
        """The settings as environment variables, for child processes and ``${KEY}`` templates."""
        return {name.upper(): str(value) for name, value in self.model_dump().items()}


def load_settings() -> Settings:
    """Read the settings.

    Returns:
        The settings, ports with their offset, folders absolute.

    Raises:
        SettingsError: in one line, naming every setting that is missing or wrong.
    """
    try:
        return Settings()  # type: ignore[call-arg]  # filled from files and environment
    except ValidationError as error:
        made = Settings.generated()
        missing = [
            str(e["loc"][0]).upper() for e in error.errors() if e["type"] == "missing" and len(e["loc"]) == 1
        ]
        if missing and set(missing) <= set(made) and len(missing) == error.error_count():
            raise SettingsError(
                f"settings: {', '.join(missing)}: not in {LocalFolder().secrets_file} yet; "
                "'make setup' makes every password of this checkout there"
            ) from error
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" if e["loc"] else e["msg"]
            for e in error.errors()
        )
        wrong = wrong.replace("Value error, ", "")
        where = f"{STACK_ENV.relative_to(ROOT)}, .env or the environment"
        raise SettingsError(f"settings: {wrong} (fix it in {where})") from error
