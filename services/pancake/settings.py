"""Settings of the service: `DB_*` as its document names them, the others by `PANCAKE_<NAME>`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict
from sqlalchemy import URL

from services.common.settings import ServiceSettings, Words


class Settings(ServiceSettings):
    """What the service is told by its environment, beside what all services are told.

    Attributes:
        auth: The shop is open to everybody, as its document has it; `auto` and `on` as everywhere.
        cors_origins: Origins whose pages may call the API, separated by commas; `*` for any.
        db_user: The table's owner.
        db_password: Its password.
        db_host: PostgreSQL's host.
        db_port: Its port.
        db_name: The database.
        max_body_bytes: A pancake is a few KB at most.
        pool_size: The most connections.
        store_timeout: Seconds to wait for a connection, and for a statement.
    """

    model_config = SettingsConfigDict(
        env_prefix="PANCAKE_", extra="ignore", frozen=True, validate_by_name=True
    )

    auth: Literal["auto", "on", "off"] = "off"
    cors_origins: Words = ("*",)
    db_user: Annotated[str, Field(validation_alias="DB_USER")] = "jordans_db"
    db_password: Annotated[SecretStr, Field(validation_alias="DB_PASSWORD")] = SecretStr("")
    db_host: Annotated[str, Field(validation_alias="DB_HOST")] = "localhost"
    db_port: Annotated[int, Field(ge=1, le=65535, validation_alias="DB_PORT")] = 5432
    db_name: Annotated[str, Field(validation_alias="DB_NAME")] = "happy_pancakes"
    max_body_bytes: Annotated[int, Field(ge=1024)] = 128 * 1024
    pool_size: Annotated[int, Field(ge=1, le=100)] = 8
    store_timeout: Annotated[float, Field(gt=0)] = 10

    @property
    def url(self) -> URL:
        """Where the database is."""
        return URL.create(
            "postgresql+psycopg",
            self.db_user,
            self.db_password.get_secret_value(),
            self.db_host,
            self.db_port,
            self.db_name,
        )

    @property
    def where(self) -> str:
        """The same for messages, without the password."""
        return f"PostgreSQL {self.db_host}:{self.db_port}/{self.db_name}"
