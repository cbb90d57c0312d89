"""ClickHouse: the table that events are inserted into, and the view that shows each of them once."""

from __future__ import annotations

from collections.abc import Sequence

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from services.consumer.documents import Row
from services.consumer.settings import Settings

TABLE, VIEW = "ingested_events", "ingested_data"

# An event always has the same time, so its copies always meet: in one partition, under one key. Merges
# drop all but one of them, and until then FINAL in the view does.
_DDL = (
    "CREATE DATABASE IF NOT EXISTS {db}",
    """
    CREATE TABLE IF NOT EXISTS {db}.ingested_events (
        id UUID,
        event_type LowCardinality(String),
        schema_version UInt32,
        payload String CODEC(ZSTD(1)),
        created_at DateTime64(6, 'UTC'),
        inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
    )
    ENGINE = ReplacingMergeTree
    PARTITION BY toYYYYMM(created_at)
    ORDER BY (created_at, id)
    """,
    """
    CREATE VIEW IF NOT EXISTS {db}.ingested_data AS
    SELECT id, event_type, schema_version, payload, created_at, inserted_at
    FROM {db}.ingested_events FINAL
    SETTINGS do_not_merge_across_partitions_select_final = 1
    """,
)
_COLUMNS = ("id", "event_type", "schema_version", "payload", "created_at")


class Sink:
    """A connection that makes the tables when they are not there.

    Args:
        settings: Where ClickHouse is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None

    def insert(self, rows: Sequence[Row]) -> None:
        """Insert rows, all of them or none."""
        try:
            self._connected().insert(
                TABLE,
                list(zip(*rows, strict=True)),
                column_names=_COLUMNS,
                column_oriented=True,
                database=self._settings.clickhouse_db,
            )
        except BaseException:
            self.close()
            raise

    def prepare(self) -> None:
        """See that ClickHouse answers and has the tables."""
        self._connected()

    def _connected(self) -> Client:
        if self._client is None:
            client = clickhouse_connect.get_client(
                host=self._settings.clickhouse_host,
                port=self._settings.clickhouse_port,
                username=self._settings.clickhouse_user,
                password=self._settings.clickhouse_password.get_secret_value(),
                compress=False,
                connect_timeout=3,
                send_receive_timeout=30,
                autogenerate_session_id=False,
                query_retries=0,
            )
            for statement in _DDL:
                client.command(statement.format(db=self._settings.clickhouse_db))
            self._client = client
        return self._client

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            client, self._client = self._client, None
            client.close()
