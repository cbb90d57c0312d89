"""Settings of the service, each from an environment variable `PIPELINE_INFO_<NAME>`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Words = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """What the service is told by its environment.

    Attributes:
        file: The JSON Lines file with one run a line; made, with its folder, at the first insert.
        pipeline_types: Allowed values of `pipeline_type`, separated by commas; empty allows any.
        environments: Allowed values of `environment`, likewise.
    """

    model_config = SettingsConfigDict(env_prefix="PIPELINE_INFO_", extra="ignore", frozen=True)

    file: Path = Path(".local/data/pipeline_info/runs.jsonl")
    pipeline_types: Words = (
        "etl",
        "elt",
        "extract",
        "load",
        "transform",
        "quality",
        "monitoring",
        "airflow",
        "ml",
        "other",
    )
    environments: Words = ("dev", "test", "staging", "prod")

    @field_validator("pipeline_types", "environments", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(word.strip() for word in value.split(",") if word.strip())
        return value
