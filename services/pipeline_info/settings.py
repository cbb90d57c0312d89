"""Settings of the service, each from an environment variable `PIPELINE_INFO_<NAME>`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings, Words, words


class Settings(ServiceSettings):
    """What the service is told by its environment, beside what all services are told.

    Attributes:
        backend: Where runs are kept.
        file: jsonl: the first JSON Lines file; duckdb: the database file. Made at the first insert.
        rotate_bytes: jsonl: the size at which the next file is begun.
        dsn: postgres: connection string; oracle: `host:port/service`.
        user: oracle: account.
        password: oracle: its password.
        table: oracle: the table of runs.
        key_table: oracle: the table of idempotency keys.
        column_map: oracle: JSON object, column of ours to column of the table. Also read from
            ORACLE_COLUMN_MAP.
        pool_size: postgres, oracle: the most connections.
        store_timeout: postgres, oracle: seconds to wait for a connection, and for a statement.
        pipeline_types: Allowed values of `pipeline_type`, separated by commas; empty allows any.
        environments: Allowed values of `environment`, likewise.
        total_bound: Totals are counted up to here and said to be more beyond.
        summary_seconds: How old a summary may be.
        lineage_days: Lineage that nobody reported for so many days is hidden.
        airflow_url: Where the pages link to for a run of Airflow's, when the run brings no link itself.
    """

    model_config = SettingsConfigDict(env_prefix="PIPELINE_INFO_", extra="ignore", frozen=True)

    backend: Literal["jsonl", "postgres", "duckdb", "oracle"] = "jsonl"
    file: Path = Path(".local/data/pipeline_info/runs.jsonl")
    rotate_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024
    dsn: SecretStr = SecretStr("")
    user: str = ""
    password: SecretStr = SecretStr("")
    table: str = "PIPELINE_RUN"
    key_table: str = "PIPELINE_RUN_KEY"
    column_map: dict[str, str] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("column_map", "PIPELINE_INFO_COLUMN_MAP", "ORACLE_COLUMN_MAP"),
    )
    pool_size: Annotated[int, Field(ge=1, le=100)] = 8
    store_timeout: Annotated[float, Field(gt=0)] = 10
    pipeline_types: Words = (
        *("etl", "elt", "extract", "load", "transform"),
        *("quality", "monitoring", "airflow", "ml", "other"),
    )
    environments: Words = ("dev", "test", "staging", "prod")
    total_bound: Annotated[int, Field(ge=1)] = 1000
    summary_seconds: Annotated[float, Field(ge=0)] = 2
    lineage_days: Annotated[int, Field(ge=1, le=36_500)] = 30
    airflow_url: str = ""

    @field_validator("pipeline_types", "environments", mode="before")
    @classmethod
    def _split_words(cls, value: object) -> object:
        return words(value)
