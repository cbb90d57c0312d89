"""Settings that every service of the platform has; each adds its own and its prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

Words = Annotated[tuple[str, ...], NoDecode]


class ListenerSettings(BaseSettings):
    """What everything is told that listens.

    Attributes:
        allowed_hosts: Names by which it may be called beside its own address and 127.0.0.1, localhost,
            separated by commas: ALLOWED_HOSTS, the same everywhere.
    """

    allowed_hosts: Words = Field(default=(), validation_alias="allowed_hosts")

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return words(value)


class ServiceSettings(ListenerSettings):
    """What a service is told by its environment.

    Attributes:
        auth: `auto` asks for no credentials on connections to 127.0.0.1 and for them everywhere else.
        api_keys_file: JSON file of hashed API keys (`python -m services.common.security new-key`).
        jwt_issuer: OIDC issuer whose tokens are taken; its keys are found by discovery.
        jwt_audience: The audience that a token has to be for; needed with an issuer.
        jwt_roles_claim: The claim that lists roles, with dots into nested objects.
        rate_per_second: Requests a second for each client, in the long run; 0 for no limit.
        rate_burst: Requests that a client may make at once.
        max_body_bytes: The longest body that is read, decompressed.
        max_body_seconds: How long a body may take to arrive.
        trusted_proxies: Addresses or networks of the proxies whose X-Forwarded-For is believed.
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
    max_body_seconds: Annotated[float, Field(gt=0)] = 60
    trusted_proxies: Words = ()
    cors_origins: Words = ()
    audit_file: Path | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    retry_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    breaker_seconds: Annotated[float, Field(gt=0)] = 10

    @field_validator("cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split_common(cls, value: object) -> object:
        return words(value)

    @model_validator(mode="after")
    def _issuer_and_audience(self) -> Self:
        prefix = self.model_config.get("env_prefix", "")
        if self.jwt_issuer and not self.jwt_audience:
            raise ValueError(
                f"{prefix}JWT_ISSUER is set and {prefix}JWT_AUDIENCE is not: tokens that the issuer made for"
                " other services would be taken; name the audience of this one"
            )
        if self.jwt_issuer and not self.jwt_issuer.startswith(("https://", "http://")):
            raise ValueError(f"{prefix}JWT_ISSUER: {self.jwt_issuer} is not an address of http or https")
        return self


def words(value: object) -> object:
    """A comma-separated setting as a tuple."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value
