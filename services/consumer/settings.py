"""Settings of the consumer: the documents' names, and `CONSUMER_<NAME>` for the rest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.common.settings import ListenerSettings


class Settings(ListenerSettings):
    """What the consumer is told by its environment, beside what every listener is told.

    Attributes:
        kafka_bootstrap: The broker.
        kafka_topic: Where events come from.
        kafka_partitions: Partitions of the topic when it has to be made.
        kafka_group: The group that consumers share the topic's partitions in.
        dead_topic: Where messages go that are no events; `<topic>-dead` unless set.
        clickhouse_db: The database of `ingested_data`; made when it is not there.
        host: Where /metrics are.
        port: Likewise.
        batch: The most messages of one insert.
        linger_ms: How long an insert waits for messages; also about how often ClickHouse gets a new part.
        patience_seconds: How long ClickHouse may be away before the consumer ends and is started again.
        log_level: Least level that is logged.
    """

    model_config = SettingsConfigDict(
        env_prefix="CONSUMER_", extra="ignore", frozen=True, populate_by_name=True
    )

    kafka_bootstrap: str = Field(default="127.0.0.1:9092", validation_alias="KAFKA_BOOTSTRAP")
    kafka_topic: str = Field(default="ingest-events", validation_alias="KAFKA_TOPIC")
    kafka_partitions: int = Field(default=4, ge=1, validation_alias="KAFKA_PARTITIONS")
    kafka_group: str = Field(default="clickhouse", validation_alias="KAFKA_GROUP")
    clickhouse_host: str = Field(default="127.0.0.1", validation_alias="CLICKHOUSE_HOST")
    clickhouse_port: int = Field(default=8123, validation_alias="CLICKHOUSE_PORT")
    clickhouse_user: str = Field(default="default", validation_alias="CLICKHOUSE_USER")
    clickhouse_password: SecretStr = Field(default=SecretStr(""), validation_alias="CLICKHOUSE_PASSWORD")
    clickhouse_db: str = Field(
        default="wotr", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$", validation_alias="CLICKHOUSE_DB"
    )

    dead_topic: str = ""
    host: str = "127.0.0.1"
    port: int = 8004
    batch: Annotated[int, Field(ge=1)] = 10_000
    linger_ms: Annotated[float, Field(gt=0)] = 250
    patience_seconds: Annotated[float, Field(gt=0)] = 120
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def dead(self) -> str:
        """The dead-letter topic."""
        return self.dead_topic or f"{self.kafka_topic}-dead"
