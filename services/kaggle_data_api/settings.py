"""Settings: `DATABASE_URL`, as its document names it, the others by `KAGGLE_DATA_API_<NAME>`."""

from __future__ import annotations

from typing import Annotated

from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the service is told by its environment, beside what all services are told.

    Attributes:
        database_url: PostgreSQL, as `postgresql://user:password@host:port/name`.
        max_body_bytes: A dataset is some KB, with many files some hundred.
        pool_size: The most connections.
        store_timeout: Seconds to wait for a connection, and for a statement.
    """

    model_config = SettingsConfigDict(
        env_prefix="KAGGLE_DATA_API_",
        extra="ignore",
        frozen=True,
        validate_by_name=True,
        hide_input_in_errors=True,  # a password is part of it
    )

    database_url: Annotated[SecretStr, Field(validation_alias="DATABASE_URL")] = SecretStr(
        "postgresql://kaggle_data@localhost:5432/kaggle_data"
    )
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    pool_size: Annotated[int, Field(ge=1, le=100)] = 8
    store_timeout: Annotated[float, Field(gt=0)] = 10

    @field_validator("database_url")
    @classmethod
    def _of_postgresql(cls, value: SecretStr) -> SecretStr:
        address = value.get_secret_value()
        if not address.startswith(("postgresql://", "postgres://")):
            raise ValueError(
                "DATABASE_URL is not an address of PostgreSQL: postgresql://user:password@host/name"
            )
        try:
            conninfo_to_dict(address)
        except Exception:
            # Not its own words: they repeat parts of the address, and the password is one of them.
            raise ValueError(
                "DATABASE_URL cannot be read: percent-encode what is no letter or digit in its parts"
            ) from None
        return value

    @property
    def where(self) -> str:
        """The database for messages, without the password."""
        found = conninfo_to_dict(self.database_url.get_secret_value())
        return f"PostgreSQL {found.get('host')}:{found.get('port', 5432)}/{found.get('dbname')}"
