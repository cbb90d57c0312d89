"""Settings of the service and of its relay: the documents' names, and `INGEST_<NAME>` for the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from psycopg.conninfo import make_conninfo
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the service is told by its environment, beside what all services are told.

    Attributes:
        minio_endpoint: The S3 server, as a URL or as `host:port`.
        minio_bucket: The bucket of raw events; made when it is not there.
        kafka_bootstrap: The broker.
        kafka_topic: Where events go.
        kafka_partitions: Partitions of the topic when it has to be made.
        clickhouse_host: Only asked whether it is well, for the metric.
        identity: What an event is known by when its sender gives no idempotency key: `content` takes two
            of the same type and payload for one event sent twice, `random` takes every request for new.
        max_event_bytes: The longest payload; Kafka's own limit of a message is 1 MB.
        max_bulk_events: The most events of one bulk request.
        linger_ms: How long the first event of a commit waits for others.
        commit_seconds: How long a commit is tried again when the database does not answer.
        max_waiting_events: Events in memory that wait for their commit; more get 429.
        max_outbox_events: Events that are not yet in Kafka or not yet in the lake; more get 429.
        schemas: Folder of JSON Schemas, `<event type>/<version>.json`.
        require_schema: Whether an event of a type without a schema is refused.
        relay_host: Where the relay's /metrics are.
        relay_port: Likewise.
        relay_batch: The most rows of the outbox that are carried at once.
        relay_batch_bytes: Likewise in bytes.
        relay_puts: Objects that are written at once. More for a lake that is far away.
        relay_rest: Seconds for which a writer of objects rests after a second of writing, while more comes in
            than can be written; 0 where the lake is on another machine.
        relay_idle_ms: How long the relay sleeps when there is nothing to carry.
        rate_per_second: No limit by client unless one is set: a full outbox slows all of them down.
    """

    model_config = SettingsConfigDict(
        env_prefix="INGEST_", extra="ignore", frozen=True, populate_by_name=True
    )

    minio_endpoint: str = Field(default="http://127.0.0.1:9000", validation_alias="MINIO_ENDPOINT")
    minio_bucket: str = Field(default="raw-data", validation_alias="MINIO_BUCKET")
    minio_access_key: str = Field(default="", validation_alias="MINIO_ACCESS_KEY")
    minio_secret_key: SecretStr = Field(default=SecretStr(""), validation_alias="MINIO_SECRET_KEY")
    minio_region: str = Field(default="us-east-1", validation_alias="MINIO_REGION")
    kafka_bootstrap: str = Field(default="127.0.0.1:9092", validation_alias="KAFKA_BOOTSTRAP")
    kafka_topic: str = Field(default="ingest-events", validation_alias="KAFKA_TOPIC")
    kafka_partitions: Annotated[int, Field(ge=1, validation_alias="KAFKA_PARTITIONS")] = 4
    postgres_host: str = Field(default="127.0.0.1", validation_alias="POSTGRES_HOST")
    postgres_port: int = Field(default=5432, validation_alias="POSTGRES_PORT")
    postgres_user: str = Field(default="ingest_user", validation_alias="POSTGRES_USER")
    postgres_password: SecretStr = Field(default=SecretStr(""), validation_alias="POSTGRES_PASSWORD")
    postgres_db: str = Field(default="ingest_db", validation_alias="POSTGRES_DB")
    clickhouse_host: str = Field(default="127.0.0.1", validation_alias="CLICKHOUSE_HOST")
    clickhouse_port: int = Field(default=8123, validation_alias="CLICKHOUSE_PORT")

    identity: Literal["content", "random"] = "content"
    max_event_bytes: Annotated[int, Field(ge=1024, le=900_000)] = 256 * 1024
    max_bulk_events: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    linger_ms: Annotated[float, Field(ge=0, le=1000)] = 5
    commit_seconds: Annotated[float, Field(gt=0)] = 10
    max_waiting_events: Annotated[int, Field(ge=1)] = 50_000
    max_outbox_events: Annotated[int, Field(ge=1)] = 1_000_000
    schemas: Path = Path(__file__).with_name("schemas")
    require_schema: bool = False
    relay_host: str = "127.0.0.1"
    relay_port: int = 8005
    relay_batch: Annotated[int, Field(ge=1)] = 1000
    relay_batch_bytes: Annotated[int, Field(ge=1)] = 16 * 1024 * 1024
    relay_puts: Annotated[int, Field(ge=1)] = 4
    relay_rest: Annotated[float, Field(ge=0)] = 8
    relay_idle_ms: Annotated[float, Field(gt=0)] = 50
    rate_per_second: Annotated[float, Field(ge=0)] = 0

    @property
    def dsn(self) -> str:
        """Connection string of the outbox's database; a dead peer is noticed within seconds."""
        return make_conninfo(
            host=self.postgres_host,
            port=self.postgres_port,
            user=self.postgres_user,
            password=self.postgres_password.get_secret_value(),
            dbname=self.postgres_db,
            connect_timeout=3,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
        )

    @property
    def minio_url(self) -> str:
        """The S3 server as a URL."""
        scheme = "" if "://" in self.minio_endpoint else "http://"
        return f"{scheme}{self.minio_endpoint}".rstrip("/")

    @property
    def clickhouse_url(self) -> str:
        """ClickHouse's HTTP interface."""
        return f"http://{self.clickhouse_host}:{self.clickhouse_port}"
