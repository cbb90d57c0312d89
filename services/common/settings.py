"""Settings that every service of the platform has; each adds its own and its prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

Words = Annotated[tuple[str, ...], NoDecode]


class ServiceSettings(BaseSettings):
    """What a service is told by its environment.

    Attributes:
        auth: `auto` asks for no credentials on connections to 127.0.0.1 and for them everywhere else.
        api_keys_file: JSON file of hashed API keys (`python -m services.common.security new-key`).
        jwt_issuer: OIDC issuer whose tokens are taken; its keys are found by discovery.
        jwt_audience: The audience that a token has to be for.
        jwt_roles_claim: The claim that lists roles, with dots into nested objects.
        rate_per_second: Requests a second for each client, in the long run; 0 for no limit.
        rate_burst: Requests that a client may make at once.
        max_body_bytes: The longest body that is read.
        cors_origins: Origins whose pages may call the service, separated by commas.
        audit_file: File that gets one JSON line for each change; the log gets it in any case.
        log_level: Least level that is logged.
        retry_attempts: How often a store that does not answer is tried.
        breaker_failures: After so many failures in a row the store is left alone for a while.
        breaker_seconds: For so long.
    """

    auth: Literal["auto", "on", "off"] = "auto"
    api_keys_file: Path | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_roles_claim: str = "roles"
    rate_per_second: Annotated[float, Field(ge=0)] = 500
    rate_burst: Annotated[int, Field(ge=1)] = 1000
    max_body_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    cors_origins: Words = ()
    audit_file: Path | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    retry_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    breaker_seconds: Annotated[float, Field(gt=0)] = 10

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        return words(value)


def words(value: object) -> object:
    """A comma-separated setting as a tuple."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value
